#!/usr/bin/env python3
"""Can a run be lost? Kills real trainings with SIGKILL, resumes them, and compares bit for bit.

1. trainings: DQN and PPO, on CartPole and on the traffic light, killed at a random moment (every second one
   within a save, proved by what is on the disk; some twice) and resumed until done. Weights, optimizer,
   buffers, random states, counters, evaluations, records and exported model must be those of the same
   training left alone. Most are forked from a process that has imported everything, `--commands` of them
   are the real `arzbench run`.
2. points: the same, killed at every named point of a save.
3. saves: trainings that save at every step, killed again and again until `--saves` kills came within a save.

After every kill: the newest state must be readable and not older than the last save that returned.
Cases are kept as they are made, under reports/; the same command goes on where it was.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import evidence  # noqa: E402
import victims  # noqa: E402
from victims import SAVING, TRAINED, Job, Look, Process, Watch  # noqa: E402

from arzbench.saves.checkpoints import POINTS  # noqa: E402

SHM = Path("/dev/shm")
COMMAND_S = 4.0  # what the command needs, about, before it trains
Moment = Callable[[Process, Job], bool]  # waits for it; whether the process is still there then
Reference = dict[str, Any]


class Kills:
    """The kills of one job, each looked at before the job goes on."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.told: list[dict[str, Any]] = []
        self.before = job.look()

    def session(self, moment: Moment) -> bool:
        """A session, killed at `moment`; False if it ended by itself before."""
        process = self.job.start()
        if not moment(process, self.job):
            if process.code != 0:
                raise RuntimeError(f"exit {process.code}: {(self.job.folder / 'log').read_text()[-2000:]}")
            return False
        process.kill()
        self.note(process)
        return True

    def note(self, process: Process) -> None:
        now = self.job.look()
        self.told.append({
            "after_s": round(process.ended - process.began, 4),
            "within_a_save": now.within_a_save(self.before),
            "newest": now.newest,
            "awaiting": now.awaiting,
            "unreadable": now.unreadable,
            "lost": now.lost or victims.serial(now.newest) < victims.serial(self.before.newest),
        })  # fmt: skip
        self.before: Look = now

    @property
    def within(self) -> int:
        return sum(k["within_a_save"] for k in self.told)


def after(seconds: float) -> Moment:
    return lambda process, job: not process.wait(process.began + seconds)


def within_save(number: int, save_s: float, dice: random.Random) -> Moment:
    """Somewhere in the save of that number from now on."""

    def moment(process: Process, job: Job) -> bool:
        while not job.checkpoints.is_dir():
            if process.wait(time.monotonic() + 0.01):
                return False
        with Watch(job.checkpoints) as watch:
            begun = 0
            while begun < number:
                if process.wait(None, watch.descriptor):
                    return False
                begun += watch.saves_begun()
        return not process.wait(time.monotonic() + dice.uniform(0, save_s))

    return moment


@contextlib.contextmanager
def place(work: Path, name: str, in_memory: bool) -> Iterator[Path]:
    """A folder on the disk, or in memory, where a save does not wait for the disk and kills hit its code."""
    if not (in_memory and SHM.is_dir()):
        yield work / name
        return
    with tempfile.TemporaryDirectory(dir=SHM, prefix="torture-") as folder:
        yield Path(folder)


def saves_of(job: Job, otherwise: float) -> tuple[int, float]:
    """How many saves the ledger tells of, and what one takes, in seconds."""
    told = victims.ledger.read(job.ledger).entries if job.ledger.exists() else []
    saves = sorted(e.data["seconds"] for e in told if e.kind == "checkpoint")
    return len(saves), saves[len(saves) // 2] if saves else otherwise


def reference(work: Path, study: str) -> Reference:
    """The training left alone: what it comes to, how long it took and saved."""
    with place(work, f"reference-{study}", study in SAVING) as folder:
        job = Job(folder, work / "studies" / f"{study}.toml", False)
        process = job.start()
        process.wait()
        if process.code != 0:
            raise RuntimeError((job.folder / "log").read_text()[-2000:])
        saves, save_s = saves_of(job, 0.0)
        return {
            "seconds": process.ended - process.began,
            "saves": saves,
            "save_s": save_s,
            "result": victims.in_child(job.result, job.folder / "log"),
        }


def conclusion(kills: Kills, whole: Reference) -> dict[str, Any]:
    """Left alone now, the job goes on to its end; what of it differs, and what the kills did."""
    while kills.session(lambda process, job: not process.wait()):
        pass
    found = victims.in_child(kills.job.result, kills.job.folder / "log")
    expected = whole["result"]
    differs = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
    return {"kills": kills.told, "differs": differs}


def training(
    folder: Path, study_file: Path, whole: Reference, dice: random.Random, number: int, command: bool
) -> dict[str, Any]:
    """Killed at a random moment or, every second one, until a kill came within a save; some once more."""
    seconds = whole["seconds"] + (COMMAND_S if command else 0.0)
    kills = Kills(Job(folder, study_file, command))
    to_do = True
    while to_do or dice.random() < 1 / 3:
        if number % 2 and not kills.within:
            left = max(1, whole["saves"] - victims.serial(kills.before.newest))
            moment = within_save(dice.randint(1, left), 1.2 * whole["save_s"], dice)
        else:
            moment = after(dice.uniform(0, 0.95 * seconds))
        killed = kills.session(moment)
        to_do = not kills.within if number % 2 else not kills.told
        if not killed and not to_do:
            break  # it ended before one more kill: the command would begin another run
        if not killed:  # it ended before its kill: from the start
            shutil.rmtree(folder)
            kills = Kills(Job(folder, study_file, command))
    return conclusion(kills, whole)


def point(
    folder: Path, study_file: Path, whole: Reference, dice: random.Random, name: str, save: int
) -> dict[str, Any]:
    """Killed when the save of that number passes the point of that name (the next one that does)."""
    began = 0

    def at_point(here: str) -> None:
        nonlocal began
        began += here == POINTS[0]
        if here == name and began >= save:
            os.kill(os.getpid(), signal.SIGKILL)

    kills = Kills(Job(folder, study_file, False))
    process = kills.job.start(at_point)
    process.wait()
    if process.code == -signal.SIGKILL:
        kills.note(process)
    return conclusion(kills, whole)


def chain(
    folder: Path, study_file: Path, whole: Reference, dice: random.Random, number: int
) -> dict[str, Any]:
    """A training that saves at every step, killed every few saves until it reaches its end."""
    with place(folder.parent, folder.name, number % 4 < 2) as where:
        kills = Kills(Job(where, study_file, False))
        save_s = whole["save_s"]
        # a little more than the length of a save here: also between and after
        while kills.session(within_save(dice.randint(1, 12), 1.1 * save_s, dice)):
            save_s = saves_of(kills.job, save_s)[1]
        return {**conclusion(kills, whole), "in_memory": where != folder}


def perform(
    work: Path, case: str, study: str, task: str, whole: Reference, seed: int | str, *rest: Any
) -> dict[str, Any]:
    """In a lane: the case, and its folder removed if there is nothing to look at."""
    done: dict[str, Any] = {"case": case, "study": study, "kills": [], "differs": []}
    dice = random.Random(f"{seed}/{case}")
    try:
        study_file = work / "studies" / f"{study}.toml"
        done |= globals()[task](work / case, study_file, whole, dice, *rest)
    except Exception as error:  # the end of this case, not of the others
        done["differs"] = [f"{type(error).__name__}: {error}"]
    if good(done):
        shutil.rmtree(work / case, ignore_errors=True)
    return done


def good(case: dict[str, Any]) -> bool:
    return not case["differs"] and not any(k["lost"] or k["unreadable"] for k in case["kills"])


def tasks(options: argparse.Namespace) -> Iterator[tuple[str, str, str, tuple[Any, ...]]]:
    """(case, study, task, its arguments) of all but the chains."""
    for kind, killed in (("command", options.commands), ("training", options.trainings - options.commands)):
        for number in range(killed):
            study = TRAINED[number // 2 % len(TRAINED)]
            yield f"{kind}/{number}", study, "training", (options.seed, number, kind == "command")
    for name in POINTS:
        # without a replay buffer there are no segments
        studies = [s for s in TRAINED if name != "after-segment" or s.endswith("dqn")]
        for save, study in itertools.islice(itertools.product((3, 1, 4, 2), studies), options.points):
            yield f"points/{name}/{study}/{save}", study, "point", (options.seed, name, save)


def chains(options: argparse.Namespace) -> Iterator[tuple[str, str, str, tuple[Any, ...]]]:
    """The chains, as many as are wanted."""
    for number in itertools.count():
        yield f"saves/{number}", SAVING[number % 2], "chain", (options.seed, number)


def go(work: Path, options: argparse.Namespace, cases: evidence.Cases) -> None:
    """All cases that are not there yet, in `--jobs` lanes."""
    victims.warm_up(victims.write_studies(work / "studies", options.device))
    waiting = [t for t in tasks(options) if t[0] not in cases.done]
    endless = (t for t in chains(options) if t[0] not in cases.done)
    wanted = {study for _, study, _, _ in waiting} | (set() if enough(cases, options) else set(SAVING))
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, context, victims.die_with_parent) as lanes:
        futures = {study: lanes.submit(reference, work, study) for study in sorted(wanted)}
        whole = {study: future.result() for study, future in futures.items()}
        running: set[Any] = set()
        while True:
            while len(running) < options.jobs and (waiting or not enough(cases, options)):
                case, study, task, arguments = waiting.pop(0) if waiting else next(endless)
                running.add(lanes.submit(perform, work, case, study, task, whole[study], *arguments))
            if not running:
                return
            ended, running = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
            for future in ended:
                cases.add(future.result())
                tell(cases, future.result(), options)


def enough(cases: evidence.Cases, options: argparse.Namespace) -> bool:
    """Whether no chain is wanted any more; one that failed would fail again."""
    failed = any(not good(c) for name, c in cases.done.items() if name.startswith("saves/"))
    return failed or within(cases) >= options.saves


def within(cases: evidence.Cases) -> int:
    return sum(k["within_a_save"] for c in cases.done.values() if "saves/" in c["case"] for k in c["kills"])


def tell(cases: evidence.Cases, case: dict[str, Any], options: argparse.Namespace) -> None:
    bad = sum(not good(c) for c in cases.done.values())
    killed = sum(len(c["kills"]) for c in cases.done.values())
    left = f"{within(cases)} of {options.saves} kills in trainings that save at every step"
    if len(cases.done) % 10 and "saves" not in case["case"] and good(case):
        return
    print(f"{len(cases.done)} cases, {killed} kills, {bad} bad; {left}; last {case['case']}", flush=True)


def counts(cases: evidence.Cases) -> dict[str, Any]:
    """What the cases come to."""
    by_kind = collections.defaultdict(list)
    for case in cases.done.values():
        by_kind[case["case"].partition("/")[0]].append(case)
    killed = by_kind["training"] + by_kind["command"]
    told = {
        "killed trainings that ended bit-identical": f"{sum(map(good, killed))} of {len(killed)}",
        "of them the command": f"{sum(map(good, by_kind['command']))} of {len(by_kind['command'])}",
        "of them killed within a save": sum(any(k["within_a_save"] for k in c["kills"]) for c in killed),
        "kills of them": sum(len(c["kills"]) for c in killed),
        "killed at a named point, ended bit-identical": (
            f"{sum(good(c) and bool(c['kills']) for c in by_kind['points'])} of {len(by_kind['points'])}"
        ),
        "named points": ", ".join(POINTS),
        "kills within a save, saving at every step": within(cases),
        "trainings of these that ended bit-identical": (
            f"{sum(map(good, by_kind['saves']))} of {len(by_kind['saves'])}"
        ),
        "killed trainings by study": dict(collections.Counter(c["study"] for c in killed)),
    }
    every = [k for c in cases.done.values() for k in c["kills"]]
    told["kills in all"] = len(every)
    told["newest state saved beside an evaluation, which was played again"] = sum(
        k["awaiting"] for k in every
    )
    told["unreadable states after them"] = sum(bool(k["unreadable"]) for k in every)
    told["newest sound state older than the last completed save"] = sum(k["lost"] for k in every)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trainings", type=int, default=200, help="killed trainings, the commands included")
    parser.add_argument("--commands", type=int, default=20, help="of them, the real `arzbench run`")
    parser.add_argument("--saves", type=int, default=1000, help="kills of trainings that save at every step")
    parser.add_argument(
        "--points", type=int, default=8, help="trainings killed at each named point, at most 8"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the nets and the roads")
    parser.add_argument("--out", type=Path, help="default: reports/torture-<host>-<date>")
    options = parser.parse_args()
    asked = {k: getattr(options, k) for k in ("trainings", "commands", "saves", "points", "seed")}
    given = evidence.circumstances(options.device, **asked)
    out = options.out or evidence.folder("torture")
    cases = evidence.Cases(out, given)
    work = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        go(work, options, cases)
    finally:
        if all(map(good, cases.done.values())):
            shutil.rmtree(work, ignore_errors=True)
        else:
            print(f"the folders of bad cases are kept: {work}", file=sys.stderr)
    whole = len([c for c in cases.done if c.startswith(("training/", "command/"))]) == options.trainings
    points_met = all(c["kills"] for n, c in cases.done.items() if n.startswith("points/"))
    complete = whole and within(cases) >= options.saves and points_met
    kept = complete and all(map(good, cases.done.values()))
    return evidence.conclude(out, "Killed runs", given, counts(cases), kept)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
