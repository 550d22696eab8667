"""One message that names the value, the valid ones and the fix; an exit code that tells the shell."""

import pytest

from arzbench.errors import (
    ArzbenchError,
    ExitCode,
    StateError,
    UsageError,
    WillNotFitError,
    unknown,
)


def test_the_nearest_valid_value_is_named_first_and_all_of_them_after() -> None:
    error = unknown("algorithm", "pp0", ["sac", "ppo", "dqn"])
    assert error.message == "unknown algorithm 'pp0'"
    assert error.hint.splitlines() == ["did you mean 'ppo'?", "valid: dqn, ppo, sac"]


def test_nothing_near_suggests_nothing() -> None:
    error = unknown("platform", "zzz", ["local", "kaggle-p100"])
    assert error.hint == "valid: kaggle-p100, local"


def test_without_any_valid_value_it_says_so() -> None:
    assert unknown("study", "x", []).hint == "valid: none found"


def test_a_further_hint_comes_last() -> None:
    error = unknown("study", "incidnt", ["incident"], "or the path of a .toml file")
    assert error.hint.splitlines()[-1] == "or the path of a .toml file"


@pytest.mark.parametrize(
    ("kind", "code"), [(ArzbenchError, 1), (StateError, 1), (UsageError, 2), (WillNotFitError, 3)]
)
def test_exit_codes(kind: type[ArzbenchError], code: int) -> None:
    error = kind("what", "do this")
    assert error.exit_code == code
    assert str(error) == "what"
    assert error.hint == "do this"


def test_more_to_do_is_not_an_error_and_not_a_success() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5]
    assert ExitCode.MORE_TO_DO == 4
