"""Infers the schedule of training and evaluation behind a step counter, as far as the numbers decide it.

A counter that runs over training and evaluation steps alike (both use the same env) reveals the schedule:
after `train` steps of training follow `episodes` whole evaluation episodes, then training goes on with a
fresh episode. The position within an episode is the simulated time over that of a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from arzbench.facts import Record

#: simulated lengths of episodes in use [s], the usual first
HORIZONS_S = (3600, 7200, 1800, 5400, 900, 1200, 600, 300, 2700, 10800, 14400, 21600, 28800, 43200, 86400)
#: steps between evaluations in use (SB3's own is 10,000), and episodes of one (SB3's own is 5)
TRAIN_STEPS = (1000, 10_000, 5000, 2000, 2500, 500, 20_000, 250, 200, 100, 2048, 4096)
EPISODES = (5, 10, 1, 3, 20, 2)
_MAX_SHOWN = 12


class Schedule(Record, frozen=True, kw_only=True):
    """`train` steps, then `episodes` evaluation episodes of `length` steps, again; train 0: none of them."""

    length: int
    train: int = 0
    episodes: int = 0

    def position(self, step: int) -> int:
        """Steps into the episode after `step` steps, 1..length."""
        if self.train:
            step %= self.train + self.episodes * self.length
            if step > self.train:
                step -= self.train
            elif step == 0:
                return self.length
        return (step - 1) % self.length + 1

    def __str__(self) -> str:
        if not self.train:
            return f"training alone, episodes of {self.length:,} steps"
        return f"{self.train:,} + {self.episodes} x {self.length:,}"


class Cycle(Record, frozen=True, kw_only=True):
    """The schedules that fit the counter."""

    step: int
    sim_s: float
    position: int  # steps into the episode
    step_sim_s: float  # simulated seconds a step
    places: int  # independent places in the schedule that were compared
    training_alone: bool  # some usual episode length explains it without evaluations
    training_alone_sim_s: float | None  # where training alone would be, with the length below
    length: int | None  # of the episodes in what fits best
    fits: tuple[str, ...]  # schedules that explain it, the usual first
    n_fits: int
    tried: int
    by_chance: float  # how many would fit if all were wrong
    sure: str


def infer(
    observed: Sequence[tuple[int, float]],
    step_sim_s: float,
    longest_sim_s: float,
    *,
    length: int | None = None,
    train: int | None = None,
    episodes: int | None = None,
) -> Cycle | None:
    """Infer the schedule behind `observed` (step, simulated seconds) pairs; None where they show nothing.

    Give `length`, `train` and `episodes` where they are known.
    """
    if not observed or step_sim_s <= 0:
        return None
    positions = ((step, round(sim / step_sim_s)) for step, sim in observed if sim > 0)
    # a place that follows from the one before, in the same episode, is no evidence of its own
    groups = itertools.groupby(positions, key=lambda place: place[0] - place[1])
    places = [next(group) for _, group in groups]
    if not places or places[0][1] < 1:
        return None
    least = max(1, round(longest_sim_s / step_sim_s))
    lengths = [length] if length else _lengths(step_sim_s, least)
    alone = [Schedule(length=n) for n in lengths]
    plans = [
        Schedule(length=n, train=b, episodes=e)
        for e, n, b in itertools.product(
            [episodes] if episodes else EPISODES, lengths, [train] if train else TRAIN_STEPS
        )
    ]
    fits = [s for s in (*alone, *plans) if all(s.position(step) == at for step, at in places)]
    alone_fits = [s for s in fits if not s.train]
    fits = alone_fits or fits
    chance = sum((1 / s.length) ** len(places) for s in (*alone, *plans))
    shown = fits[0] if fits else None
    guess = shown.length if shown else (lengths[0] if lengths else None)
    step, position = places[0]
    return Cycle(
        step=step,
        sim_s=position * step_sim_s,
        position=position,
        step_sim_s=step_sim_s,
        places=len(places),
        training_alone=bool(alone_fits),
        training_alone_sim_s=Schedule(length=guess).position(step) * step_sim_s if guess else None,
        length=guess,
        fits=tuple(str(s) for s in fits[:_MAX_SHOWN]),
        n_fits=len(fits),
        tried=len(alone) + len(plans),
        by_chance=chance,
        sure=_sure(fits, alone_fits, chance),
    )


def _lengths(step_sim_s: float, least: int) -> list[int]:
    """Usual episode lengths in steps that are not shorter than what was seen."""
    exact = [h / step_sim_s for h in HORIZONS_S]
    return [round(n) for n in exact if abs(n - round(n)) < 1e-6 and round(n) >= least]


def _sure(fits: Sequence[Schedule], alone: Sequence[Schedule], chance: float) -> str:
    if not fits:
        return "none of the usual schedules explains it"
    if alone:
        return "training alone explains it: nothing speaks for evaluations on this env"
    if len(fits) == 1 and chance < 0.05:
        return "one and only one of the usual schedules explains it"
    if len(fits) == 1:
        return (
            f"one of the usual schedules explains it, and {chance:.1g} would by chance: likely, not certain"
        )
    return (
        f"{len(fits)} of the usual schedules explain it, {chance:.1g} would by chance: that there are "
        "evaluations on this env is likely; which ones, this log alone does not decide "
        "(the first is the most usual)"
    )
