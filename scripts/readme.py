"""The output blocks of README.md and docs/guides: made by running the commands, checked by their shape.

    python scripts/readme.py            run the commands and write their real output into the files
    python scripts/readme.py --check    run cheaper ones and compare the shape; exit code 1 where it differs

A block is what stands between `<!-- output: NAME -->` and `<!-- end -->`; `NAME short` keeps what KEEP
says and marks each gap by a line with three dots.
"""

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "README.md",
    "docs/guides/calibrate.md",
    "docs/guides/plan.md",
    "docs/guides/run.md",
    "docs/guides/report.md",
)
BLOCK = re.compile(
    r"<!-- output: (?P<name>[\w-]+)(?P<short> short)? -->\n(?P<body>.*?)<!-- end -->", re.DOTALL
)

# name -> (the command shown, what --check runs in its place, exit code), in the order they are run
COMMANDS = {
    "calibrate": (
        "arzbench calibrate --steps 100",
        "arzbench calibrate --steps 100 --repetitions 2 --max-time 8s",
        0,
    ),
    "plan": ("arzbench plan --quota 12h", "arzbench plan --quota 12h", 0),
    "plan-25s": ("arzbench plan --quota 25s", "arzbench plan --quota 10m", 0),
    "too-short": ("arzbench plan --quota 2s", "arzbench plan --quota 2s", 3),
    "run": ("arzbench run --auto-budget --quota 25s", "arzbench run --timesteps 8000", 0),
    "report": ("arzbench report", "arzbench report", 0),
}

# what a shortened block keeps
KEEP = {
    "calibrate": [
        r"seconds per unit", r"^ phase ", r"^ (env step|policy|update|rollout|evaluation) ", r"in all",
    ],
    "plan": [
        r"^study", r"^safe budget", r"^this machine", r"beside the training", r"^wall time on",
        r"^ steps +trained", r"^ (24,000|100,000|study) .*%", r"^ [ABC] ",
    ],
    "plan-25s": [
        r"^safe budget", r"^this machine", r"beside the training", r"^wall time on", r"^ steps +trained",
        r"^ (1,000|5,000|8,000|24,000) .*%",
    ],
    "report": [r"^where", r"^ (phase|env step|policy|update|rollout|evaluation|baseline) "],
}  # fmt: skip


def outputs(folder: Path, *, check: bool) -> dict[str, list[str]]:
    """What each command prints, blank lines and line ends' spaces left out."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {
        k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE")
    }
    found = {}
    for name, (shown, cheap, code) in COMMANDS.items():
        words = shlex.split(cheap if check else shown)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "arzbench", *words],
            cwd=folder,
            env={**environment, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != code:
            sys.exit(f"{shown}: exit code {done.returncode}, expected {code}\n{done.stdout}")
        lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
        found[name] = [f"$ {shown}", *lines]
    return found


def shortened(name: str, lines: list[str]) -> list[str]:
    """The command and the lines that KEEP names, with the rule below a head, each gap as three dots."""
    kept = [lines[0]]
    for line in lines[1:]:
        below = "─" in line and kept[-1] != "..."
        if below or any(re.search(pattern, line) for pattern in KEEP[name]):
            kept.append(line)
        elif kept[-1] != "...":
            kept.append("...")
    return kept


NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
DURATION = rf"{NUMBER}(?: (?:us|ms|min \d+ s|h \d+ min|d \d+ h|s))?(?![\w])"
MASKS = [
    (r"^host: .*", "host"),
    (r"(smallest period .*?): .*", r"\1: ANSWER"),
    (r"\S*/\S+\.(?:json|md)", "PATH"),
    (r"\S+-\d{8}T\d{6}Z(?:-\d+)?", "ID"),
    (r"^(budget: .*? steps) \(.*?\)(?:, (?:no )?quota.*)?$", r"\1 (why)"),
    (r", [^,]+ before the deadline$", ""),
    (r"lies (?:within|beyond) the", "lies WHERE the"),
    (r"the whole study (?:in one session|over \S+ sessions)", "the whole study"),
    (r"--quota \S+", "--quota TIME"),
    (r"   \(again in each session: it resumes by itself\)", ""),
    (r"(?: (?:fits|at risk|times out))$", " VERDICT"),
    (r", (?:\S+ steps/s|last return .*)", ""),
    (r"deadline (?:none|in [^,]+)", "deadline"),
    (r"predicted end .*", "predicted end"),
    (r"^ +\S+ (?:baseline|train|final|done): (?=.* steps \()", "progress: "),
    (r"^ (?:traffic-light|second|third) +(?:baseline|evaluation|final) ", " evaluation "),
    (r"process \d+/\d+", "process"),
    (DURATION, "N"),
    (r"(?<= )-(?= |$)", "N"),
    (r"─+", "─"),
    (r"\s+", " "),
]  # fmt: skip
#: a table that is there only where something does not fit
SECTION = "what would make it fit"
#: lines that are there or not by how a machine behaves, and lines that come once or often
OPTIONAL = re.compile(r"^this machine varied|^.*beside (the training|an evaluation)|^ +\S+ waited for")
OFTEN = re.compile(r"^ ?(progress:|evaluation N|\S+, process$)")


def shape(lines: list[str]) -> list[str]:
    """`lines` without what differs from run to run: numbers, durations, names, paths, padding."""
    found: list[str] = []
    inside = False
    for line in lines:
        inside = line.startswith(SECTION) or (inside and line.startswith(" "))
        if inside or OPTIONAL.match(line):
            continue
        for pattern, instead in MASKS:
            line = re.sub(pattern, instead, line)
        line = line.rstrip()
        if not (found and found[-1] == line and OFTEN.match(line)):
            found.append(line)
    return found


def differences(name: str, shown: list[str], real: list[str]) -> list[str]:
    """How the shape of a block differs from that of a run."""
    return list(
        difflib.unified_diff(shape(shown), shape(real), f"{name} shown", f"{name} now", "", "", 2, "")
    )


def main() -> int:
    check = "--check" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        found = outputs(Path(folder), check=check)
    failed = False
    for file in FILES:
        text = (ROOT / file).read_text(encoding="utf-8")

        def fill(match: re.Match[str]) -> str:
            name = match["name"]
            lines = shortened(name, found[name]) if match["short"] else found[name]
            begin = match[0].partition("\n")[0]
            return "\n".join([begin, "```console", *lines, "```", "<!-- end -->"])

        if not check:
            (ROOT / file).write_text(BLOCK.sub(fill, text), encoding="utf-8")
            continue
        for match in BLOCK.finditer(text):
            name = match["name"]
            real = shortened(name, found[name]) if match["short"] else found[name]
            if told := differences(f"{file}, {name}:", match["body"].splitlines()[1:-1], real):
                failed = True
                print("\n".join(told))
    if failed:
        print("write them anew: python scripts/readme.py")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
