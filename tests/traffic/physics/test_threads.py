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
