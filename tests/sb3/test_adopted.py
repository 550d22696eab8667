"""A user's own model gets hooks and loses them again; events are counted, what cannot be saved is named."""

import io
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.loop import TrainingLoop
from arzbench.sb3 import model_state, state_io, updates
from arzbench.sb3.episodes import by_policy
from arzbench.sb3.model_loop import loop_of
from arzbench.sb3.models import adopt, release
from arzbench.sb3.skipped_work import skip_mode_switches
from arzbench.workload import StopTraining
from tests.sb3.adopted import around, bare, quiet, weights
from tests.sb3.controls import Free, StopAt, through_bytes, tidy  # noqa: F401
from tests.sb3.user_models import MODELS, OFF, ON, Masked, Prioritised, known, vectorised

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch:UserWarning")
CONTRIB = ("tqc", "qrdqn", "crossq", "trpo", "maskableppo", "recurrentppo", "ars", "her")


# -- hooks go as they came -------------------------------------------------------------------------


def parts(model: Any) -> list[Any]:
    """The model, its policy, its vectorised envs, and its envs in their wrappers."""
    found = [model, model.policy, model.env]
    while hasattr(found[-1], "venv"):
        found.append(found[-1].venv)
    for env in getattr(found[-1], "envs", ()):
        found.append(env)
        while found[-1] is not env.unwrapped:
            found.append(found[-1].env)
    return found


def ours(model: Any) -> list[str]:
    """What of the project is left in a model."""
    left = [
        f"{type(part).__name__}.{name}"
        for part in parts(model)
        for name, value in vars(part).items()
        if str(getattr(value, "__module__", type(value).__module__)).startswith("arzbench")
    ]
    left += [str(hooks) for hooks in (model.policy._forward_hooks, model.policy._forward_pre_hooks) if hooks]
    optimizers = [optimizer for _, optimizer in model_state.find_optimizers(model)]
    return left + [str(o) for o in optimizers if o._optimizer_step_pre_hooks or o._optimizer_step_post_hooks]


@pytest.mark.parametrize("name", ["own_ppo", "tqc", "trpo", "recurrentppo", "ars", "unmonitored", "subproc"])
def test_released_it_is_as_its_maker_knew_it(name: str) -> None:
    make, total = MODELS[name]
    training, _ = around(make, total)
    model = training.model
    skip_mode_switches(model.policy)
    training.set_logging("periodic")
    with pytest.raises(StopTraining):
        training.run(StopAt(21))
    assert ours(model)
    release(model)
    assert ours(model) == []
    made = make()
    assert type(model) is type(made)
    model.save(io.BytesIO())
    model.set_env(model.env)
    model.learn(1)
    release(model)  # a second time: nothing
    made.env.close()


def test_released_after_an_error_of_its_env_and_what_was_its_own_comes_back() -> None:
    model = quiet(MODELS["own_ppo"][0]())
    forward = model.policy.forward
    model.policy.forward = own = lambda *args, **kwargs: forward(*args, **kwargs)
    training, _ = around(lambda: model, 300)

    def fails(action: Any) -> Any:
        raise RuntimeError

    model.env.venv.envs[0].unwrapped.step = fails
    with pytest.raises(RuntimeError):
        training.run(Free())
    release(model)
    assert ours(model) == []
    assert model.policy.forward is own
    assert model.env.venv.envs[0].unwrapped.step is fails


def test_what_was_never_adopted_can_be_released() -> None:
    model = MODELS["tqc"][0]()
    release(model)
    release(adopt(model))
    assert type(model).__module__.startswith("sb3_contrib")


# -- counts ----------------------------------------------------------------------------------------


def counted(calls: Counter[str], what: str, inner: Any) -> Any:
    """`inner`, with its calls counted."""

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[what] += 1
        return inner(*args, **kwargs)

    return call


def instrument(model: Any, loop: TrainingLoop) -> Counter[str]:
    """Count what happens in the library's own `learn`, from outside."""
    calls: Counter[str] = Counter()
    model.env.step = counted(calls, "step", model.env.step)
    if hasattr(model, "evaluate_candidates"):
        model.evaluate_candidates = counted(calls, "gradient step", model.evaluate_candidates)
        model.policy.register_forward_hook(lambda *_: calls.update(["policy"]))
    elif loop.off_policy:
        model.policy.predict = counted(calls, "policy", model.policy.predict)
        train = model.train

        def train_counted(gradient_steps: int, batch_size: int) -> None:
            calls["gradient step"] += gradient_steps
            train(gradient_steps, batch_size)

        model.train = train_counted
    else:
        model.policy.forward = counted(calls, "policy", model.policy.forward)
        model.policy.optimizer.register_step_post_hook(lambda *_: calls.update(["gradient step"]))
    return calls


@pytest.mark.parametrize("name", CONTRIB)
def test_counted_as_in_a_bare_training(name: str) -> None:
    make, total = MODELS[name]
    model = quiet(make())
    loop = loop_of(model, total)
    calls = instrument(model, loop)
    model.learn(total)
    training, log = around(make, total)
    training.run(Free())
    units = [log.units(p) for p in (Phase.ENV_STEP, Phase.ROLLOUT, Phase.POLICY, Phase.UPDATE)]
    assert units == [model.num_timesteps, calls["step"], calls["policy"], calls["gradient step"]]
    assert training.state.updates == calls["gradient step"]
    lengths = training.facts().episode_steps or (1,)
    _, steps, gradient_steps = loop.counts(total, float(np.mean(lengths)))
    assert gradient_steps == calls["gradient step"]
    assert name == "ars" or steps == model.num_timesteps
    assert loop.exploration_horizon or loop.policy_calls(calls["step"]) == calls["policy"]


def test_without_a_monitor_the_same_episodes_are_told() -> None:
    make, total = MODELS["unmonitored"]
    without, with_monitors = Free(), Free()
    around(make, total)[0].run(without)

    def monitored() -> Any:
        model = make()
        model.env.venv.envs = vectorised(known, known).envs
        model.env.seed(0)
        return model

    around(monitored, total)[0].run(with_monitors)
    assert len(without.episodes) > 5
    for (one, length), (other, expected) in zip(without.episodes, with_monitors.episodes, strict=True):
        assert (length, one) == (expected, pytest.approx(other, abs=1e-4))


class Stepping(DummyVecEnv):
    """Has a `step` of its own, that gives what no other method does."""

    def step(self, actions: Any) -> Any:
        observations, rewards, dones, infos = super().step(actions)
        return observations, rewards + 1.0, dones, infos


def test_a_vectorised_env_with_a_step_of_its_own() -> None:
    def make() -> Any:
        return PPO("MlpPolicy", Stepping([known, known]), n_steps=16, batch_size=16, n_epochs=1, **ON)

    training, log = around(make, 64)
    training.run(Free())
    assert log.units(Phase.ENV_STEP) == 64
    assert weights(training.model) == weights(bare(make, 64))


# -- what can, and what cannot be saved ------------------------------------------------------------


def test_envs_in_other_processes_begin_anew_and_it_is_said() -> None:
    make, total = MODELS["subproc"]
    training, _ = around(make, total)
    with pytest.raises(StopTraining):
        training.run(StopAt(70))
    state = through_bytes(training.capture())
    assert state.tier == "reset"
    resumed, _ = around(make, total, state)
    assert resumed.resumed == "reset"
    resumed.run(Free())
    assert resumed.num_timesteps == 192


class Odd(Prioritised):
    """Keeps what is neither number nor array."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tree = object()
        self.beta = lambda left: 1.0 - left


class OddDQN(DQN):
    """Keeps a set."""

    def _setup_model(self) -> None:
        super()._setup_model()
        self.seen: set[int] = set()


def test_what_cannot_be_saved_is_named() -> None:
    model = OddDQN("MlpPolicy", known(), replay_buffer_class=Odd, **OFF)
    assert state_io.unsaved(model) == ["seen (set)", "replay_buffer.tree (object)"]
    assert not any(state_io.unsaved(MODELS[name][0]()) for name in (*CONTRIB, "prioritised", "curious"))


def test_a_state_without_advantages_still_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were not saved once; an update that was undone waits for them."""
    monkeypatch.setattr(updates, "LONG_STEPS", 2)
    monkeypatch.setattr(updates, "POLL_S", 0.0)
    make, total = MODELS["ppo_choices"]
    whole, _ = around(make, total)
    whole.run(Free())
    training, _ = around(make, total)

    class Within(Free):
        def during_update(self, training: Any) -> None:
            StopAt(0).event("update")

    with pytest.raises(StopTraining):
        training.run(Within())
    state = through_bytes(training.capture())
    values = msgspec.json.decode(msgspec.json.encode(state.values))
    rows = values["groups"]["buffers"]["rollout"]["rows"]
    assert rows.pop("returns")
    assert rows.pop("advantages")
    again, _ = around(make, total, msgspec.structs.replace(state, values=values))
    assert again.fingerprint() == training.fingerprint()
    again.run(Free())
    assert again.fingerprint() == whole.fingerprint()


def test_the_search_for_the_step_of_trpo_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "LONG_STEPS", 2)
    make, total = MODELS["trpo"]

    class Polls(Free):
        polled = 0

        def during_update(self, training: Any) -> None:
            self.polled += 1

    control = Polls()
    training, _ = around(make, total)
    training.run(control)
    assert control.polled > training.state.updates + training.model._n_updates


def test_a_short_training_with_her_has_whole_episodes_to_sample() -> None:
    make, _ = MODELS["her"]
    model = make()
    loop = loop_of(model, 500).brought_forward(None)
    short = msgspec.structs.replace(loop, learning_starts=4)  # less than an episode

    class Prefill(Free):
        def before_step(self, training: Any, updates: int) -> None:
            if training.num_timesteps == short.learning_starts:
                training.prefill(100)

    training, log = around(make, 60, loop=short)
    training.run(Prefill())
    assert log.units(Phase.UPDATE) == 14
    assert training.model.replay_buffer.ep_length.max() > 1


# -- ARS -------------------------------------------------------------------------------------------


def test_ars_stopped_within_an_iteration_is_where_that_began() -> None:
    make, total = MODELS["ars"]
    whole, reference = around(make, total)
    whole.run(Free())
    training, log = around(make, total)
    control = StopAt(40)
    with pytest.raises(StopTraining):
        training.run(control)
    assert control.where == "update"
    assert (training.num_timesteps, training.state.episodes_ended) == (0, [])
    training.run(Free())  # in the same process
    assert training.fingerprint() == whole.fingerprint()
    assert log.units(Phase.ENV_STEP) == reference.units(Phase.ENV_STEP) == training.num_timesteps


def test_ars_that_cannot_be_stopped_or_counted_is_refused() -> None:
    sb3_contrib = pytest.importorskip("sb3_contrib")
    with pytest.raises(UsageError, match="ARS with 2 envs"):
        adopt(sb3_contrib.ARS("LinearPolicy", vectorised(known, known)))
    training, _ = around(*MODELS["ars"])
    with pytest.raises(UsageError, match="async_eval"):
        training.model._do_one_update(None, object())


# -- evaluations -----------------------------------------------------------------------------------


def played(model: Any, env: Any, seed: int) -> list[Any]:
    choose = by_policy(model, env, deterministic=True)(seed)
    observation, _ = env.reset(seed=seed)
    taken, ended = [], False
    while not ended:
        taken.append(choose(observation))
        observation, _, terminated, truncated, _ = env.step(taken[-1])
        ended = terminated or truncated
    return taken


def test_a_masked_policy_is_asked_for_what_is_allowed() -> None:
    model = bare(*MODELS["maskableppo"])
    taken = played(model, Masked(), 3)
    assert len(taken) == 10
    assert all(action != t % 3 for t, action in enumerate(taken))
    assert len(played(model, known(), 3)) > 0  # no masks there


def test_a_recurrent_policy_remembers_within_an_episode_and_not_beyond() -> None:
    model = bare(*MODELS["recurrentppo_dict"])
    env = known(mapping=True)
    with th.no_grad():  # its memory decides
        for parameter in model.policy.lstm_actor.parameters():
            parameter.mul_(20.0)
    assert played(model, env, 3) == played(model, env, 3)
    observation = env.reset(seed=0)[0]
    memories = []
    predict = model.predict

    def spy(observation: Any, memory: Any, *others: Any, **named: Any) -> Any:
        memories.append(memory)
        return predict(observation, memory, *others, **named)

    model.predict = spy
    choose = by_policy(model, env, deterministic=True)(0)
    choose(observation)
    choose(observation)
    assert memories[0] is None
    assert memories[1] is not None


@pytest.mark.skipif(not th.set_flush_denormal(False), reason="this CPU cannot flush denormals")
@pytest.mark.parametrize("like_library", [True, False])
def test_denormals_are_kept_where_bits_are_to_be_the_library_s(like_library: bool) -> None:
    training, _ = around(*MODELS["tqc"])
    training.state.like_library = like_library
    seen: list[float] = []
    training.model.hooks.update(lambda: seen.append(float(th.tensor([1e-30]) * 1e-10)), 1)
    assert (seen[0] > 0.0) == like_library
