"""Work in a process that is forked from this one: it finds everything as it is at that moment, beside us."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from arzbench.run.signals import HONOURED

#: whether it can be done here: elsewhere libraries of the system do not survive a fork
POSSIBLE = sys.platform == "linux"
#: they are meant for the parent, also where they reach all of its group
_FOR_PARENT = (*HONOURED, signal.SIGALRM)
_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


class Forked:
    """`work()` in a forked process; its result comes back through a pipe.

    The process holds no file of this one but the standard ones, so it keeps no lock and writes to no file; it
    takes no signal that is meant for this one, and it ends when this one does, however that ends.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        """`work` returns what can be pickled. Threads of this process are not there when it runs.

        Raises:
            OSError: no process can be made, for want of memory for instance.
        """
        self.pid = 0
        self.how = ""  # how it ended without a result
        self._received = bytearray()
        self._code: int | None = None
        self._reader, writer = os.pipe()
        parent = os.getpid()
        try:
            with _signals_held_back() as mask:
                self.pid = os.fork()
                if not self.pid:
                    _work_and_exit(work, writer, parent, mask)
        except OSError:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(self._reader, False)

    def ended(self) -> bool:
        """Whether it has ended; takes what it has sent so far. Costs about a microsecond."""
        while self._code is None:
            try:
                piece = os.read(self._reader, 1 << 20)
            except BlockingIOError:
                return False
            self._received += piece
            if not piece:
                self._leave()
        return True

    def wait(self, seconds: float) -> None:
        """Until it has sent something, at most so long."""
        if self._code is None:
            poll = select.poll()
            poll.register(self._reader, select.POLLIN)
            poll.poll(1000 * seconds)

    def result(self) -> Any:
        """What `work` returned; None if it did not get that far. It must have ended."""
        if self._code:
            signalled = self._code < 0
            self.how = f"killed by signal {-self._code}" if signalled else "it raised an error"
            return None
        return pickle.loads(self._received)  # our own process wrote it

    def kill(self) -> None:
        """End it; what it did is lost."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self._leave()

    def _leave(self) -> None:
        os.close(self._reader)
        self._code = 1
        with contextlib.suppress(ChildProcessError):  # someone else has waited for it
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextlib.contextmanager
def _signals_held_back() -> Iterator[set[signal.Signals]]:
    """Around a fork: its child must not run the handlers of its parent. Gives the mask before."""
    mask: Any = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_PARENT)
    try:
        with warnings.catch_warnings():
            # of a process with threads: ours hold no lock that the child takes
            warnings.simplefilter("ignore", DeprecationWarning)
            yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work_and_exit(work: Callable[[], Any], writer: int, parent: int, mask: set[signal.Signals]) -> NoReturn:
    """All that the forked process does. An error ends it: its parent does the work again, and meets it."""
    code = 1
    try:
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(code)
        for number in _FOR_PARENT:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _let_go_of_files(writer)
        gc.freeze()  # what was garbage then is the parent's: its files are not ours to close
        sent = memoryview(pickle.dumps(work(), pickle.HIGHEST_PROTOCOL))
        while sent:
            sent = sent[os.write(writer, sent) :]
        code = 0
    finally:
        os._exit(code)  # no handlers at exit, no buffers written: they are the parent's


def _let_go_of_files(writer: int) -> None:
    """Close what was inherited; what is printed goes where it always went, by way of new buffers."""
    for name in os.listdir("/proc/self/fd"):
        if (descriptor := int(name)) > 2 and descriptor != writer:
            with contextlib.suppress(OSError):  # the listing itself
                os.close(descriptor)
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        with contextlib.suppress(OSError):  # it was closed before
            setattr(sys, stream, os.fdopen(descriptor, "w", 1, errors="replace", closefd=False))
