"""Compiled loops over a batch's environments: a call of each where NumPy would take five or ten."""

from typing import Any

from numba import njit


@njit(cache=True, nogil=True)
def begin(actions: Any, choices: Any, demand: Any, time: Any, totals: Any, arrivals: Any, before: Any) -> int:
    """Begin a decision of each environment, unless an action is not one of the `choices`.

    Moves `time` on and writes this decision's `arrivals`, and the totals `before` it.

    Returns:
        Environments whose episode this decision ends; -1 if nothing was begun.
    """
    for action in actions:
        if action < 0 or action >= choices:
            return -1
    decisions, ending = demand.shape[1], 0
    flows = demand.reshape(demand.shape[0], decisions, arrivals.shape[1])
    for env in range(len(time)):
        now = min(time[env], decisions - 1)
        for i in range(arrivals.shape[1]):
            arrivals[env, i] = flows[env, now, i]
        time[env] += 1
        ending += time[env] >= decisions
    before[:] = totals
    return ending


@njit(cache=True, nogil=True)
def switch(actions: Any, phase: Any, since_switch: Any, red: Any, all_red: Any, substeps: Any) -> None:
    """Turn each light to its action, and write the substeps for which its stop lines are closed."""
    for env in range(len(actions)):
        green, same = actions[env], actions[env] == phase[env]
        red[env, green] = 0 if same else all_red
        red[env, 1 - green] = substeps
        since_switch[env] = since_switch[env] + 1 if same else 0
        phase[env] = green


@njit(cache=True, nogil=True)
def show(phase: Any, since_switch: Any, scale: Any, shown: Any) -> None:
    """Write of each light its phase, one-hot, and the time since it switched, over `scale`, at most 1."""
    for env in range(len(phase)):
        shown[env, 0], shown[env, 1] = phase[env] == 0, phase[env] == 1
        shown[env, 2] = min(since_switch[env] / scale, 1.0)
