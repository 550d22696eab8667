#!/usr/bin/env python3
"""Is a user's own training, killed and started again, the library's own? Kills real scripts with SIGKILL.

Each model of tests/sb3/user_models.py is trained three ways: by its own `learn`; by `arzbench.learn`, left
alone; and `--times` times by `arzbench.learn` in a script that is killed `--kills` times, each at a random
moment after a save, and started again. Weights, optimizers, replay buffer, normalisation, counters, random
generators and callbacks must be the same. Where they are not, every resumption that lost them must have said
so; this is let pass for the models in `LABELLED` alone.

`--commands` of the times the script is started as a user does; else it is forked from a process that has
imported everything. After every kill the newest state must be readable and not older than the last save that
returned.
About 10 minutes for all; cases are kept as they are made, the same command goes on where it was.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import evidence  # noqa: E402
import learn_victim  # noqa: E402
from torture import Kills, good, within_save  # noqa: E402
from victims import Look, Process, ledger, look  # noqa: E402

from arzbench import runs  # noqa: E402
from tests.sb3.user_models import MODELS  # noqa: E402

VICTIM = Path(__file__).with_name("learn_victim.py")
#: envs of theirs are in other processes: they cannot be looked into
LABELLED = frozenset({"subproc"})
#: tiers that promise nothing
HONEST = frozenset({"reset", "unproven"})
TRIES = 8


class Group(Process):
    """Workers of a killed script end with it."""

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self.wait()


class Script:
    """A user's script that trains one model in `folder`."""

    def __init__(self, folder: Path, name: str, command: bool = True) -> None:
        """Started as a `command`, or else forked."""
        self.folder, self.name, self.command = folder, name, command
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        return next(iter(self.folder.glob(f"{self.name}/checkpoints/*")), self.folder / "none")

    @property
    def ledger(self) -> Path:
        return self.folder / self.name / "reports" / self.checkpoints.name / ledger.FILE

    def start(self) -> Process:
        begin = run_victim if self.command else fork_victim
        return Group(lambda: begin("arzbench", self.folder, [self.name]), self.folder / "log")

    def look(self) -> Look:
        run = next(iter(runs.newest_first(self.folder / self.name)), None)
        if run is None:
            return Look(newest=None, completed=None, unreadable={}, aside=set())
        return look(self.checkpoints, self.ledger, run.record.study_digest)

    def result(self) -> dict[str, Any]:
        return result_of(self.folder, self.name)

    @property
    def tiers(self) -> list[str]:
        """What was said of each resumption."""
        return [e.data["tier"] for e in ledger.read(self.ledger).of_kind("resumed")]


def run_victim(by: str, folder: Path, names: list[str]) -> int:
    os.setsid()
    os.environ["PYTHONPATH"] = str(evidence.ROOT)
    os.execv(sys.executable, [sys.executable, "-W", "ignore", str(VICTIM), by, str(folder), *names])


def fork_victim(by: str, folder: Path, names: list[str]) -> int:
    os.setsid()
    warnings.simplefilter("ignore")
    sys.argv = [str(VICTIM), by, str(folder), *names]
    learn_victim.main()
    return 0


def result_of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return found


def left_alone(work: Path, names: list[str]) -> tuple[Script, dict[str, Any]]:
    """All models, one after another, by the library and by arzbench: what each comes to."""
    results: dict[str, Any] = {}
    for by in ("library", "arzbench"):
        folder = work / by
        folder.mkdir(parents=True)
        process = Group(lambda by=by, folder=folder: run_victim(by, folder, names), folder / "log")  # type: ignore[misc]
        process.wait()
        if process.code != 0:
            sys.exit((folder / "log").read_text()[-2000:])
        results[by] = {name: result_of(folder, name) for name in names}
    return Script(work / "arzbench", names[0]), results


def gap_s(folder: Path, name: str) -> float:
    """Seconds from save to save in a training left alone."""
    told = Script(folder, name).ledger
    entries = ledger.read(told).entries
    trained = sum(s for e in entries for phase, (s, _) in e.phases.items() if phase != "imports")
    return trained / max(1, sum(e.kind == "checkpoint" for e in entries))


def killed(
    script: Script, whole: dict[str, Any], gap: float, wanted: int, dice: random.Random
) -> dict[str, Any]:
    """Killed `wanted` times, then left alone to its end."""
    for most in range(TRIES, 0, -1):
        kills = Kills(script)  # type: ignore[arg-type]
        while len(kills.told) < wanted:
            save = dice.randint(1, most) if most > 1 else 1
            if not kills.session(within_save(save, gap, dice)):
                break
        if len(kills.told) == wanted:
            break
        shutil.rmtree(script.folder)  # it ended before its last kill: from the start
        script.folder.mkdir()
    else:
        raise RuntimeError(f"{script.name} ended before {wanted} kills came, {TRIES} times")
    while kills.session(lambda process, job: not process.wait()):
        pass
    found, expected = script.result(), whole
    differs = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
    return {"kills": kills.told, "differs": differs, "tiers": script.tiers}


def honest(case: dict[str, Any]) -> bool:
    """The same bits, or, of a model that cannot be looked into, said so."""
    labelled = case["model"] in LABELLED and bool(HONEST & set(case.get("tiers", ())))
    return good({**case, "differs": [] if labelled else case["differs"]})


def go(work: Path, names: list[str], options: argparse.Namespace, cases: evidence.Cases) -> None:
    waiting = [(n, t) for t in range(options.times) for n in names if f"killed/{n}/{t}" not in cases.done]
    if not waiting:
        return
    _, whole = left_alone(work, names)
    for name in names:
        library, own = whole["library"][name], whole["arzbench"][name]
        differs = sorted(k for k in library if own.get(k) != library[k])
        cases.add({"case": f"alone/{name}", "model": name, "kills": [], "differs": differs})
    for name, number in waiting:
        case = f"killed/{name}/{number}"
        script = Script(work / case, name, number < options.commands)
        done: dict[str, Any] = {"case": case, "model": name, "kills": [], "differs": []}
        done["forked"] = number >= options.commands
        dice = random.Random(f"{options.seed}/{case}")
        try:
            gap = gap_s(work / "arzbench", name)
            done |= killed(script, whole["library"][name], gap, options.kills, dice)
        except Exception as error:  # the end of this case, not of the others
            done["differs"] = [f"{type(error).__name__}: {error}"]
        if honest(done):
            shutil.rmtree(script.folder, ignore_errors=True)
        cases.add(done)
        told = ", ".join(done["differs"]) or "the same bits"
        print(f"{case}: {len(done['kills'])} kills, {' '.join(done.get('tiers', ()))}: {told}", flush=True)


def counts(cases: list[dict[str, Any]]) -> dict[str, Any]:
    alone = [c for c in cases if c["case"].startswith("alone/")]
    rest = [c for c in cases if c["case"].startswith("killed/")]
    kills = [k for c in rest for k in c["kills"]]
    same = [c for c in rest if not c["differs"]]
    told: dict[str, Any] = {
        "models": len(alone),
        "left alone, everything as by the library's own learn": f"{sum(map(good, alone))} of {len(alone)}",
        "killed and resumed, everything as by the library's own learn": f"{len(same)} of {len(rest)}",
        "of these said to be exact": sum(set(c["tiers"]) == {"exact"} for c in same),
        "other bits, and every time said so": f"{sum(bool(c['differs']) and honest(c) for c in rest)}",
        "killed as a script of its own, not forked": sum(
            int(c["case"].rpartition("/")[2]) % 3 == 0 for c in rest
        ),
        "kills": len(kills),
        "of them within a save": sum(k["within_a_save"] for k in kills),
        "unreadable states after them": sum(bool(k["unreadable"]) for k in kills),
        "newest sound state older than the last completed save": sum(k["lost"] for k in kills),
    }
    for name in dict.fromkeys(c["model"] for c in rest):
        of_model = [c for c in rest if c["model"] == name]
        tiers = ", ".join(sorted({t for c in of_model for t in c.get("tiers", ())}))
        equal = sum(not c["differs"] for c in of_model)
        told[name] = f"{equal} of {len(of_model)} the same bits; said: {tiers}"
    return told


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=3, help="each model is trained, and killed")
    parser.add_argument("--commands", type=int, default=1, help="of these, scripts that are not forked")
    parser.add_argument("--kills", type=int, default=2, help="of each training")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: reports/learn-kills-<host>-<date>")
    options = parser.parse_args()
    settings = {k: getattr(options, k) for k in ("times", "commands", "kills", "models", "seed")}
    given = evidence.circumstances(**settings)
    out = options.out or evidence.folder("learn-kills")
    cases = evidence.Cases(out, given)
    work = Path(tempfile.mkdtemp(prefix="learn-kills-"))
    go(work, options.models, options, cases)
    told = list(cases.done.values())
    if all(map(honest, told)):
        shutil.rmtree(work, ignore_errors=True)
    else:
        print(f"the folders of bad cases are kept: {work}", file=sys.stderr)
    killed_all = all(len(c["kills"]) == options.kills for c in told if c["case"].startswith("killed/"))
    kept = all(map(honest, told)) and killed_all
    return evidence.conclude(out, "Killed trainings of users' own models", given, counts(told), kept)


if __name__ == "__main__":
    sys.exit(main())
