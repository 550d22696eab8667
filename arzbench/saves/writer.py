"""A process that writes checkpoints: whatever it does costs the training no turn at the interpreter.

It gets a save in memory that both processes see: what to make of it as JSON, then its numbers. An eventfd
tells it of each, and it answers with a line. It dies with the process it works for, and holds a lock until it
has.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from arzbench.clock import SystemClock
from arzbench.errors import StateError
from arzbench.saves.arrays import Array
from arzbench.saves.lock import WRITING
from arzbench.saves.read import Header, Manifest, Part
from arzbench.saves.write import Save, Segment, write, write_again

_READY = b"ready\n"
_PR_SET_PDEATHSIG = 1
_MOST_PIECES = 1024  # the system takes at once
_LENGTH = struct.Struct("<Q")  # of the order, before it
#: name, dtype and shape of arrays, in the order in which their bytes follow one another
_Outlines = list[tuple[str, str, tuple[int, ...]]]


class _Rows(msgspec.Struct):
    start: int
    stop: int
    shared: Part | None
    arrays: _Outlines


class _Order(msgspec.Struct):
    """A `Save` without its bytes, which lie in the common memory: values, arrays, rows."""

    path: str
    begun: bool
    header: Header
    serial: int
    tier: str
    values: int  # bytes
    arrays: _Outlines
    rows: int | None
    ring: list[_Rows]
    remove: list[str]


class _Answer(msgspec.Struct):
    manifest: Manifest | None = None
    written: int = 0
    seconds: float = 0.0
    error: str = ""
    hint: str = ""


class Writer:
    """The side of the training. One save at a time."""

    def __init__(self, folder: Path) -> None:
        """A process for the checkpoints in `folder`, whose run this process holds; it dies with this thread.

        Raises:
            OSError: the system gives none.
        """
        self._ready = False
        self._memory = os.memfd_create("checkpoint")
        self._bell = os.eventfd(0)
        known = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
        shared = (self._memory, self._bell)
        command = [sys.executable, "-P", "-m", __name__, *map(str, shared), str(os.getpid())]
        # a signal for the run, sent to all of its processes, is none for this one
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._process = subprocess.Popen(
                [*command, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=shared,
                env={**os.environ, **known},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self._process.stdout is not None
        self._from = self._process.stdout.fileno()

    @property
    def ready(self) -> bool:
        """It can be given a save."""
        if not self._ready and self.answered:
            self._ready = self._line() == _READY
        return self._ready and self._process.poll() is None

    @property
    def answered(self) -> bool:
        """`result` need not wait."""
        return bool(select.select([self._from], [], [], 0)[0])

    def send(self, save: Save) -> None:
        """Have `save` written; its arrays may change when this returns.

        Raises:
            OSError: there is no memory for it, and nothing was told.
        """
        pieces: list[Any] = [save.values]
        order = _Order(
            path=str(save.path),
            begun=save.begun,
            header=save.header,
            serial=save.serial,
            tier=save.tier,
            values=len(save.values),
            ring=[_Rows(s.start, s.stop, s.shared, _outlines(s.rows, pieces)) for s in save.ring],
            arrays=_outlines(save.arrays, pieces),
            rows=save.rows,
            remove=[str(path) for path in save.remove],
        )
        text = msgspec.json.encode(order)
        _put([_LENGTH.pack(len(text)), text, *pieces], self._memory)
        os.eventfd_write(self._bell, 1)

    def result(self) -> tuple[Manifest, int, float]:
        """What came of the save: its manifest, the bytes written, and the seconds that it took.

        If the process was killed, for want of memory, say, the save is written here.

        Raises:
            StateError: it could not be written.
        """
        line = self._line()
        answer = msgspec.json.decode(line, type=_Answer) if line else self._instead()
        if answer.manifest is None:
            raise StateError(answer.error, answer.hint)
        return answer.manifest, answer.written, answer.seconds

    def _instead(self) -> _Answer:
        self._process.wait()
        return _perform(self._memory, write_again)

    def _line(self) -> bytes:
        """The next line it says; nothing if it has ended."""
        said = b""
        while not said.endswith(b"\n"):
            piece = os.read(self._from, 1 << 16)
            if not piece:
                return b""
            said += piece
        return said

    def close(self) -> None:
        """End it; nothing may be under way."""
        self._process.kill()
        self._process.communicate()
        os.close(self._memory)
        os.close(self._bell)


def _outlines(arrays: Mapping[str, Array], pieces: list[Any]) -> _Outlines:
    """Those of `arrays`, whose bytes are added to `pieces`."""
    pieces += [a if a.flags.c_contiguous else np.ascontiguousarray(a) for a in arrays.values() if a.nbytes]
    return [(name, array.dtype.str, array.shape) for name, array in arrays.items()]


def _put(pieces: Sequence[Any], memory: int) -> None:
    """Write all `pieces` to the beginning of `memory`."""
    at = 0
    for first in range(0, len(pieces), _MOST_PIECES):
        some = pieces[first : first + _MOST_PIECES]
        written = os.pwritev(memory, some, at)
        if written != sum(memoryview(piece).nbytes for piece in some):
            raise OSError(errno.ENOSPC, "too little memory")
        at += written


class _Memory:
    """Takes what was put there, in the same order."""

    def __init__(self, descriptor: int) -> None:
        self._bytes = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        self._at = 0

    def order(self) -> _Order:
        (size,) = _LENGTH.unpack(self.values(_LENGTH.size))
        return msgspec.json.decode(self.values(size), type=_Order)

    def values(self, size: int) -> bytes:
        self._at += size
        return self._bytes[self._at - size : self._at]

    def arrays(self, outlines: _Outlines) -> dict[str, Array]:
        found = {}
        for name, dtype, shape in outlines:
            count = int(np.prod(shape, dtype=np.int64))
            flat: Array = np.frombuffer(self._bytes, dtype, count, self._at) if count else np.empty(0, dtype)
            found[name] = flat.reshape(shape)
            self._at += flat.nbytes
        return found


def _perform(descriptor: int, done: Callable[[Save], tuple[Manifest, int]]) -> _Answer:
    clock = SystemClock()
    began = clock.ticks()
    try:
        memory = _Memory(descriptor)
        order = memory.order()
        save = Save(
            path=Path(order.path),
            begun=order.begun,
            header=order.header,
            serial=order.serial,
            tier=order.tier,
            values=memory.values(order.values),
            ring=[Segment(s.start, s.stop, s.shared, memory.arrays(s.arrays)) for s in order.ring],
            arrays=memory.arrays(order.arrays),
            rows=order.rows,
            remove=[Path(path) for path in order.remove],
        )
        manifest, written = done(save)
    except StateError as error:
        return _Answer(error=error.message, hint=error.hint)
    except Exception as error:  # told where it is waited for, as any
        return _Answer(error=f"cannot write a checkpoint: {type(error).__name__}: {error}")
    return _Answer(manifest=manifest, written=written, seconds=clock.ticks() - began)


def _serve(descriptor: int, bell: int, parent: int, folder: Path) -> None:
    """Until it is killed, by who it works for or because that one died."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    lock = os.open(folder / WRITING, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    out = sys.stdout.buffer
    out.write(_READY)
    out.flush()
    while True:
        os.eventfd_read(bell)
        out.write(msgspec.json.encode(_perform(descriptor, write)) + b"\n")
        out.flush()


def main(words: Sequence[str]) -> None:
    """`descriptor of the memory, of the eventfd, process worked for, folder of the checkpoints`."""
    descriptor, bell, parent, folder = words
    _serve(int(descriptor), int(bell), int(parent), Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
