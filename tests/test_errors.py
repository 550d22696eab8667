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


@pytest.mark.parametrize(
    ("value", "valid", "further", "hints"),
    [
        ("pp0", ["sac", "ppo", "dqn"], "", ["did you mean 'ppo'?", "valid: dqn, ppo, sac"]),
        ("zzz", ["local", "kaggle-p100"], "", ["valid: kaggle-p100, local"]),
        ("x", [], "or a file", ["valid: none found", "or a file"]),
    ],
)
def test_an_unknown_value_has_the_nearest_and_all_valid_ones_for_a_hint(
    value: str, valid: list[str], further: str, hints: list[str]
) -> None:
    error = unknown("algorithm", value, valid, further)
    assert error.message == f"unknown algorithm {value!r}"
    assert error.hint.splitlines() == hints


@pytest.mark.parametrize(
    ("kind", "code"), [(ArzbenchError, 1), (StateError, 1), (UsageError, 2), (WillNotFitError, 3)]
)
def test_exit_codes(kind: type[ArzbenchError], code: int) -> None:
    error = kind("what", "do this")
    assert error.exit_code == code
    assert str(error) == "what"
    assert error.hint == "do this"


def test_exit_codes_are_those_documented() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5]
