"""A team of threads: every part is done once, together, and on processors of their own."""

import os
import threading

import pytest

from arzbench.traffic.physics.threads import Team, team


def test_each_part_has_a_thread_and_the_caller_does_the_first() -> None:
    together = threading.Barrier(3, timeout=60)  # passed only if all three are there at once
    found: dict[int, int] = {}

    def work(part: int) -> None:
        together.wait()
        found[part] = threading.get_ident()

    Team(3).run(work, [(0,), (1,), (2,)])
    assert found[0] == threading.get_ident()
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_is_raised_when_all_parts_are_done(bad: int) -> None:
    done: list[int] = []

    def work(part: int) -> None:
        if part == bad:
            raise ValueError(f"part {part}")
        done.append(part)

    with pytest.raises(ValueError, match=f"part {bad}"):
        Team(2).run(work, [(0,), (1,)])
    assert done == [1 - bad]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system places threads by itself")
def test_the_others_are_kept_off_the_callers_processor() -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one processor")
    here = min(allowed)
    seen: list[set[int]] = []
    some = Team(2)
    try:
        os.sched_setaffinity(0, {here})  # of this thread alone: it stays where it is
        some.run(seen.append, [(set(),), (set(),)])  # the other thread is there from now on
        os.sched_setaffinity(0, allowed)
        seen.clear()
        some.run(lambda: seen.append(os.sched_getaffinity(0)), [(), ()])
    finally:
        os.sched_setaffinity(0, allowed)
    assert sorted(map(len, seen)) == [len(allowed) - 1, len(allowed)]


def test_a_process_has_one_team_of_a_size() -> None:
    assert team(2) is team(2)
    assert team(2) is not team(3)


def test_shared_parts_are_each_done_once_by_whoever_is_free() -> None:
    done: list[tuple[int, int]] = []
    both = threading.Barrier(2, timeout=60)  # passed only if another thread has come to help

    def work(part: int) -> None:
        if part < 2:
            both.wait()
        done.append((part, threading.get_ident()))

    Team(2).share(work, [(part,) for part in range(20)])
    assert sorted(part for part, _ in done) == list(range(20))
    assert len({thread for _, thread in done}) == 2


def test_a_thread_that_is_kept_away_is_not_waited_for() -> None:
    some, free = Team(2), threading.Event()
    away = some._pool.submit(free.wait, 60)  # the only other thread
    done: list[int] = []
    try:
        for _ in range(3):
            some.share(done.append, [(1,), (2,), (3,)])
            assert not away.done()
    finally:
        free.set()
    assert done == [1, 2, 3] * 3
    some.share(done.append, [(4,), (5,)])
    assert sorted(done[9:]) == [4, 5]


@pytest.mark.parametrize("bad", range(4))
def test_an_error_in_a_shared_part_is_raised_when_no_one_works(bad: int) -> None:
    working: list[int] = []

    def work(part: int) -> None:
        working.append(part)
        try:
            if part == bad:
                raise ValueError(f"part {part}")
        finally:
            working.remove(part)

    with pytest.raises(ValueError, match=f"part {bad}"):
        Team(3).share(work, [(part,) for part in range(4)])
    assert not working
