"""Values of hyper-parameters that TOML has no type for: schedules, and names of classes and functions."""

from __future__ import annotations

from typing import Any

import msgspec

from arzbench.study import is_reference

#: the hyper-parameters that may change as a training goes on
SCHEDULED = frozenset({"learning_rate", "clip_range", "clip_range_vf", "delta_std"})
_LINEAR = "lin_"  # RL Zoo's short form


class Linear(msgspec.Struct, frozen=True, tag_field="schedule", tag="linear", forbid_unknown_fields=True):
    """From `start` to `end` within the share `end_fraction` of a training; it stays there."""

    start: float
    end: float = 0.0
    end_fraction: float = 1.0


class Constant(msgspec.Struct, frozen=True, tag_field="schedule", tag="constant", forbid_unknown_fields=True):
    """The same `value` all along."""

    value: float


def parse_schedule(value: Any) -> Linear | Constant | None:
    """The schedule that `value` says; None for a number, or a function's name.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, str) and value.startswith(_LINEAR):
        try:
            return Linear(float(value.removeprefix(_LINEAR)))
        except ValueError:
            raise ValueError("expected a number behind lin_") from None
    if isinstance(value, dict):
        schedule: Linear | Constant = msgspec.convert(value, Linear | Constant)
        if isinstance(schedule, Linear) and not 0 < schedule.end_fraction <= 1:
            raise ValueError("end_fraction must be above 0 and at most 1")
        return schedule
    if is_reference(value) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return None
    raise ValueError("expected a number, a schedule or module:attribute")


def value_problems(hyperparameters: dict[str, Any], wrappers: Any) -> list[str]:
    """What is wrong with schedules and names of classes, without importing any."""
    problems = [
        f"wrappers: {wrapper!r}: expected module:Class, or a table with it as class"
        for wrapper in (wrappers if isinstance(wrappers, list) else ())
        if not is_reference(wrapper.get("class") if isinstance(wrapper, dict) else wrapper)
    ]
    for key in sorted(SCHEDULED & hyperparameters.keys()):
        try:
            parse_schedule(hyperparameters[key])
        except ValueError as error:
            problems.append(f"{key} = {hyperparameters[key]!r}: {error}")
    return problems + _bare_names(hyperparameters, "")


def _bare_names(table: dict[str, Any], place: str) -> list[str]:
    """Texts where a class or function is expected that do not say where it is from."""
    problems = []
    for key, value in table.items():
        if isinstance(value, dict):
            problems += _bare_names(value, f"{place}{key}.")
        elif isinstance(value, str) and key.endswith(("_class", "_fn")) and not is_reference(value):
            problems.append(f"{place}{key} = {value!r}: expected module:attribute, as in torch.nn:ReLU")
    return problems
