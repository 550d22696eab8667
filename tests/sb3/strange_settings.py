"""A module whose state the strange envs use and change."""

LEVEL = 0
HIDDEN: list[int] = []
_calls = 0


def calls() -> int:
    global _calls
    _calls += 1
    return _calls


def calm() -> float:
    return 0.1


def wild() -> float:
    return 0.6


chosen = calm


def run_chosen() -> float:
    return chosen()
