"""Errors a user can act on: what is wrong, what would be right, and the exit code."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NoReturn


class ExitCode(IntEnum):
    """The exit codes of `arzbench` (docs/reference/exit-codes.md)."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    WILL_NOT_FIT = 3
    MORE_TO_DO = 4
    SESSIONS_USED = 5


class ArzbenchError(Exception):
    """One problem, stated for a person: `message` says what is wrong, `hint` what to do.

    `trace` is where in the user's own code it arose, if another process found that out.
    """

    exit_code = ExitCode.FAILURE

    def __init__(self, message: str, hint: str = "", trace: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.trace = trace
        if hint:
            self.add_note(f"hint: {hint}")  # where a script of the user's shows it, below its traceback

    def reword(self, change: Callable[[str], str]) -> None:
        """Let `change` turn each of its texts into another."""
        self.message, self.hint = change(self.message), change(self.hint)
        self.args = (self.message,)
        self.__notes__ = [change(note) for note in getattr(self, "__notes__", ())]


class UsageError(ArzbenchError):
    """The request cannot be carried out: a wrong value, a missing or unreadable file."""

    exit_code = ExitCode.USAGE


class WillNotFitError(ArzbenchError):
    """The training cannot fit the quota it was given."""

    exit_code = ExitCode.WILL_NOT_FIT


class DivergedError(ArzbenchError):
    """A training's loss, weights, observations or rewards are no longer finite numbers."""


class SessionsUsedError(ArzbenchError):
    """A run has had as many sessions as it may."""

    exit_code = ExitCode.SESSIONS_USED


class StateError(ArzbenchError):
    """A saved state is unreadable, incomplete, or belongs to something else."""


def unknown(what: str, value: str, valid: Iterable[str], hint: str = "") -> UsageError:
    """Return a `UsageError` that names the value, the nearest valid one and all valid ones."""
    choices = sorted(valid)
    near = difflib.get_close_matches(value, choices, n=1, cutoff=0.6)
    hints = [f"did you mean {near[0]!r}?"] if near else []
    hints.append("valid: " + (", ".join(choices) if choices else "none found"))
    if hint:
        hints.append(hint)
    return UsageError(f"unknown {what} {value!r}", "\n".join(hints))


def tell(message: str, hint: str, trace: str = "") -> None:
    """Print one error, its hint on lines of its own, and `trace`; never wrapped, so that it can be found."""
    print(f"error: {message}", file=sys.stderr)
    for number, line in enumerate(hint.splitlines()):
        print(f"{'hint:' if number == 0 else '     '} {line}", file=sys.stderr)
    if trace:
        print(f"in your code:\n{trace}", file=sys.stderr)


def leave(code: int) -> NoReturn:
    """Flush and exit at once: tearing down torch takes a second that a deadline may not have."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
