"""Documentation says what is: output, links, commands, options, exit codes, fields of files."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

from arzbench import cli, records, store, study, study_file
from arzbench.errors import ExitCode
from arzbench.report import comparison
from arzbench.saves import folders
from arzbench.traffic.bench import record as bench

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMANDS = {name: cli.load(name) for name in cli.COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_tells_of_each_what_its_help_does(name: str) -> None:
    assert COMMANDS[name].help.partition("\n")[0] == cli.COMMANDS[name]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as they are made where pages are shown."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_somewhere(page: str) -> None:
    broken = []
    for target in LINK.findall(FENCED.sub("", TEXTS[page])):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        if not found.exists():
            broken.append(target)
        elif anchor and anchor not in anchors(found.read_text(encoding="utf-8")):
            broken.append(f"{target}: no such heading")
    assert not broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, to_do = set(), [ROOT / "README.md"]
    while to_do:
        page = to_do.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            path = target.partition("#")[0]
            if path and not re.match(r"[a-z]+:", target):
                to_do.append((page.parent / path).resolve())
    assert {p.resolve() for p in PAGES} - seen == set()


def shown_commands(text: str) -> list[str]:
    """Lines that call arzbench: `$ arzbench ...` or on a line of their own in a code block."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(r"^(?: {4}|\$ |exec )(arzbench (?!\[).*)$", joined, re.MULTILINE)
    for block in FENCED.findall(joined):
        lines += re.findall(r"^(arzbench .*)$", block, re.MULTILINE)
    quoted = re.findall(r"`(arzbench [a-z]+(?: [^`]*)?)`", text)
    hints = re.findall(r"^ *[ABC]: (arzbench .*)$", text, re.MULTILINE)
    return [*lines, *quoted, *hints]


def test_every_command_shown_parses() -> None:
    found = {page: shown_commands(text) for page, text in TEXTS.items()}
    assert len(found["README.md"]) >= 8
    assert sum(map(len, found.values())) >= 30
    wrong = []
    for page, lines in found.items():
        for line in lines:
            words = shlex.split(line.partition("   (")[0], comments=True)[1:]
            words = words[: words.index(">")] if ">" in words else words
            if words[0].startswith("--") or words[0].isupper():
                continue
            try:
                COMMANDS[words[0]].make_context(words[0], list(words[1:]))
            except (KeyError, click.exceptions.UsageError) as error:
                wrong.append(f"{page}: {line}: {error}")
    assert not wrong


def test_a_command_that_does_not_parse_is_found() -> None:
    assert shown_commands("    arzbench plan --qouta 12h\n") == ["arzbench plan --qouta 12h"]
    with pytest.raises(Exception, match="qouta"):
        COMMANDS["plan"].make_context("plan", ["--qouta", "12h"])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_guide_names_every_option_of_its_command_and_no_other(name: str) -> None:
    guides = [
        text
        for page, text in TEXTS.items()
        if page.startswith("docs/guides/") and re.search(rf"^#+ .*\barzbench {name}\b", text, re.MULTILINE)
    ]
    assert len(guides) == 1, f"one guide must have the heading: arzbench {name}"
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts if option[0] == "-"}
    section = re.split(rf"^#+ .*\barzbench {name}\b", guides[0], flags=re.MULTILINE)[1]
    table = section.partition("# Options\n")[2].partition("\n#")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    told = {option for cell in cells for option in re.findall(r"--[a-z][\w-]*", cell)}
    assert told - {"--help"} == options - {"--help"}
    assert f"`arzbench {name}`" in TEXTS["docs/reference/cli.md"]


def test_every_exit_code_is_documented() -> None:
    told = re.findall(r"^\| (\d+) \|", TEXTS["docs/reference/exit-codes.md"], re.MULTILINE)
    assert {str(int(code)) for code in ExitCode} <= set(told)


def test_every_schema_is_documented_with_its_version() -> None:
    rows = dict(
        re.findall(r"^\| `(arzbench/\w+)` \| (\d+) \|", TEXTS["docs/reference/formats.md"], re.MULTILINE)
    )
    assert rows == {schema: str(version) for schema, version in store.VERSIONS.items()}


WRITTEN = [
    records.Calibration, records.WorkloadSamples, records.PhaseSamples, records.EnvFacts, records.HostInfo,
    records.Platform, records.Plan, records.CostModel, records.Coefficient, records.Spread, records.Estimate,
    records.BesidePrice, records.EvaluationsBeside, records.WhatIf,
    records.TrainSchedule, records.PhaseCount, records.TableRow, records.PlanOption, records.RunRecord,
    records.LedgerEntry, bench.EngineBench, bench.Peak, bench.EngineSpeed, bench.EnvSpeed,
    comparison.Comparison, comparison.PolicyResult, comparison.Difference,
    folders.StateManifest, folders.LoopState, records.Tuning, records.TunedSetting,
]  # fmt: skip


@pytest.mark.parametrize("record", WRITTEN, ids=lambda r: r.__name__)
def test_every_field_of_a_file_is_documented(record: type[msgspec.Struct]) -> None:
    told = set(re.findall(r"`(\w+)`", TEXTS["docs/reference/formats.md"]))
    assert set(record.__struct_fields__) - told == set()


def test_every_key_of_a_study_is_documented() -> None:
    told = set(re.findall(r"`([\w.]+)`", TEXTS["docs/guides/studies.md"]))
    keys = set(study.TrainConfig.__struct_fields__) - {"evaluation", "baseline", "checkpoint", "logging"}
    for table, part in (("evaluation", study.Evaluation), ("baseline", study.Baseline),
                        ("checkpoint", study.Checkpoints), ("logging", study.Logging)):  # fmt: skip
        keys |= {f"{table}.{field}" for field in part.__struct_fields__}
    assert keys - told == set()
    counted = {name for kind in study.ALGORITHMS.values() for name in kind.schedule_fields()}
    assert counted - set(re.findall(r"`(\w+)`", TEXTS["docs/reference/formats.md"])) == set()


def test_the_example_of_a_study_is_one(tmp_path: Path) -> None:
    toml = re.findall(r"^```toml\n(.*?)^```", TEXTS["docs/guides/studies.md"], re.DOTALL | re.MULTILINE)
    assert len(toml) == 1
    (tmp_path / "it.toml").write_text(toml[0])
    found = study_file.load_study(tmp_path / "it.toml")
    assert [t.name for t in found.trainings] == ["seed-0", "seed-1"]
    assert found.total_timesteps == 40_000


def test_every_phase_is_explained() -> None:
    told = re.findall(r"^\| ([a-z ]+) \|", TEXTS["docs/concepts/cost-model.md"], re.MULTILINE)
    assert [p.value for p in records.Phase] == [name for name in told if name in set(records.Phase)]


# ---------------------------------------------------------------- output


sys.path.insert(0, str(ROOT / "scripts"))
import readme  # noqa: E402


@pytest.mark.timeout(600)  # it calibrates and trains, on a machine that may be busy
def test_output_shown_has_the_shape_of_a_real_run() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "readme.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_screen_shows_the_problem_the_commands_and_their_output() -> None:
    screen = "\n".join(TEXTS["README.md"].splitlines()[:55])
    for part in (
        "98,240",
        "pip install",
        "$ arzbench calibrate --steps 100",
        "$ arzbench plan --quota 12h",
        "P90",
    ):
        assert part in screen


def test_every_block_is_filled_and_shortened_as_said() -> None:
    found = 0
    for file in readme.FILES:
        for block in readme.BLOCK.finditer(TEXTS[file]):
            lines = block["body"].splitlines()
            found += 1
            assert lines[0] == "```console"
            assert lines[-1] == "```"
            assert lines[1] == f"$ {readme.COMMANDS[block['name']][0]}"
            assert len(lines) > 4
            assert block["short"] or "..." not in lines
    assert found >= 10


PLAN = [
    "wall time on local (12 h 00 min)",
    " 24,000      24,000    29,280   1 min 02 s     74.9 s    99.1 s    100%   fits",
    "this machine varied 14% while it was measured",
    "  traffic-light train: 2,000/2,916 steps (69%), 381 steps/s, elapsed 20.7 s, deadline in 51.1 s, "
    "predicted end in 18.5 s (P90 20.4 s), P(fits) 100%, last return -57.1",
]


def test_a_shape_ignores_what_differs_from_run_to_run() -> None:
    other = [
        "wall time on local (10 min 00 s)",
        " 24,000   24,000   29,280   850 us   2 d 03 h   13 h 05 min   3%   times out",
        "  third final: 0/12 steps (0%), elapsed 0.5 s, deadline none, predicted end not known yet",
        "  third final: 1/12 steps (8%), elapsed 0.9 s, deadline none, predicted end not known yet",
    ]
    assert readme.shape(PLAN) == readme.shape(other)


@pytest.mark.parametrize(
    ("was", "now"),
    [("wall time", "duration"), ("local", "here"), ("elapsed", "since"), ("fits", "passes"), ("29,280", "")],
)
def test_a_shape_sees_a_change_of_wording_or_columns_and_a_line_that_is_gone(was: str, now: str) -> None:
    changed = [line.replace(was, now) for line in PLAN]
    assert readme.differences("plan", changed, PLAN)
    assert readme.differences("plan", PLAN[1:], PLAN)
