"""Sessions of real trainings in processes that are killed, and what they leave on the disk."""

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import select
import signal
import struct
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from arzbench.clock import SystemClock, process_start
from arzbench.digest import digest
from arzbench.measure.phase_times import PhaseTotals
from arzbench.run import job, ledger
from arzbench.run.job import RunRequest, run_job
from arzbench.saves import segments
from arzbench.saves.checkpoints import CheckpointStore
from arzbench.sb3 import evaluations
from arzbench.sb3.workload import SB3Workload
from arzbench.study import Study
from arzbench.study_file import load_study

TOML = """schema = "arzbench/study"
version = 1
name = "{name}"
env = "{env}"
algo = "{algo}"
n_envs = {n_envs}
vec_normalize = {normalized}
total_timesteps = {steps}
seed = 5
device = "{device}"
[hyperparameters]
{hyperparameters}
[baseline]
controller = "{baseline}"
episodes = 1
[evaluation]
eval_freq = {eval_freq}
n_eval_episodes = 2
final_episodes = 1
[checkpoint]
checkpoint_freq = {checkpoint_freq}
keep_last = 2
"""
_CARTPOLE = {
    "env": "CartPole-v1", "baseline": "random", "n_envs": 1, "normalized": "false", "device": "cpu",
}  # fmt: skip
_TRAFFIC = {**_CARTPOLE, "env": "arzbench/TrafficLight-v0", "baseline": "fixed_time"}
_DQN = {
    "algo": "dqn",
    # more steps than the buffer holds: it wraps around
    "hyperparameters": "buffer_size = 700\nlearning_starts = 100\ntarget_update_interval = 150",
    "steps": 1500, "eval_freq": 150, "checkpoint_freq": 100,
}  # fmt: skip
_PPO = {
    "algo": "ppo", "hyperparameters": "n_steps = 128\nbatch_size = 64\nn_epochs = 4",
    "n_envs": 2, "steps": 2048, "eval_freq": 100, "checkpoint_freq": 100,
}  # fmt: skip
_EVERY = {"checkpoint_freq": 1, "eval_freq": 50}
STUDIES: dict[str, dict[str, Any]] = {
    "cartpole-dqn": {**_CARTPOLE, **_DQN},
    "cartpole-ppo": {**_CARTPOLE, **_PPO, "normalized": "true"},
    "traffic-dqn": {**_TRAFFIC, **_DQN},
    "traffic-ppo": {**_TRAFFIC, **_PPO, "steps": 1024},
    # saved at every step
    "saves-dqn": {**_CARTPOLE, **_DQN, **_EVERY, "steps": 600,
                  "hyperparameters": "buffer_size = 250\nlearning_starts = 50\ntarget_update_interval = 100"},
    "saves-ppo": {**_CARTPOLE, **_PPO, **_EVERY, "steps": 1024},
}  # fmt: skip

TRAINED = ("cartpole-dqn", "cartpole-ppo", "traffic-dqn", "traffic-ppo")
SAVING = ("saves-dqn", "saves-ppo")


def write_studies(folder: Path, device: str) -> dict[str, Path]:
    """The studies as files, for both forms of a session."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in STUDIES.items():
        (folder / f"{name}.toml").write_text(TOML.format(name=name, **{**values, "device": device}))
    return {name: folder / f"{name}.toml" for name in STUDIES}


def warm_up(files: dict[str, Path]) -> None:
    """Import, compile and construct everything once: processes forked from here start in milliseconds.

    On a GPU import alone: what a process has begun with a GPU, those forked from it cannot go on with.
    """
    segments.SEGMENT_BYTES = 4096  # small replay buffers have segments too, shared by checkpoints
    evaluations.SHORT_S = 0.0  # short evaluations are played beside the training, too
    workload = SB3Workload(SystemClock())
    workload.load()
    for path in files.values():
        config = load_study(path).trainings[0]
        if config.device != "cpu":
            continue
        workload.check(config)
        workload.first_step(config)


def die_with_parent() -> None:
    """No process is left behind by a check that is killed itself."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A process forked from this one. It ends with `action`'s exit code; what it prints goes to `log`."""

    def __init__(self, action: Callable[[], int], log: Path) -> None:
        self.began = time.monotonic()
        self.code: int | None = None  # or the negative number of the signal that ended it
        self.pid = os.fork()
        if not self.pid:
            die_with_parent()
            code = 70
            try:
                target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                os.dup2(target, 1)
                os.dup2(target, 2)
                code = action()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        self.descriptor = os.pidfd_open(self.pid)

    def wait(self, until: float | None = None, *descriptors: int) -> bool:
        """Until it ends (True), the time comes, or something can be read from `descriptors`."""
        poll = select.poll()
        for descriptor in (self.descriptor, *descriptors):
            poll.register(descriptor, select.POLLIN)
        left = None if until is None else max(0.0, until - time.monotonic())
        if left is not None and left < 0.002:
            time.sleep(left)  # finer than a poll's milliseconds
            left = 0.0
        found = [d for d, _ in poll.poll(None if left is None else left * 1000)]
        if self.descriptor not in found:
            return False
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self.ended = time.monotonic()
            os.close(self.descriptor)
        return True

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()


class Watch:
    """Tells when a save begins in a folder: the system's own notice of names that appear (inotify)."""

    _CREATE = 0x100

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if libc.inotify_add_watch(self.descriptor, os.fsencode(folder), self._CREATE) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def saves_begun(self) -> int:
        """Since the last call."""
        found = 0
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.descriptor, 1 << 16)
            while data:
                _, _, _, size = struct.unpack_from("iIII", data)
                found += data[16 : 16 + size].startswith(b".step-")
                data = data[16 + size :]
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


class Silent:
    def show(self, progress: object) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


@dataclasses.dataclass
class Job:
    """A training in `folder`, as sessions of one of two forms."""

    folder: Path
    study_file: Path
    command: bool  # the real command line, else the same session in a forked process

    def __post_init__(self) -> None:
        self.study: Study = load_study(self.study_file)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        """The run's folder of checkpoints, made by its first session."""
        return next(iter(self.folder.glob("checkpoints/*")), self.folder / "checkpoints" / "run")

    @property
    def ledger(self) -> Path:
        return self.folder / "reports" / self.checkpoints.name / ledger.FILE

    def start(self, at_point: Callable[[str], None] | None = None) -> Process:
        action = self._exec if self.command else lambda: self._session(at_point)
        return Process(action, self.folder / "log")

    def _exec(self) -> int:
        total = str(self.study.total_timesteps)
        words = ["run", "--study", str(self.study_file), "--timesteps", total, "--dir", str(self.folder)]
        os.execv(sys.executable, [sys.executable, "-m", "arzbench", *words])

    def _session(self, at_point: Callable[[str], None] | None) -> int:
        if at_point is not None:

            def store_of_points(*args: Any, **kwargs: Any) -> CheckpointStore:
                return CheckpointStore(*args, **kwargs, at_point=at_point)

            job.CheckpointStore = store_of_points  # type: ignore[misc,assignment]
        clock = SystemClock()
        request = RunRequest(
            study=self.study,
            budgets=tuple(t.total_timesteps for t in self.study.trainings),
            run_id="run",
            run_folder=self.folder / "reports" / "run",
            checkpoint_folder=self.folder / "checkpoints" / "run",
            session_start=process_start(clock),
        )
        return int(run_job(request, SB3Workload(clock), clock, Silent()).exit_code)

    def look(self) -> "Look":
        """What is on the disk now."""
        return look(self.checkpoints, self.ledger, digest(self.study))

    def result(self) -> dict[str, Any]:
        """All that must not depend on kills: the final state by its groups, the records, the model."""
        newest = CheckpointStore(self.checkpoints, 1, SystemClock()).newest(digest(self.study))
        assert newest is not None
        assert newest.manifest.done
        training = SB3Workload().create(self.study.trainings[0], PhaseTotals(), state=newest.load())
        told = ledger.read(self.ledger)
        with zipfile.ZipFile(next(self.checkpoints.glob("*.zip"))) as model:
            parts = {n: hashlib.sha256(model.read(n)).hexdigest() for n in model.namelist() if ".pth" in n}
        return {
            **training.fingerprint(),
            "evaluation records": [
                [e.data[k] for k in ("evaluation", "num_timesteps", "returns", "lengths")]
                for e in told.of_kind("evaluation")
            ],
            "episode records": [r for e in told.of_kind("episodes") for r in e.data["returns"]],
            "exported model": parts,
        }


@dataclasses.dataclass
class Look:
    """What a job's folders hold at a moment when no process uses them."""

    newest: str | None  # sound state
    completed: str | None  # newest save that the ledger says returned
    unreadable: dict[str, str]
    aside: set[tuple[str, int, int]]  # saves cut off, or removals
    awaiting: bool = False  # the newest was saved beside an evaluation

    @property
    def lost(self) -> bool:
        """The newest sound state is older than the last completed save."""
        return serial(self.newest) < serial(self.completed)

    def within_a_save(self, before: "Look") -> bool:
        """Whether the disk proves that the kill since `before` came during a save."""
        published = self.newest != before.newest and serial(self.newest) > serial(self.completed)
        return published or bool(self.aside - before.aside)


def look(states: Path, told_in: Path, study: str) -> Look:
    """What the folder of checkpoints and the ledger hold, every byte of the newest state read."""
    checkpoints = CheckpointStore(states, 1, SystemClock())
    newest = checkpoints.newest(study)
    if newest is not None:
        newest.load()
    told = ledger.read(told_in).entries if told_in.exists() else []
    aside = {(p.name, (s := p.stat()).st_ino, s.st_mtime_ns) for p in states.glob(".step-*")}
    return Look(
        newest=None if newest is None else newest.path.name,
        completed=max((e.data["name"] for e in told if e.kind == "checkpoint"), key=serial, default=None),
        unreadable=dict(checkpoints.skipped),
        aside=aside,
        awaiting=newest is not None and bool(newest.manifest.awaits),
    )


def serial(name: str | None) -> int:
    return 0 if name is None else int(name.rpartition("-")[2])


def in_child(function: Callable[[], Any], log: Path) -> Any:
    """`function()` in a forked process, through JSON."""
    reader, writer = os.pipe()

    def action() -> int:
        os.close(reader)
        with os.fdopen(writer, "w") as file:
            json.dump(function(), file)
        return 0

    process = Process(action, log)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    process.wait()
    if process.code != 0:
        raise RuntimeError(f"{log}: {log.read_text()[-2000:]}")
    return json.loads(text)
