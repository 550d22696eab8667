"""ledger.jsonl: what happened and the time it took, one line an entry, appended and never edited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arzbench import store
from arzbench.facts import Phase
from arzbench.records import LedgerEntry

FILE = "ledger.jsonl"
#: kinds of entries that stand whatever state a later session went on from
FACTS = ("session", "checkpoint", "stop", "stall", "env_error", "note", "computed")
#: kinds of entries that say to which line the ledger was rewound
REWINDING = ("session", "env_error")


@dataclass(slots=True)
class TimeSpent:
    """Seconds and units of a phase over all sessions; `lost_seconds` were done again later."""

    seconds: float = 0.0
    units: int = 0
    lost_seconds: float = 0.0

    @property
    def mean_s(self) -> float:
        """Seconds per unit, lost ones included: they too tell what a unit costs."""
        return self.seconds / self.units if self.units else 0.0


@dataclass(slots=True)
class Summary:
    """What a ledger tells of a run. `kept` entries are those no resume went back behind."""

    entries: list[LedgerEntry] = field(default_factory=list)
    kept: list[LedgerEntry] = field(default_factory=list)
    phases: dict[Phase, TimeSpent] = field(default_factory=dict)
    _by_training: dict[int, list[LedgerEntry]] | None = None

    def of_kind(self, kind: str, training: int | None = None) -> list[LedgerEntry]:
        """The kept entries of a kind, of one training or of all."""
        return [e for e in self.kept if e.kind == kind and training in (None, e.training)]

    @property
    def sessions(self) -> list[LedgerEntry]:
        """The entry that began each session, resumes gone back behind included."""
        return [e for e in self.entries if e.kind == "session"]

    @property
    def stop(self) -> LedgerEntry | None:
        """The end of the last session; None while it runs, or after it was killed."""
        last = self.entries[-1] if self.entries else None
        return last if last is not None and last.kind == "stop" else None

    @property
    def elapsed_s(self) -> float:
        """Seconds of the job, over all its sessions and lost work included."""
        return max((e.elapsed_s for e in self.entries), default=0.0)

    @property
    def lost_s(self) -> float:
        """Seconds spent on work that was done again."""
        return sum(p.lost_seconds for p in self.phases.values())

    def training_phases(self, training: int) -> dict[Phase, tuple[float, int]]:
        """(seconds, units) of the progress of one training."""
        if self._by_training is None:  # once: a run may have 1,000 trainings
            self._by_training = {}
            for entry in self.kept:
                self._by_training.setdefault(entry.training, []).append(entry)
        kept = self._by_training.get(training, [])
        return {p: (t.seconds, t.units) for p, t in _add_up((e, False) for e in kept).items()}


def read(path: Path) -> Summary:
    """The summary of the ledger at `path`; a last line cut off by a kill is passed over.

    Raises:
        UsageError: no such file, or a broken line that is not the last.
    """
    return summarise(list(store.read_lines(path, LedgerEntry)))


def summarise(entries: Sequence[LedgerEntry], rewound_to: int | None = None) -> Summary:
    """The summary of `entries`, in the order they were written.

    `rewound_to` is the line that a session which has not written its first entry goes back to.
    """
    lost = _lost(entries, rewound_to)
    return Summary(
        entries=list(entries),
        kept=[e for e, gone in zip(entries, lost, strict=True) if not gone],
        phases=_add_up(zip(entries, lost, strict=True)),
    )


def _lost(entries: Sequence[LedgerEntry], rewound_to: int | None) -> list[bool]:
    """Which entries tell of work that a later resume did again.

    What went on from an older state says to which line the ledger was rewound.
    """
    rewinds = {i: e.data.get("rewound_to") for i, e in enumerate(entries) if e.kind in REWINDING}
    rewinds[len(entries)] = rewound_to
    lost, first = [False] * len(entries), len(entries)
    for i in reversed(range(len(entries))):
        back_to = rewinds.get(i + 1)
        if isinstance(back_to, int):
            first = min(first, back_to)  # the earliest line that any later one went back to
        lost[i] = i >= first and entries[i].kind not in FACTS
    return lost


def _add_up(entries: Iterable[tuple[LedgerEntry, bool]]) -> dict[Phase, TimeSpent]:
    totals: dict[str, TimeSpent] = {}
    for entry, gone in entries:
        for name, (seconds, units) in entry.phases.items():
            total = totals.get(name) or totals.setdefault(name, TimeSpent())
            total.seconds += seconds
            total.units += units
            if gone:
                total.lost_seconds += seconds
    return {Phase(name): total for name, total in totals.items()}


class Ledger:
    """The open ledger of a run; for the one run that holds its folder."""

    def __init__(self, path: Path) -> None:
        """Read `path` where it is; a last line that a kill left unfinished goes at the next append.

        Raises:
            UsageError: a broken line that is not the last.
        """
        self.path = path
        self._lines = store.Lines(path)
        self.entries = list(store.read_lines(path, LedgerEntry)) if path.exists() else []
        self.count = len(self.entries)

    def append(self, entry: LedgerEntry) -> None:
        """Write `entry` as one line."""
        self._lines.append(entry)
        self.count += 1

    def sync(self) -> None:
        """Make all lines durable."""
        self._lines.sync()

    def close(self) -> None:
        """Nothing more happens."""
        self._lines.close()
