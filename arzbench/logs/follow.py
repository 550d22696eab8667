"""`arzbench logs --follow`: reads a file that still grows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TextIO

from arzbench.clock import Clock
from arzbench.errors import UsageError
from arzbench.logs.findings import LogReport, Options
from arzbench.logs.live import Live
from arzbench.logs.source import BLOCK, PACKED

#: seconds between looks at the file, and between lines said
LOOK_S = 0.5
SAY_S = 10.0


def follow(
    name: str, options: Options, clock: Clock, out: TextIO, stop: Callable[[], bool] = lambda: False
) -> LogReport:
    """Read `name` as it grows and say every 10 s on `out` how it goes, until Ctrl-C (or `stop`).

    A file that shrinks was begun anew: it is read from its start.

    Raises:
        UsageError: it cannot be opened, or is compressed.
    """
    live = Live(options, arrival=False)
    began = clock.now()
    said, at = began, 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            at += _read_on(name, at, live, clock.now() - began)
            if clock.now() - said >= SAY_S:
                said = clock.now()
                print(f"arzbench: {live.line(said - began)}", file=out, flush=True)
            if stop():
                break
            clock.sleep(LOOK_S)
    live.finish()
    return live.report(name)


def _read_on(name: str, at: int, live: Live, now: float) -> int:
    """Take what came after byte `at`; how much it was (negative where the file was begun anew)."""
    taken = 0
    try:
        with open(name, "rb") as file:
            if os.fstat(file.fileno()).st_size < at:
                at, taken = 0, -at
            file.seek(at)
            while data := file.read(BLOCK):
                if at == 0 and data.startswith(PACKED):
                    raise UsageError(f"{name} is compressed: it cannot be followed", "leave --follow out")
                live.feed(data, now)
                at += len(data)
                taken += len(data)
    except OSError as error:
        raise UsageError(
            f"cannot read the log {name}: {error.strerror}", "name a log file that another program writes"
        ) from error
    return taken
