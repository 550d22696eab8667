"""The caller's thread and some beside it, each doing a part of one piece of work at the same time."""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any


class Team:
    """`size` threads, the caller's among them. The others are kept off the processor the caller is on.

    A virtual machine's scheduler often takes a processor that sleeps for one that is taken away, and wakes a
    thread beside the one that woke it: then two share a processor for milliseconds while another has
    nothing to do.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._others: list[int] = []  # their native ids; threads start as they are needed
        self._pool = ThreadPoolExecutor(
            max(1, size - 1), "arz", lambda: self._others.append(threading.get_native_id())
        )
        self._placed: tuple[int, int] | None = None  # the caller's processor, and how many were kept off it

    def run(self, work: Callable[..., Any], parts: Sequence[Sequence[Any]]) -> None:
        """Call `work` with the arguments of each part, one in each thread.

        Returns when all are done; what one of them raises is raised then.
        """
        first, *others = parts
        self._keep_off()
        jobs = [self._pool.submit(work, *part) for part in others]
        try:
            work(*first)
        finally:
            wait(jobs)
        for job in jobs:
            job.result()

    def share(self, work: Callable[..., Any], parts: Sequence[Sequence[Any]]) -> None:
        """Call `work` with the arguments of each part; whichever thread is free takes the next.

        The caller waits for a part that another thread is at, never for a thread that has yet to wake: on a
        machine that others use too, it does all parts in the time it would take alone.
        Returns when all are done; what one of them raises is raised then.
        """
        left = deque(parts)

        def take() -> None:
            while left:
                try:
                    part = left.popleft()
                except IndexError:  # another was faster
                    return
                work(*part)

        self._keep_off()
        jobs = [self._pool.submit(take) for _ in range(min(self._size, len(parts)) - 1)]
        try:
            take()
        finally:
            begun = [job for job in jobs if not job.cancel()]
            wait(begun)
        for job in begun:
            job.result()

    def _keep_off(self) -> None:
        here = _processor()
        if here is None or self._placed == (here, len(self._others)):
            return
        self._placed = here, len(self._others)
        elsewhere = os.sched_getaffinity(0) - {here}
        for thread in self._others[: self._placed[1]] if elsewhere else ():
            os.sched_setaffinity(thread, elsewhere)


def team(size: int) -> Team:
    """The team of this process: the threads of a parent do not survive a fork."""
    return _team(size, os.getpid())


@lru_cache(maxsize=4)
def _team(size: int, pid: int) -> Team:
    return Team(size)


def _processor() -> int | None:
    """The number of the processor that this thread is on; None where the system does not tell."""
    if _getcpu is None or not hasattr(os, "sched_setaffinity"):
        return None
    found = int(_getcpu())
    return found if found >= 0 else None


_getcpu = getattr(ctypes.CDLL(None), "sched_getcpu", None)
