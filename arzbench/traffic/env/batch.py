"""Many environments of one kind stepped by one call of the engine.

A batch holds everything an environment is but its random generator: `ArzEnv` is a batch of
one, the vector environments are batches of many, so that all give the same numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from arzbench.traffic.env import DECISIONS
from arzbench.traffic.env.demand import DemandModel, Demands
from arzbench.traffic.env.orders import begin
from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.detectors import ACCOUNTS, SEGMENTS, account, detect, sight_of
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.scenario import (
    DTYPES,
    PROFILE_INV_JAM,
    SCHEMES,
    STATE_ARRAYS,
    FloatArray,
    Scenario,
    State,
)

if TYPE_CHECKING:
    from arzbench.traffic.physics.cuda import RoadsOnGpu

Observations: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Captured: TypeAlias = dict[str, NDArray[Any] | int | float | bool]

DEVICES = ("cpu", "cuda", "auto")
REWARDS = {"delay": -1000.0, "queue_change": -10.0}  # veh s, veh: what it is divided by


def pick(kind: str, name: object, table: Any) -> Any:
    """Return `table[name]`.

    Raises:
        ValueError: If there is no such name; the message lists those there are.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{kind}={name!r} is not one of {', '.join(table)}")
    return table[name] if isinstance(table, dict) else name


def whole(actions: Any) -> Integers:
    """Return actions as integers, one for each environment.

    Raises:
        ValueError: If one is no whole number.
    """
    given = np.asarray(actions)
    if given.dtype == np.int64:
        return given
    if given.dtype.kind not in "biuf" or not (np.isfinite(given) & (given == np.floor(given))).all():
        raise ValueError(f"actions {given.tolist()} are not all whole numbers")
    return given.astype(np.int64)


def check_captured(given: dict[str, Any], mine: Captured) -> None:
    """Refuse a captured state that is not of the same kind as `mine`.

    Raises:
        ValueError: If an entry is missing, or an array has another shape or type.
    """
    if missing := sorted(mine.keys() - given.keys()):
        raise ValueError(f"state lacks {', '.join(missing)}")
    for name, value in mine.items():
        array = np.asarray(given[name])
        if isinstance(value, np.ndarray) and (array.shape, array.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"{name} has shape {array.shape} and type {array.dtype}, not {value.shape} and {value.dtype}"
            )


def missing_for_cuda() -> str:
    """What `cuda` lacks here, in words; nothing where it can be used, in Numba's simulator too."""
    from numba import config, cuda

    if not cuda.is_available():
        return "no NVIDIA GPU was found on this machine"
    if not config.ENABLE_CUDASIM and find_spec("numba_cuda") is None:
        return 'numba-cuda is not installed (pip install "arzbench[cuda]")'
    return ""


def choose_device(device: str) -> str:
    """Return `cpu` or `cuda`; `auto` is the CPU where `cuda` cannot be used.

    Raises:
        ValueError: If there is no such device, or none here.
    """
    if pick("device", device, DEVICES) == "cpu":
        return device
    missing = missing_for_cuda()
    if missing and device == "cuda":
        raise ValueError(f"device='cuda': {missing}; use device='cpu', or 'auto' for what there is")
    return "cpu" if missing else "cuda"


class ArzBatch(ABC):
    """A batch of environments; `ArzEnv` says what they observe and are rewarded for.

    Attributes:
        observation_size: Length of one environment's observation.
        device: `cpu` or `cuda`, where the roads are computed.
        profile: Profile of the roads; see `State`.
        demand: Demand of each episode [veh/s], shape (num_envs, DECISIONS, roads, origins, 2).
        time: Decisions taken in each episode, shape (num_envs,).
        ending: Environments whose episode ended with the last decision.
    """

    roads: ClassVar[int] = 1
    actions: ClassVar[int]
    layout: ClassVar[dict[str, Any]] = {"stop_line": None}  # of the scenario
    demands: ClassVar[Demands]
    control: ClassVar[dict[str, int]]  # first values of the control's state, by the name of its array
    default_parameters: ClassVar[str] = "default"

    def __init__(
        self,
        num_envs: int = 1,
        *,
        parameters: str | None = None,
        scheme: str = "weno5",
        dtype: str = "float64",
        demand: str = "mixed",
        reward: str = "delay",
        threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """Make the batch; `reset_env` starts each environment.

        Args:
            num_envs: Environments in the batch.
            parameters: Name in `PARAMETER_SETS`; None for the environment's own.
            scheme: `weno5`, `muscl` or `first_order`.
            dtype: `float64` or `float32`.
            demand: `quiet`, `mixed` or `rush`.
            reward: `delay` or `queue_change`.
            threads: Threads of the CPU engine.
            device: Where the roads are computed: `cpu`, `cuda`, or `auto` for the GPU if there is one.

        Raises:
            ValueError: If a name is unknown, or there is no such device here; the message lists the
                valid ones.
        """
        self._options: dict[str, Any] = {
            "parameters": parameters, "scheme": scheme, "dtype": dtype, "demand": demand, "reward": reward,
            "device": device,
        }  # fmt: skip
        pick("scheme", scheme, SCHEMES)
        pick("dtype", dtype, DTYPES)
        unit = pick("reward", reward, REWARDS)
        self.device = choose_device(device)
        self.num_envs = num_envs
        self.threads = threads
        self.scenario = Scenario(
            parameters=pick("parameters", parameters or self.default_parameters, PARAMETER_SETS),
            scheme=scheme,
            dtype=dtype,
            **self.layout,
        )
        self.demand_models: tuple[DemandModel, ...] = pick("demand", demand, self.demands)
        self._state = self.new_state()
        self.profile = self._state.profile  # the host's on every device
        shape = (num_envs, DECISIONS, self.roads, self.scenario.origins, 2)
        self.demand = np.zeros(shape)
        self.time = np.zeros(num_envs, np.int64)
        self.ending = 0
        for name, first in self.control.items():
            setattr(self, name, np.full(num_envs, first))
        self._arrivals = np.zeros((num_envs, self.roads * self.scenario.origins * 2))
        self._before = np.zeros_like(self._state.totals)
        # Jam density over that of each segment: more than 1 past a lane drop.
        inverse = self.profile[:, PROFILE_INV_JAM, self.scenario.cells].astype(np.float64)
        self.narrowing = inverse.reshape(len(inverse), SEGMENTS, -1).mean(axis=2)
        self.narrowing *= self.scenario.parameters.rho_jam
        queues = 2 * self.scenario.origins
        shown: int = self.control_state().shape[1]
        self.observation_size = self.roads * (4 * SEGMENTS + queues + 1) + shown + 1
        by_delay = reward == "delay"
        # What the compiled functions need of this batch in every step.
        self._books = self.roads, self.scenario.stop_line is not None, by_delay, unit
        self._view = (
            self.narrowing, self.scenario.parameters.rho_jam, sight_of(self.scenario.parameters),
            self.scenario.cells.start, self.scenario.n_cells, self.roads, queues, DECISIONS,
        )  # fmt: skip
        self._gpu: RoadsOnGpu | None = None
        if self.device == "cuda":
            from arzbench.traffic.physics import cuda  # loads CUDA

            self._gpu = cuda.RoadsOnGpu(
                self.scenario, self._state, self.narrowing, roads=self.roads, tail=shown + 1,
                zone=self.limited_cells(), by_delay=by_delay, unit=unit,
            )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence["ArzBatch"], threads: int) -> "ArzBatch":
        """Put batches of one environment each, all made alike on a CPU, into a batch that steps them at once.

        Its memory becomes theirs: what is done to it is done to them, and the other way round.
        """
        whole = cls(len(parts), threads=threads, **parts[0]._options)
        for env, part in enumerate(parts):
            whole.set_state(env, part.get_state(0))
            own = whole.own(env)
            part._state = State(**{name: getattr(whole._state, name)[own] for name in STATE_ARRAYS})
            part.profile = part._state.profile
            for name in ("demand", "time", *cls.control):
                setattr(part, name, getattr(whole, name)[env : env + 1])
        return whole

    @property
    def state(self) -> State:
        """Roads of all environments, those of one beside each other.

        On a GPU they are brought to the host when this is read, and taken back by the next step.
        """
        return self._state if self._gpu is None else self._gpu.host()

    def limited_cells(self) -> tuple[int, int]:
        """Indices in a row of the cells whose speed limit `apply` sets in `profile`, [first, end)."""
        return 0, 0

    @abstractmethod
    def control_state(self) -> Floats:
        """State of the control for the observation, in [0, 1], shape (num_envs, some)."""

    @abstractmethod
    def apply(self, actions: Integers) -> tuple[Integers, Floats | None]:
        """Take the actions, one for each environment; return the engine's `red` and `rate`.

        Valid until the next call.
        """

    def new_state(self) -> State:
        """Empty roads."""
        return cpu.init(self.scenario, self.num_envs * self.roads)

    def own(self, env: int) -> slice:
        """An environment's roads among all."""
        return slice(env * self.roads, (env + 1) * self.roads)

    def reset_env(self, env: int, rng: np.random.Generator) -> None:
        """Empty an environment's roads and draw a new demand."""
        roads = self.own(env)
        for part in (self.state.u, self.state.standing, self.state.totals, self.state.counters):
            part[roads] = 0
        demand = [[model.sample(DECISIONS, rng) for model in self.demand_models] for _ in range(self.roads)]
        self.demand[env] = np.moveaxis(np.array(demand), 2, 0)
        self.time[env] = 0
        for name, first in self.control.items():
            getattr(self, name)[env] = first

    def get_state(self, env: int) -> Captured:
        """Return an environment's part of the batch, as arrays and numbers."""
        own, state = self.own(env), self.state
        return {
            **{name: getattr(state, name)[own].copy() for name in STATE_ARRAYS},
            "demand": self.demand[env].copy(),
            "time": int(self.time[env]),
            **{name: int(getattr(self, name)[env]) for name in self.control},
        }

    def set_state(self, env: int, captured: Captured) -> None:
        """Restore what `get_state` returned, of any environment of the same kind.

        Raises:
            ValueError: As `check_captured`; then nothing is changed.
        """
        check_captured(captured, self.get_state(env))
        own, state = self.own(env), self.state
        for name in STATE_ARRAYS:
            getattr(state, name)[own] = captured[name]
        for name in ("demand", "time", *self.control):
            getattr(self, name)[env] = captured[name]

    def _refuse(self, actions: Integers) -> NoReturn:
        """Refuse actions of which not all are valid.

        Raises:
            ValueError: Naming the first invalid action and the valid ones.
        """
        if actions.shape != (self.num_envs,):
            raise ValueError(
                f"actions of shape {actions.shape}: one for each of {self.num_envs} environments"
            )
        wrong = (actions < 0) | (actions >= self.actions)
        choices = ", ".join(map(str, range(self.actions)))
        raise ValueError(f"action={actions[wrong][0]} is not one of {choices}")

    def report(self, actions: Integers) -> Floats:
        """Simulate 15 s; return ACCOUNTS and the reward, shape (5, num_envs)."""
        arrivals, before, totals = self._arrivals, self._before, self._state.totals
        self.ending = -1
        if actions.shape == self.time.shape:
            self.ending = begin(actions, self.actions, self.demand, self.time, totals, arrivals, before)
        if self.ending < 0:
            self._refuse(actions)
        red, rate = self.apply(actions)
        if self._gpu is not None:
            self._write_tail(self._gpu.tail)
            return self._gpu.step(arrivals, red, rate).T
        cpu.step(self.scenario, self._state, arrivals, red, rate, threads=self.threads)
        return self.measure(before)

    def _write_tail(self, out: FloatArray) -> None:
        """Write the end of the observations: the control's state and the share of the episode gone."""
        out[:, :-1] = self.control_state()
        out[:, -1] = np.minimum(self.time / DECISIONS, 1.0)

    def measure(self, before: Floats) -> Floats:
        """What `report` returns, of the step that led from totals `before` to now."""
        report: Floats = account(before, self.state.totals, *self._books)
        return report

    def observe(self) -> Observations:
        """Return the observations of the present state, shape (num_envs, observation_size)."""
        if self._gpu is not None and (seen := self._gpu.observed()) is not None:
            return seen
        state = self.state
        out: Observations = np.empty((self.num_envs, self.observation_size), np.float32)
        detect(state.u, state.totals, self.control_state(), self.time, out, *self._view)
        return out

    def play(self, seeds: Sequence[int], choose: Callable[[Any], Any]) -> dict[str, Floats]:
        """Play a whole episode of each environment, all at once.

        Args:
            seeds: A seed for each environment, as `ArzEnv.reset` takes it.
            choose: From this batch to an action for each environment.

        Returns:
            By measure, its value in each episode.
        """
        for env, seed in enumerate(seeds):
            self.reset_env(env, seeding.np_random(seed)[0])
        sums = np.zeros((len(ACCOUNTS) + 1, self.num_envs))
        for _ in range(DECISIONS):
            sums += self.report(whole(choose(self)))
        throughput, queue, delay, stops, rewards = sums
        return {
            "delay [veh h]": delay / 3600,
            "throughput [veh]": throughput,
            "queue [veh]": queue / DECISIONS,
            "stops [veh]": stops,
            "return": rewards,
        }

    def counters(self) -> dict[str, int]:
        """How often limiters and guards of the engine acted in the present episodes."""
        return self.state.report()
