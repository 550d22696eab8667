"""The workload around trainings: what it checks, what it refuses, what it tells."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import msgspec
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch as th

from arzbench.errors import StateError, UsageError
from arzbench.facts import Phase
from arzbench.sb3 import open_episodes
from arzbench.sb3.workload import SB3Workload
from arzbench.study import ALGORITHMS, TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import StopTraining
from tests.sb3.controls import Free, Log, StopAt, config, start, through_bytes, tidy  # noqa: F401

OFF = {"learning_starts": 20, "batch_size": 8, "total_timesteps": 40}


def test_load_tells_what_decides_speed_and_bits() -> None:
    versions = SB3Workload().load()
    assert versions["torch"] == th.__version__.partition("+")[0] or versions["torch"] == th.__version__
    assert versions["stable_baselines3"] == sb3.__version__
    assert {"gymnasium", "numpy"} <= versions.keys()
    assert "arzbench/TrafficLight-v0" in gym.registry


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_study_that_can_run_passes(algo: str) -> None:
    off_policy = "buffer_size" in ALGORITHMS[algo].schedule_fields()
    study = config(algo, **(OFF if off_policy else {"total_timesteps": 10}))
    before = copy.deepcopy(study)
    SB3Workload().check(study)
    SB3Workload().first_step(study)
    assert study == before


WRONG: dict[str, tuple[TrainConfig, str, str]] = {
    "env": (config("ppo", env="CartPol-v1", total_timesteps=1), "unknown env 'CartPol-v1'", "CartPole-v1"),
    "module": (config("ppo", env="no_such:E-v0", total_timesteps=1), "'no_such:E-v0' cannot be made", ""),
    "env argument": (
        config("ppo", env="CartPole-v1", env_kwargs={"speed": 3}, total_timesteps=1),
        "cannot be made with {'speed': 3}",
        "",
    ),
    "actions": (
        config("sac", env="CartPole-v1", **OFF),
        "SAC cannot choose the actions of CartPole-v1: Discrete",
        "algorithms that can: a2c, ars, dqn, maskableppo, ppo, qrdqn",
    ),
    "continuous actions": (config("dqn", env="Pendulum-v1", **OFF), "DQN cannot", "a2c, ars, crossq"),
    "device": (config("a2c", total_timesteps=5, device="tpu"), "unknown device 'tpu'", "cpu, cuda"),
    "policy": (config("a2c", total_timesteps=5, policy="Mlp"), "A2C cannot be made as asked", ""),
    "argument": (config("a2c", total_timesteps=5, rollout_buffer_kwargs={"rows": 3}), "A2C cannot be", ""),
    "network": (config("a2c", total_timesteps=5, policy_kwargs={"layers": 3}), "unexpected keyword", ""),
    "noise": (config("td3", **OFF, action_noise={"kind": "pink"}), "unknown action noise 'pink'", "normal"),
    "noise table": (config("td3", **OFF, action_noise=0.1), "action_noise = 0.1", "kind = "),
    "observations": (config("a2c", env="FrozenLake-v1", total_timesteps=5, vec_normalize=True),
                     "VecNormalize only supports", ""),
    "controller": (
        config("a2c", env="arzbench/TrafficLight-v0", total_timesteps=5,
               baseline={"controller": "fixd_time", "episodes": 1}),
        "unknown baseline controller 'fixd_time'", "did you mean 'fixed_time'?",
    ),
    "controller of another road": (
        config("a2c", env="arzbench/RampMetering-v0", total_timesteps=5,
               baseline={"controller": "fixed_time", "episodes": 1}),
        "unknown baseline controller 'fixed_time'", "those for arzbench/RampMetering-v0",
    ),
    "controller of another env": (
        config("a2c", total_timesteps=5, baseline={"controller": "fixed_time", "episodes": 1}),
        "'fixed_time' is not for arztest/Known-v0", "random",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_study_that_cannot_run_is_refused_in_one_message(case: str) -> None:
    study, message, hint = WRONG[case]
    with pytest.raises(UsageError) as caught:
        SB3Workload().check(study)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert len(caught.value.message + caught.value.hint) < 600  # not all envs there are


@pytest.mark.skipif(th.cuda.is_available(), reason="there is a GPU")
def test_cuda_needs_a_gpu() -> None:
    study = config("a2c", total_timesteps=5, device="cuda")
    for call in (SB3Workload().check, lambda study: SB3Workload().create(study, Log())):
        with pytest.raises(UsageError, match="no GPU") as caught:
            call(study)
        assert "--device cpu" in caught.value.hint
    SB3Workload().check(config("a2c", total_timesteps=5, device="auto"))


def test_an_unwritable_message_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write the messages"):
        SB3Workload(log_path=tmp_path / "absent" / "x.log").create(config("a2c", total_timesteps=5), Log())


def test_a_training_tells_of_itself() -> None:
    study = config("a2c", total_timesteps=40, n_envs=2, env_kwargs={"length": 8, "max_episode_steps": 6},
                   evaluation={"final_episodes": 3}, baseline={"episodes": 2})  # fmt: skip
    training, log = start(study)
    assert (training.stage, training.num_timesteps, training.state.updates) == ("baseline", 0, 0)
    control = Free()
    training.run(control)
    assert (training.stage, training.num_timesteps, training.state.updates) == ("done", 40, 4)
    facts = training.facts()
    assert (facts.n_envs, facts.max_episode_steps) == (2, 6)
    assert (facts.episode_steps, facts.eval_episode_steps) == ((6,) * 6, (6,) * 3)
    assert [length for _, length in control.episodes] == [6] * 6
    assert [r.kind for r in control.evaluations] == ["baseline", "final"]
    assert [len(r.returns) for r in control.evaluations] == [2, 3]
    assert log.units(Phase.BUILD) == 1
    assert training.replay_size() == 0
    training.prefill(100)  # nothing to fill


def test_the_baseline_plays_the_final_evaluation_s_episodes() -> None:
    """The same seeds: an env that ignores its actions gives the same returns."""
    study = config("sac", env_kwargs={"ends": 0.2}, **OFF, evaluation={"final_episodes": 3},
                   baseline={"episodes": 3})  # fmt: skip
    training, _ = start(study)
    for env in (training.state.episodes.env.unwrapped, training.state.envs[0].unwrapped):
        env.step = lambda action, env=env, step=env.step: step(np.zeros(1, np.float32))
    control = Free()
    training.run(control)
    baseline, final = control.evaluations
    assert baseline.returns == final.returns
    assert len(set(baseline.returns)) == 3


def test_prefill_repeats_what_was_seen() -> None:
    training, _ = start(config("dqn", n_envs=2, buffer_size=100, **OFF))
    training.run(Free())
    buffer = training.model.replay_buffer
    seen = buffer.observations[:20].copy()
    training.prefill(30)
    assert training.replay_size() == 40  # it holds more already
    training.prefill(70)
    assert (training.replay_size(), buffer.pos, buffer.full) == (70, 35, False)
    assert np.array_equal(buffer.observations[:35], np.concatenate([seen, seen[:15]]))
    training.prefill(10**6)
    assert (training.replay_size(), buffer.pos, buffer.full) == (100, 0, True)
    assert len(buffer.sample(16).rewards) == 16


def test_prefill_of_an_empty_buffer_can_be_sampled() -> None:
    training, _ = start(config("dqn", buffer_size=100, **OFF))
    training.prefill(50)
    assert training.replay_size() == 50
    assert len(training.model.replay_buffer.sample(16).rewards) == 16


@pytest.mark.parametrize("algo", ["dqn", "ppo"])
def test_the_library_reads_what_is_exported(algo: str, tmp_path: Path) -> None:
    study = config(algo, total_timesteps=20, **({"n_steps": 8, "batch_size": 8} if algo == "ppo" else {}))
    training, _ = start(study)

    class Export(Free):
        def before_step(self, training: Any, updates: int) -> None:
            training.export(str(tmp_path / "model.zip"))

    training.run(Export())
    training.export(str(tmp_path / "model.zip"))
    loaded = getattr(sb3, algo.upper()).load(tmp_path / "model.zip", device="cpu")
    weights = training.model.policy.state_dict()
    assert all(th.equal(value, weights[name]) for name, value in loaded.policy.state_dict().items())
    assert loaded.predict(np.zeros(3, np.float32), deterministic=True)[0] in (0, 1, 2)


# -- envs that cannot be captured -----------------------------------------------------------------


def stopped_state(study: TrainConfig, at: int) -> TrainingState:
    training, _ = start(study)
    with pytest.raises(StopTraining):
        training.run(StopAt(at))
    return through_bytes(training.capture())


@pytest.mark.parametrize("table", [{"n_envs": 2}, {"n_envs": 2, "vec_normalize": True}])
@pytest.mark.parametrize("algo", ["dqn", "ppo"])
def test_an_env_that_hides_its_state_begins_anew_and_says_so(
    algo: str, table: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = OFF if algo == "dqn" else {"n_steps": 8, "batch_size": 8, "total_timesteps": 40}
    study = config(algo, env="arztest/Hidden-v0", **own, **table)
    monkeypatch.setattr(open_episodes, "MAX_STEPS", 0)
    state = stopped_state(study, 13)
    assert state.tier == "reset"
    resumed, _ = start(study, state)
    assert resumed.unseen == ["Hidden.hidden (list_iterator)"]
    assert 0 < resumed.num_timesteps < 40
    assert [env.unwrapped.t for env in resumed.state.envs] == [0, 0]
    first = resumed.model._last_obs.copy()
    again, _ = start(study, state)
    assert np.array_equal(again.model._last_obs, first)
    fresh, _ = start(study)
    with pytest.raises(StopTraining):
        fresh.run(StopAt(0))
    assert not np.array_equal(fresh.model._last_obs, first)  # not the episodes of the beginning
    resumed.run(Free())
    whole, _ = start(study)
    whole.run(Free())
    assert (resumed.num_timesteps, resumed.state.updates) == (whole.num_timesteps, whole.state.updates)


# -- states that are wrong ------------------------------------------------------------------------

STUDY = config("dqn", n_envs=2, buffer_size=60, **OFF)


class Used(BaseException):
    """A saved object was run."""


class Bomb:
    """Goes off when somebody turns it into something."""

    def goes_off(self, *_: Any) -> Any:
        raise Used

    __float__ = __int__ = __index__ = __bool__ = __len__ = __iter__ = __call__ = __reduce_ex__ = goes_off


def boxed(value: object) -> Any:
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def damage_arrays(name: str, make: Any) -> Any:
    def damage(arrays: dict[str, Any], values: dict[str, Any]) -> None:
        assert name in arrays
        arrays[name] = make(arrays[name])

    return damage


def damage_values(*path: Any, value: Any) -> Any:
    def damage(arrays: dict[str, Any], values: dict[str, Any]) -> None:
        for part in path[:-1]:
            values = values[part]
        assert path[-1] in values
        values[path[-1]] = value

    return damage


WEIGHT = "weights/policy/q_net.q_net.0.weight"
MOMENT = "optimizer/policy.optimizer/state/0/exp_avg"
DAMAGES = {
    "an object in place of numbers": damage_arrays(WEIGHT, lambda a: boxed(Bomb())),
    "text in place of numbers": damage_arrays(WEIGHT, lambda a: np.array(["x"])),
    "weights of another shape": damage_arrays(WEIGHT, lambda a: a[:-1]),
    "a moment of another shape": damage_arrays(MOMENT, lambda a: a[:-1]),
    "another observation": damage_arrays("counters/last/_last_obs", lambda a: a[:1]),
    "no torch state": damage_arrays("rng/torch", lambda a: a[:10]),
    "no Python state": damage_arrays("rng/python/words", lambda a: a[:10]),
    "an array is missing": damage_arrays("env/plain/nodes/4/of", lambda a: None),
    "another algorithm": damage_values("algo", value="ppo"),
    "another env": damage_values("env", value="CartPole-v1"),
    "other envs": damage_values("n_envs", value=3),
    "a newer format": damage_values("format", value=99),
    "a rollout longer than any": damage_values("groups", "counters", "rollout", 1, value=10**9),
    "no groups": damage_values("groups", value={}),
    "groups that are text": damage_values("groups", value="x"),
    "a stage of its own": damage_values("groups", "counters", "stage", value="sleep"),
    "a position outside": damage_values("groups", "buffers", "replay", "pos", value=10**9),
    "a negative position": damage_values("groups", "buffers", "replay", "pos", value=-1),
    "a counter of its own": damage_values("groups", "counters", "counters", value={"__class__": 1}),
    "a counter that is text": damage_values("groups", "counters", "counters", value={"num_timesteps": "x"}),
    "an optimizer of its own": damage_values("groups", "optimizer", value={}),
    "another generator": damage_values("groups", "rng", "actions", "bit_generator", value="os.system"),
    "another wrapper": damage_values("groups", "env", "plain", "nodes", 0, "class", value="os.Evil"),
    "no envs": damage_values("groups", "env", "plain", "nodes", value=[]),
    "other attributes": damage_values("groups", "env", "plain", "nodes", 0, "names", value=["x"]),
    "results that are not": damage_values("groups", "evaluations", "kinds", value=["x"]),
    "results without end": damage_arrays("evaluations/sizes", lambda a: np.array([10**9])),
}


@pytest.fixture(scope="module")
def sound() -> TrainingState:
    return stopped_state(STUDY, 17)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_state_that_does_not_fit_is_one_clear_error(name: str, sound: TrainingState) -> None:
    arrays, values = dict(sound.arrays), copy.deepcopy(dict(sound.values))
    DAMAGES[name](arrays, values)
    with pytest.raises(StateError) as caught:
        start(STUDY, TrainingState(arrays=arrays, values=values, tier="exact", ring=sound.ring))
    assert len(caught.value.message) < 300


RINGS: dict[str, Any] = {
    "another shape": lambda a: {**a, "observations": a["observations"][..., :1]},
    "another type": lambda a: {**a, "rewards": a["rewards"].astype(np.float64)},
    "too few": lambda a: {name: rows[:-1] for name, rows in a.items()},
    "too few of one": lambda a: {**a, "rewards": a["rewards"][:-1]},
    "other things": lambda a: {**a, "evil": a["rewards"]},
    "nothing": lambda a: {},
}


@pytest.mark.parametrize("name", RINGS)
def test_rows_that_do_not_fit_are_one_clear_error(name: str, sound: TrainingState) -> None:
    assert sound.ring is not None
    ring = msgspec.structs.replace(sound.ring, arrays=RINGS[name](sound.ring.arrays))
    with pytest.raises(StateError, match="replay buffer"):
        start(STUDY, msgspec.structs.replace(sound, ring=ring))
    with pytest.raises(StateError, match="replay buffer"):
        start(STUDY, msgspec.structs.replace(sound, ring=None))


def test_the_state_that_was_damaged_in_so_many_ways_is_sound(sound: TrainingState) -> None:
    training, _ = start(STUDY, sound)
    training.run(Free())
    assert training.stage == "done"


def test_a_rollout_that_does_not_fit_is_one_clear_error() -> None:
    study = config("ppo", n_steps=8, batch_size=8, total_timesteps=32)
    state = stopped_state(study, 5)
    shorter = config("ppo", n_steps=4, batch_size=4, total_timesteps=32)
    with pytest.raises(StateError, match="has 5 steps already"):
        start(shorter, state)
    wider = config("ppo", n_steps=8, batch_size=8, total_timesteps=32, policy_kwargs={"net_arch": [9]})
    with pytest.raises(StateError, match="size mismatch"):
        start(wider, state)
    with pytest.raises(StateError, match="vec_normalize"):
        start(config("ppo", n_steps=8, batch_size=8, total_timesteps=32, vec_normalize=True), state)
