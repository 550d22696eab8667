"""`arzbench watch -- command ...`: passes a command's output on untouched, and says on stderr how it goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import sys
import termios
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arzbench.clock import Clock, SystemClock
from arzbench.errors import UsageError

if TYPE_CHECKING:  # the command starts before anything heavy is loaded
    from arzbench.logs.follow import LiveLog

#: signals that are passed on
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
#: a fast command's output is passed on in pieces this far apart [s]
PAUSE_S = 0.004
#: how often it says how it goes [s]
EVERY_S = 10.0
#: the analysis looks at the output this often [s]
LOOK_S = 0.2
_PIPE_BYTES = 1 << 20
_Piece = tuple[float, int, bytes]  # when, on which stream, what
_FROM_KERNEL = 128  # si_code: a terminal's Ctrl-C, which the command gets by itself


def start_at_once(command: Sequence[str]) -> None:
    """Run `command` with the usual options and end; return only where it cannot be started."""
    observer = Observer(SystemClock(), EVERY_S, None, None)
    try:
        code = run_watched(command, observer)
    except UsageError:
        return  # the command line reports it
    observer.finish(" ".join(command), None)
    sys.stderr.flush()
    os._exit(code)


def run_watched(command: Sequence[str], observer: Observer) -> int:
    """Run `command`, pass on what it prints and the signals sent here; its exit code."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    ends = [_channel(descriptor) for descriptor in (1, 2)]
    actions = [(os.POSIX_SPAWN_DUP2, inner, target) for (_, inner), target in zip(ends, (1, 2), strict=True)]
    try:
        pid = os.posix_spawnp(
            command[0],
            list(command),
            os.environ,
            file_actions=actions,
            setsigmask=before,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
        )
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise UsageError(f"cannot start {command[0]!r}: {error.strerror}") from error
    for _, inner in ends:
        os.close(inner)
    threading.Thread(target=_forward, args=(pid,), daemon=True).start()
    observer.start()
    _pass_on({outer: target for (outer, _), target in zip(ends, (1, 2), strict=True)}, pid, observer)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _channel(descriptor: int) -> tuple[int, int]:
    """(our end, the command's end): a terminal where ours is one, so that nothing changes for it."""
    if not os.isatty(descriptor):
        outer, inner = os.pipe()
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(outer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return outer, inner
    outer, inner = os.openpty()
    settings = termios.tcgetattr(descriptor)
    settings[1] &= ~termios.OPOST  # our own terminal turns line ends into what it needs
    termios.tcsetattr(inner, termios.TCSANOW, settings)
    size = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(inner, termios.TIOCSWINSZ, size)
    return outer, inner


def _forward(pid: int) -> None:
    while True:
        info = signal.sigwaitinfo(FORWARDED)
        if info.si_code != _FROM_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, info.si_signo)


def _pass_on(channels: dict[int, int], pid: int, observer: Observer) -> None:
    """Copy until the command has ended and what it printed is read."""
    ended = os.pidfd_open(pid)
    with selectors.DefaultSelector() as selector:
        for outer in (*channels, ended):
            selector.register(outer, selectors.EVENT_READ)
        done = False
        while channels and not (done and not selector.select(0)):
            ready = [key.fd for key, _ in selector.select()]
            if ended in ready:
                selector.unregister(ended)
                done = True
            for outer in [fd for fd in ready if fd in channels]:
                if not _copy(outer, channels[outer], observer):
                    selector.unregister(outer)
                    os.close(outer)  # the command learns that nobody reads
                    del channels[outer]
            if not done:
                observer.clock.sleep(PAUSE_S)
    os.close(ended)


def _copy(outer: int, target: int, observer: Observer) -> bool:
    """Pass one piece on; whether there may be more."""
    try:
        data = os.read(outer, _PIPE_BYTES)
    except OSError:  # how a terminal says that its other end is closed
        return False
    observer.take(data, target)
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BrokenPipeError:
            return False
    return bool(data)


class Observer:
    """Looks at copies of the output in a thread of its own; speaks on stderr alone."""

    def __init__(self, clock: Clock, every_s: float, quota_s: float | None, total_steps: int | None) -> None:
        self.clock = clock
        self._every_s = every_s
        self._options = (quota_s, total_steps)
        self._pieces: deque[_Piece] = deque()
        self._began = clock.now()
        self._ended = threading.Event()
        self._live: LiveLog | None = None
        self._thread = threading.Thread(target=self._observe, daemon=True)

    def start(self) -> None:
        """The command runs."""
        self._began = self.clock.now()
        self._thread.start()

    def take(self, data: bytes, stream: int) -> None:
        """It printed `data` on `stream`."""
        self._pieces.append((self.clock.now() - self._began, stream, data))

    def _observe(self) -> None:
        from arzbench.logs.findings import LogContext
        from arzbench.logs.follow import LiveLog

        quota_s, total = self._options
        context = LogContext(quota_s=quota_s, total_steps=total)
        self._live = live = LiveLog(context)
        reported = 0.0
        while True:
            last = self._ended.wait(LOOK_S)
            # one by one: a list that is exchanged may still be appended to by who looked it up before
            pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
            for stream in (1, 2):  # what came within one look is one piece
                if own := [data for _, of, data in pieces if of == stream]:
                    live.feed(b"".join(own), pieces[-1][0], stream)
            now = self.clock.now() - self._began
            if now - reported >= self._every_s and not last:
                reported = now
                _say(live.status(now))
            if last and not self._pieces:
                return

    def finish(self, name: str, summary: Path | None) -> None:
        """The command has ended: print what was found and write it to `summary`."""
        from arzbench import store
        from arzbench.logs.findings import LogReports

        self._ended.set()
        self._thread.join()
        assert self._live is not None
        self._live.finish()
        report = self._live.report(name)
        for line in summary_lines(self._live, report.end.text, self.clock.now() - self._began):
            _say(line)
        if summary is not None:
            store.save(summary, "arzbench/logs", LogReports(logs=(report,)))


def summary_lines(live: LiveLog, end: str, seconds: float) -> list[str]:
    """The end of a watched command in a few lines."""
    from arzbench.units import format_bytes, format_duration

    scanner = live.analysis.scanner
    rate = scanner.lines / max(seconds, 1e-9)
    lines = [
        f"took {format_duration(seconds)}; {scanner.lines:,} lines, "
        f"{format_bytes(live.bytes)}, {rate:,.0f} lines/s"
    ]
    loud = sorted(scanner.tags.items(), key=lambda item: -item[1].lines)[:3]
    if scanner.lines:
        lines.append("most lines: " + ", ".join(f"{n} {t.lines / scanner.lines:.0%}" for n, t in loud))
    pace = live.analysis.pace()
    if pace is not None:
        lines.append(f"step {pace[0]:,}, {pace[1]:.3g} s each")
    if live.analysis.timeline.error is not None:
        lines.append(f"end: {end}")
    return lines


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(f"arzbench: {line}", file=sys.stderr, flush=True)
