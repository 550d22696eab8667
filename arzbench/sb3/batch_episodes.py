"""Episodes of an evaluation played at once, where their envs can be stepped together: with the same results.

Each episode has its own seed, its own env and what the policy remembers of it; the policy is shown one
observation at a time, since a whole batch may be rounded otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from arzbench.errors import UsageError
from arzbench.sb3 import codec, model_state
from arzbench.sb3.together import Seat, Together, cores, join

#: seed -> observation -> action
Player = Callable[[int], Callable[[Any], Any]]


class NotTogetherError(Exception):
    """Episodes that were to be played at once must be played one by one."""


class BatchEpisodes:
    """Envs to play several episodes in; the last of them in the env of the evaluations itself.

    So that env is left as by episodes played one after another.

    Attributes:
        threads: That an env may use for a step of all, at most; results do not depend on it.
    """

    def __init__(self, env: Any, another: Callable[[], Any], at_once: int, model: Any) -> None:
        """`another` makes an env like `env`, of which `together.can` approves; `at_once` is how many play."""
        self.threads = cores()
        self._own = Seat(env)
        self._others: list[Seat] = []
        self._another = another
        self._at_once = at_once if join([self._own], 1) else 1  # before more of them are made
        self._model = model
        self._joined: tuple[list[Seat], int, Together | None] = [], 0, None

    def count(self, left: int) -> int:
        """How many of the `left` episodes are to be played at once now: one where messages are sent."""
        return min(left, self._at_once) if self._own.is_silent() else 1

    def play(
        self, seeds: Sequence[int], player: Player, limit: int, enough: Callable[[], bool | None]
    ) -> tuple[list[float], list[int], bool]:
        """Return and length of an episode for each seed, and whether every one ended within `limit` steps.

        They are broken off after a step before which `enough` is true; it is asked before each but the first.

        Raises:
            NotTogetherError: the envs cannot be stepped together, there cannot be as many, or the policy
                drew random numbers, whose order matters.
        """
        before = model_state.capture_random(self._model)
        seats = self._seats(len(seeds))
        model_state.restore_random(self._model, before)  # making an env may have drawn from them
        self._joined = [], 0, None  # an env that was restored since may consist of other objects
        if self._join(seats) is None:
            raise NotTogetherError
        played = self._play(seats, seeds, player, limit, enough)
        if codec.digest(model_state.capture_random(self._model)) != codec.digest(before):
            raise NotTogetherError
        return played

    def _play(
        self,
        seats: list[Seat],
        seeds: Sequence[int],
        player: Player,
        limit: int,
        enough: Callable[[], bool | None],
    ) -> tuple[list[float], list[int], bool]:
        totals, lengths = [0.0] * len(seats), [0] * len(seats)
        seen = [seat.env.reset(seed=seed)[0] for seat, seed in zip(seats, seeds, strict=True)]
        choose = [player(seed) for seed in seeds]
        going = list(range(len(seats)))
        over = False
        while going and max(lengths) < limit and not over:
            over = max(lengths) > 0 and bool(enough())
            steps = self._step([seats[i] for i in going], [choose[i](seen[i]) for i in going])
            ended = []
            for i, (observation, reward, terminated, truncated, _) in zip(going, steps, strict=True):
                seen[i] = observation
                totals[i] += float(reward)
                lengths[i] += 1
                if terminated or truncated:
                    ended.append(i)
            going = [i for i in going if i not in ended]
        return totals, lengths, not going

    def _step(self, seats: list[Seat], actions: list[Any]) -> list[Any]:
        group = self._join(seats)
        if group is None:
            return [seat.env.step(action) for seat, action in zip(seats, actions, strict=True)]
        with group.step(actions):
            return [seat.env.step(action) for seat, action in zip(seats, actions, strict=True)]

    def _join(self, seats: list[Seat]) -> Together | None:
        if self._joined[:2] != (seats, self.threads):
            self._joined = seats, self.threads, join(seats, self.threads)
        return self._joined[2]

    def _seats(self, count: int) -> list[Seat]:
        """So many, the own one last."""
        try:
            while len(self._others) < count - 1:
                self._others.append(Seat(self._another()))
        except UsageError as error:  # of some envs there can be one at a time
            raise NotTogetherError from error
        return [*self._others[: count - 1], self._own]

    def close(self) -> None:
        """Close the envs beside the evaluations' own."""
        for seat in self._others:
            seat.env.close()
