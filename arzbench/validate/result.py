"""The raw figures of a validation: what was planned, measured and predicted; nothing derived."""

from __future__ import annotations

from arzbench.facts import Record
from arzbench.records import HostInfo


class Pair(Record, frozen=True, kw_only=True):
    """An env and an algorithm with settings as `--set` takes them."""

    name: str
    env: str
    algo: str
    settings: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """As `arzbench calibrate` takes them."""
        return ["--env", self.env, "--algo", self.algo, *(f"--set={s}" for s in self.settings)]


class Design(Record, frozen=True, kw_only=True):
    """What a validation set out to do. Times in seconds."""

    pairs: tuple[Pair, ...]
    alone: int  # runs of each pair with the machine to itself
    beside: int  # runs of each pair beside a busy process
    target_s: float  # length of a run, before the factor of its pair
    calibrate_s: float | None  # --max-time of each calibration; None: the command's own
    planned_s: float | None  # how long all of it may take; None: as long as it takes
    seed: int

    def cells(self) -> list[tuple[Pair, bool]]:
        """(pair, beside) for every combination that runs, pairs interleaved."""
        kinds = [beside for beside, runs in ((False, self.alone), (True, self.beside)) if runs]
        return [(pair, beside) for pair in self.pairs for beside in kinds]

    def under_quota(self, pair: Pair, beside: bool, repetition: int) -> bool:
        """One run of each pair is held to a quota: the last of those alone, of every second pair beside."""
        runs = self.beside if beside else self.alone
        both = bool(self.alone and self.beside)
        chosen = not both or beside == bool(self.pairs.index(pair) % 2)
        return chosen and runs > 1 and repetition == runs - 1

    def rounds(self) -> list[list[tuple[Pair, bool, int]]]:
        """(pair, beside, repetition) in the order they run: A B C ... A B C."""
        most = max(self.alone, self.beside)
        return [
            [(p, b, number) for p, b in self.cells() if number < (self.beside if b else self.alone)]
            for number in range(most)
        ]


class Cell(Record, frozen=True, kw_only=True, tag_field="kind", tag="calibrated"):
    """The calibration of a pair, alone or beside a busy process."""

    pair: str
    beside: bool
    at: str
    calibration_id: str
    calibration_s: float  # of the command, seen from outside
    drift: float
    timesteps: int  # of the training that was sized by it
    evaluations: int
    checkpoints: int
    first_100_s: float  # wall time of the library's own learn(100)
    own_fps: float  # the last `time/fps` that the library logged in a trial of `trial_steps`
    trial_steps: int


class Mark(Record, frozen=True, kw_only=True):
    """What the run said of its own end while it went on."""

    share: float  # of the training steps: the mark passed
    done: float  # of the training steps: where it was
    elapsed_s: float
    learning_s: float  # since the training began to learn: what the library's own speed is made of
    left_p50_s: float
    left_p90_s: float
    left_p99_s: float


class Outcome(Record, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """One run: what was predicted before it, and what happened."""

    pair: str
    beside: bool
    repetition: int
    at: str
    quantiles: dict[str, float]  # probability, as text -> predicted seconds
    spread: str  # where the interval's width between runs is from
    log_sigma: float
    log_centre: float = 0.0  # what the record of earlier runs moved the quantiles by
    quota_s: float | None
    wall_s: float  # of the process, seen from outside
    exit_code: int
    finished: bool  # it reached its budget
    timesteps: int  # trained
    marks: tuple[Mark, ...]
    predicted_phases: dict[str, float]  # seconds
    actual_phases: dict[str, float]


class Validation(Record, frozen=True, kw_only=True):
    """All of it: raw.json."""

    id: str
    created: str
    host: HostInfo
    versions: dict[str, str]
    load: float  # mean number of busy processes in the minute before it began
    took_s: float
    design: Design
    cells: tuple[Cell, ...]
    runs: tuple[Outcome, ...]
