"""The ledger of a job, written with what every entry needs: session, elapsed time, training, step."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arzbench import store
from arzbench.clock import Clock
from arzbench.predict.remaining import Observed
from arzbench.records import HostInfo, LedgerEntry
from arzbench.run import ledger as ledgers
from arzbench.run.ledger import Ledger
from arzbench.saves.checkpoints import Manifest


class LedgerWriter:
    """Appends to the ledger for one session."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest | None,
        session_start: float,
        clock: Clock,
        sessions: int = 0,
    ) -> None:
        """Open the ledger; time and sessions go on from the later of it and the checkpoint.

        A killed session's time is in the ledger only, a job moved without its ledger has the
        checkpoint only; `sessions` are known to have begun, elsewhere too.
        """
        self._ledger = Ledger(path)
        self._lock = threading.Lock()  # a stall is reported from another thread
        self._clock = clock
        self._session_start = session_start
        entries = self._ledger.entries
        self._before_s = max([e.elapsed_s for e in entries] + [manifest.elapsed_s if manifest else 0.0])
        known = (manifest.sessions if manifest else 0, sessions)
        self.session = 1 + max(*known, *(e.session for e in entries))
        self.rewound_to = min(manifest.ledger if manifest else 0, len(entries))
        self.training = manifest.training if manifest else 0
        self.step = 0
        self._summary = ledgers.summarise(entries, self.rewound_to)
        self.previous_host = _last_host(entries)
        last = entries[-1] if entries else None
        #: the session before met its deadline without having done anything
        self.idle_before = (
            last is not None
            and last.kind == "stop"
            and last.data.get("reason") == "deadline"
            and last.data.get("worked") is False
        )
        #: seconds of the last evaluation episode, by training and kind
        self.episode_s = {
            (e.training, str(e.data.get("evaluation"))): float(e.data["episode_s"])
            for e in entries
            if e.kind == "evaluation" and e.data.get("episode_s") is not None
        }
        #: (seconds, bytes written) of the last saves, oldest first
        self.saves = [
            (float(e.data["seconds"]), int(e.data.get("written", e.data["bytes"])))
            for e in entries
            if e.kind == "checkpoint" and {"seconds", "bytes"} <= e.data.keys()
        ][-3:]

    def observed(self, training: int) -> Observed:
        """Progress of earlier sessions in a training."""
        return self._summary.training_phases(training)

    @property
    def position(self) -> int:
        """Lines written so far."""
        return self._ledger.count

    @property
    def elapsed_s(self) -> float:
        """Seconds of the job up to now, over all its sessions."""
        return self._before_s + self._clock.now() - self._session_start

    def write(self, kind: str, phases: Mapping[str, tuple[float, int]] | None = None, **data: Any) -> None:
        """Append an entry."""
        with self._lock:
            self._ledger.append(
                LedgerEntry(
                    kind=kind,
                    at=self._clock.wall().isoformat(timespec="milliseconds"),
                    session=self.session,
                    elapsed_s=round(self.elapsed_s, 6),
                    training=self.training,
                    step=self.step,
                    phases={p: (round(s, 9), u) for p, (s, u) in (phases or {}).items()},
                    data=data,
                )
            )

    def sync(self) -> None:
        """Make it durable."""
        self._ledger.sync()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._ledger.close()


def _last_host(entries: list[LedgerEntry]) -> HostInfo | None:
    for entry in reversed(entries):
        if entry.kind == "session" and "host" in entry.data:
            host: HostInfo = store.convert(entry.data["host"], HostInfo, "ledger")
            return host
    return None
