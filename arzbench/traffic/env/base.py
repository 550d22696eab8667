"""What the ARZ environments have in common as Gymnasium environments."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from arzbench.traffic.env import DECISIONS
from arzbench.traffic.env.batch import ArzBatch, Captured, Integers, check_captured, pick, whole
from arzbench.traffic.env.render import Window, space_time_image, why_no_window
from arzbench.traffic.physics.detectors import ACCOUNTS
from arzbench.traffic.physics.scenario import SCHEMES, Scenario, State

#: debug messages of one application of a road's boundaries, by tag
MESSAGES = {"DEBUG_BC_GPU": 4, "DEBUG_BC_DISPATCHER": 3}


class MessageLog(Protocol):
    """Where debug messages go; `template` is %-style and is filled in by the log."""

    def log(self, tag: str, template: str, *args: object) -> None:
        """Take one message."""


class Controller(ABC):
    """A baseline: reads the present state of a batch of environments and chooses an action for each.

    `action` is the same for a single, possibly wrapped, environment.
    """

    controls: ClassVar[type[ArzBatch]]

    def reset(self) -> None:  # noqa: B027 - most remember nothing
        """Start new episodes: forget the last ones."""

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the next action of one environment.

        Raises:
            TypeError: If the environment is not one that this controls.
        """
        inner = env.unwrapped
        if not isinstance(inner, ArzEnv):
            raise TypeError(f"{type(inner).__name__} is not an ArzEnv")
        return int(self.actions(inner.batch)[0])

    def actions(self, batch: ArzBatch) -> Integers:
        """Return the next action of each environment, shape (num_envs,).

        Raises:
            TypeError: If the batch is not of environments that this controls.
        """
        if not isinstance(batch, self.controls):
            kinds = type(batch).__name__, self.controls.__name__
            raise TypeError(f"{type(self).__name__}: {kinds[0]} is not a {kinds[1]}")
        return self.choose(batch)

    @abstractmethod
    def choose(self, batch: Any) -> Integers:
        """`actions` of a batch of the right kind."""


class ArzEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Roads of the ARZ model under one controller, one decision every 15 s.

    Observation, float32 in [0, 1]: for each road, SEGMENTS times rho_m / rho_jam, then v_m /
    free speed, rho_c / rho_jam and v_c / free speed, then queues of both classes at each origin
    and the standing queue (q / (q + 20)); then the control's own state and the share of the
    episode gone.

    Reward: `delay`, minus the delay of the step in 1000 veh s (time lost against free flow, on
    the road and in origin queues); `queue_change`, minus the growth of the queue in 10 veh.

    `info`: `throughput` [veh] past the stop line in the step (the road's end without one),
    `queue` [veh] standing and at the origins, `delay` [veh s] and `stops` [veh] of the step.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 4}
    batch_type: ClassVar[type[ArzBatch]]
    baseline_controllers: ClassVar[Mapping[str, type[Controller]]]  # the reference first

    def __init__(self, *, render_mode: str | None = None, **options: Any) -> None:
        """Make the environment; `reset` starts it.

        Args:
            options: Those of `ArzBatch`, but for `threads`.
            render_mode: None, `rgb_array` for a space-time plot of density, or `human` for the same
                in a window, drawn anew each step. Where no window is possible, `metadata` of the
                environment does not list it.

        Raises:
            ValueError: If a name is unknown, or there is no such device here; the message lists the
                valid ones.
        """
        if render_mode is not None:
            pick("render_mode", render_mode, self.metadata["render_modes"])
        self._window = Window(type(self).__name__) if render_mode == "human" else None
        if self._window is None and why_no_window() is not None:
            self.metadata = {**self.metadata, "render_modes": ["rgb_array"]}
        self.batch = self.batch_type(1, threads=1, **options)
        self.render_mode = render_mode
        self.message_log: MessageLog | None = None
        self.history = np.zeros((DECISIONS, self.batch.roads, self.scenario.n_cells), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (self.batch.observation_size,), np.float32)
        self.action_space = spaces.Discrete(self.batch.actions)

    @property
    def scenario(self) -> Scenario:
        """Roads and scheme."""
        return self.batch.scenario

    @property
    def state(self) -> State:
        """State of the roads."""
        return self.batch.state

    @property
    def time(self) -> int:
        """Decisions taken in this episode."""
        return int(self.batch.time[0])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Empty the roads and draw a new demand."""
        super().reset(seed=seed, options=options)
        self.batch.reset_env(0, self.np_random)
        self.history[:] = 0
        self._show()
        values = self.batch.measure(self.state.totals)[:, 0].tolist()
        return self.batch.observe()[0], dict(zip(ACCOUNTS, values, strict=False))

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Simulate 15 s under `action`; truncated after 240 decisions."""
        report = self.batch.report(whole([action]))[:, 0].tolist()
        return self._told(self.batch.observe()[0], *report)

    def _told(
        self, observation: NDArray[np.float32], *report: float
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """What `step` returns once the batch has made it: shown, and told of in messages."""
        *values, reward = report
        time = self.time
        if self.render_mode is not None:
            cells = self.state.u[:, ::2, self.scenario.cells]
            self.history[min(time, DECISIONS) - 1] = cells.sum(axis=1)
            self._show()
        if self.message_log is not None:
            self.emit_messages()
        info = dict(zip(ACCOUNTS, values, strict=True))
        return observation, reward, False, time >= DECISIONS, info

    def get_state(self) -> Captured:
        """Return everything but `np_random`, as arrays and numbers.

        The caller saves `np_random.bit_generator.state`. With both restored the episode goes on
        bit for bit.
        """
        return {**self.batch.get_state(0), "history": self.history.copy()}

    def set_state(self, state: Captured) -> None:
        """Restore what `get_state` returned.

        Raises:
            ValueError: If an entry is missing, or an array has another shape or type.
        """
        check_captured(state, self.get_state())
        self.batch.set_state(0, state)
        self.history[...] = state["history"]

    def emit_messages(self) -> None:
        """Send the debug messages of the last step: seven for each application of a boundary."""
        log = self.message_log
        if log is None:
            return
        first, last = self.scenario.cells.start, self.scenario.cells.stop - 1
        roads = len(self.state.u)
        rounds = self.scenario.substeps * (1 + SCHEMES[self.scenario.scheme]) * roads
        skip = getattr(log, "skip", None)
        done = 0
        while done < rounds:
            if skip is not None:  # rounds that would all be silent cost next to nothing
                done += skip(MESSAGES, rounds - done)
            if done < rounds:
                u = self.state.u[done % roads]
                self._emit_round(log, u[:, first].tolist(), u[:, last].tolist())
                done += 1

    @staticmethod
    def _emit_round(log: MessageLog, left: list[float], right: list[float]) -> None:
        """Send the messages of one application of a road's boundaries, of each tag as MESSAGES says."""
        log.log("DEBUG_BC_GPU", "inflow_L: [%r, %r, %r, %r]", *left)
        log.log("DEBUG_BC_GPU", "inflow_R: [%r, %r, %r, %r]", *right)
        log.log("DEBUG_BC_GPU", "left_type_code: %d, right_type_code: %d", 0, 1)
        log.log("DEBUG_BC_DISPATCHER", "Entered boundary conditions, params: %s", dict)
        log.log("DEBUG_BC_DISPATCHER", "Using the step's own params (dynamic)")
        log.log("DEBUG_BC_DISPATCHER", "Left inflow: [%r, %r, %r, %r]", *left)
        log.log("DEBUG_BC_GPU", "About to launch the kernel")

    def render(self) -> NDArray[np.uint8] | None:
        """Return the space-time density plot of the episode so far, shape (height, width, 3).

        None without `render_mode`, and with `human`, which shows it by itself.
        """
        return self._picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window if there is one."""
        if self._window is not None:
            self._window.close()
        super().close()

    def _picture(self) -> NDArray[np.uint8]:
        jam = self.scenario.parameters.rho_jam
        return space_time_image(self.history[: max(self.time, 1)] / jam)

    def _show(self) -> None:
        if self._window is not None:
            self._window.show(self._picture())


#: roads that a thread must have to gain more than it takes to wake
ROADS_A_THREAD = 3


def step_together(envs: Sequence[ArzEnv], threads: int) -> Callable[[Sequence[Any]], list[Any]] | None:
    """What makes the next step of all environments by one call of the engine, on at most `threads` threads.

    It takes an action for each and returns what each one's own `step` would have, bit for bit. They may still
    be stepped and reset one by one. None: their roads are on a GPU.
    """
    parts = [env.batch for env in envs]
    if any(part.device != "cpu" for part in parts):
        return None
    roads = len(parts) * parts[0].roads
    batch = type(parts[0]).joined(parts, max(1, min(threads, roads // ROADS_A_THREAD)))

    def step(actions: Sequence[Any]) -> list[Any]:
        report = batch.report(whole(actions)).T.tolist()
        return [env._told(seen, *told) for env, seen, told in zip(envs, batch.observe(), report, strict=True)]

    return step
