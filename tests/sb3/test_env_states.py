"""Any env: after a kill it comes back as it was, or the label says that it may not have."""

import copy
import gc
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import msgspec
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from arzbench.errors import StateError
from arzbench.sb3 import code_reach, codec, open_episodes, plain_kinds, plain_state, plain_walk
from arzbench.sb3.env_state import EnvState
from arzbench.sb3.plain_state import PlainState
from arzbench.training_state import TIERS
from tests.sb3 import strange_envs as strange

INEXACT = {name for name, text in TIERS.items() if text.startswith("inexact")}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every env trained to the end, and again in a fresh process from a checkpoint midway."""
    folder = tmp_path_factory.mktemp("strange")
    results = []
    for stage in ("begin", "resume"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.sb3.strange_runs", stage, folder],
            cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(json.loads((folder / f"{stage}.json").read_text()))
    return results[0], results[1]


@pytest.mark.parametrize("name", [*strange.EXACT, *strange.AROUND])
def test_what_can_be_seen_comes_back_exactly(name: str, runs: Any) -> None:
    whole, resumed = (run[name] for run in runs)
    assert (whole["tier"], resumed["tier"], resumed["unseen"]) == ("exact", "exact", [])
    assert resumed["weights"] == whole["weights"]
    assert resumed["episodes"] == whole["episodes"]


@pytest.mark.parametrize("name", strange.ANY)
def test_what_differs_is_called_inexact_and_named(name: str, runs: Any) -> None:
    whole, resumed = (run[name] for run in runs)
    alike = resumed["weights"] == whole["weights"] and resumed["episodes"] == whole["episodes"]
    assert alike or resumed["tier"] in INEXACT
    assert (resumed["tier"] in INEXACT) == bool(resumed["unseen"])


def test_enough_of_them_are_strange(runs: Any) -> None:
    tiers = [run["tier"] for run in runs[1].values()]
    assert len(tiers) >= 50
    assert tiers.count("exact") >= 30
    assert sum(tier in INEXACT for tier in tiers) >= 20


# -- envs of libraries -----------------------------------------------------------------------------


def vectorised(make: Callable[[], Any], around: Callable[[VecEnv], VecEnv] = lambda v: v) -> VecEnv:
    return around(DummyVecEnv([lambda: Monitor(make()), lambda: Monitor(make())]))


def played(vec_env: VecEnv, steps: int, seed: int | None = None) -> list[Any]:
    """Some steps of pseudo-random actions, after a reset if there is a `seed`."""
    if seed is not None:
        vec_env.seed(seed)
        vec_env.reset()
    draw = np.random.default_rng(1)
    space: Any = vec_env.action_space
    answers = []
    for _ in range(steps):
        if isinstance(space, gym.spaces.Discrete):
            actions = draw.integers(space.n, size=2)
        else:
            actions = draw.uniform(space.low, space.high, (2, *space.shape)).astype(space.dtype)
        observations, rewards, dones, _ = vec_env.step(actions)
        answers.append((observations, rewards, dones))
    return answers


def through(tree: Any) -> Any:
    """As it comes back from a disk."""
    arrays: dict[str, Any] = {}
    packed = json.loads(json.dumps(codec.pack(tree, "env", arrays), allow_nan=False))
    return codec.unpack(packed, {name: array.copy() for name, array in arrays.items()})


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(same(one[key], other[key]) for key in one)
    return np.array_equal(one, other)


@pytest.mark.parametrize("name", [
    "CartPole-v1", "MountainCar-v0", "Pendulum-v1", "Acrobot-v1", "Taxi-v4", "FrozenLake-v1",
    "CliffWalking-v1", "Blackjack-v1",
])  # fmt: skip
def test_envs_of_gymnasium_come_back_exactly(name: str) -> None:
    def make() -> VecEnv:
        return vectorised(lambda: gym.make(name), VecNormalize if name == "Pendulum-v1" else lambda v: v)

    before, after = make(), make()
    state, fresh = EnvState(before), EnvState(after)
    played(before, 23, seed=4)
    saved = through(state.capture())
    assert state.tier == "exact"
    assert state.episodes is None
    fresh.restore(saved)
    assert (fresh.tier, fresh.unseen) == ("exact", [])
    for one, other in zip(played(before, 60), played(after, 60), strict=True):
        assert all(map(same, one, other))


def test_envs_in_processes_of_their_own_are_named() -> None:
    vec_env = SubprocVecEnv([lambda: gym.make("CartPole-v1")] * 2, start_method="fork")
    try:
        state = EnvState(vec_env)
        vec_env.reset()
        saved = state.capture()
        assert saved["tier"] == "reset"
        assert any("SubprocVecEnv" in name for name in saved["unseen"])
    finally:
        vec_env.close()


# -- open episodes that are played again ------------------------------------------------------------


class World:
    """A stand-in for a compiled object: it cannot be looked into."""

    def __init__(self) -> None:
        import itertools

        self.count = itertools.count()


class Compiled(strange.Walkabout):
    """Makes its world anew in each reset."""

    def build(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.world = World()
        self.particles: list[Any] = []

    def extra(self) -> float:
        self.particles.append(World().count)
        return next(self.world.count) / 10


def interrupted(make: Callable[[], Any], steps: int = 17) -> tuple[EnvState, dict[str, Any], VecEnv, VecEnv]:
    before, after = vectorised(make), vectorised(make)
    state = EnvState(before)
    played(before, steps, seed=4)
    saved = through(state.capture())
    fresh = EnvState(after)
    fresh.restore(saved)
    return fresh, saved, before, after


def test_what_cannot_be_seen_is_played_again_but_not_called_exact() -> None:
    fresh, saved, before, after = interrupted(Compiled)
    assert (saved["tier"], fresh.tier) == ("unproven", "unproven")
    assert any("World.count (itertools.count)" in name for name in fresh.unseen)
    for one, other in zip(played(before, 30), played(after, 30), strict=True):
        assert all(map(same, one, other))


def test_where_resets_are_known_to_make_it_anew_it_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    known = frozenset(map(code_reach.name_of, (Compiled, World)))
    monkeypatch.setattr(plain_walk, "REBUILT", known)
    fresh, saved, before, after = interrupted(Compiled)
    assert (saved["tier"], fresh.tier) == ("replay", "replay")
    for one, other in zip(played(before, 30), played(after, 30), strict=True):
        assert all(map(same, one, other))


@pytest.mark.parametrize("part", ["observations", "plain state", "actions"])
def test_each_check_of_a_replay_alone_refuses(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_walk, "REBUILT", frozenset(map(code_reach.name_of, (Compiled, World))))
    _, saved, _, _ = interrupted(Compiled)
    one = saved["open"][1]
    if part == "observations":
        one["told"] = "0" * 64
    elif part == "actions":
        one["actions"] = 1 - one["actions"]
    else:
        node = next(n for n in one["now"]["nodes"] if n.get("is") == "bits")
        node["of"]["state"]["state"] += 1
    fresh = EnvState(vectorised(Compiled))
    fresh.restore(saved)
    assert fresh.tier == "reset"
    assert fresh.unseen
    assert fresh.capture()["tier"] == "reset", "what failed once is not promised again"


def test_an_episode_longer_than_the_limit_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_episodes, "MAX_STEPS", 3)
    before = vectorised(Compiled)
    state = EnvState(before)
    played(before, 3, seed=1)
    assert state.capture()["tier"] == "unproven"
    played(before, 1)
    assert state.capture()["tier"] == "reset"
    played(before, 5)
    assert state.capture()["tier"] == "unproven", "the next episode is short again"


# -- any object -------------------------------------------------------------------------------------


class Node:
    """Parts of an object, in a ring."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.me = self


def test_an_object_but_for_some_attributes() -> None:
    one, other = Node([1, 2]), Node([])
    one.model = other.model = object()  # type: ignore[attr-defined]
    tree, unseen = plain_state.capture(one, skip={"model"})
    assert unseen == []
    kept, model = other.value, other.model  # type: ignore[attr-defined]
    assert plain_state.restore(other, through(tree), skip={"model"}) == []
    assert other.value == [1, 2]
    assert other.value is kept
    assert other.me is other
    assert other.model is model  # type: ignore[attr-defined]


def test_what_cannot_be_seen_has_a_name() -> None:
    _, unseen = plain_state.capture(Node([iter([])]))
    assert unseen == ["Node.value[] (list_iterator)"]


class Wrapping(type):
    """Makes classes that say no module, as SWIG does."""

    @property
    def __module__(cls) -> str:
        raise AttributeError("__module__")


class Wrapped(metaclass=Wrapping):
    pass


def test_an_object_of_a_class_without_a_module_is_named() -> None:
    _, unseen = plain_state.capture(Node([Wrapped()]))
    assert unseen == ["Node.value[] (Wrapped)"]


def test_a_large_array_that_did_not_change_is_not_saved_again() -> None:
    one = Node(np.arange(300_000.0))
    state = PlainState(one)
    assert not any(isinstance(n.get("of"), np.ndarray) for n in state.capture()["nodes"])
    tree = through(state.capture())
    assert PlainState(Node(np.arange(300_000.0))).restore(tree) == []
    with pytest.raises(StateError, match="large array"):
        PlainState(Node(np.zeros(300_000))).restore(tree)
    one.value[0] = 5.0
    changed = Node(np.arange(300_000.0))
    assert PlainState(changed).restore(through(state.capture())) == []
    assert changed.value[0] == 5.0


class Trap:
    """Tells if any of it was run; by something that is no part of its state."""

    def __init__(self) -> None:
        tell("__init__")

    def __del__(self) -> None:
        tell("__del__")

    def __setattr__(self, name: str, value: Any) -> None:
        tell("__setattr__")

    @property
    def level(self) -> int:
        tell("getter")
        return 1

    @level.setter
    def level(self, value: int) -> None:
        tell("setter")


def tell(what: str) -> None:
    warnings.warn(what, RuntimeWarning, stacklevel=1)


VIEW = {"is": "view", "base": [3], "offset": 0, "shape": [1], "strides": [8], "dtype": "<f8"}
ATTACKS: dict[str, Any] = {
    "no nodes": {},
    "text": "x",
    "no such node": {"nodes": [{"is": "object", "class": "NODE", "names": ["value"], "values": [[7]]}]},
    "a negative node": {"nodes": [{"is": "object", "class": "NODE", "names": ["value"], "values": [[-1]]}]},
    "an unknown kind": {"nodes": [{"is": "call", "of": "os.system"}]},
    "another root": {"nodes": [{"is": "list", "of": []}]},
    "a dunder": {"nodes": [{"is": "object", "class": "NODE", "names": ["__class__"], "values": [1]}]},
    "a class of a module": {"is": "object", "class": "subprocess.Popen", "names": [], "values": []},
    "a class with __del__": {"is": "object", "class": "multiprocessing.pool.Pool", "names": [], "values": []},
    "a class that is not loaded": {"is": "object", "class": "antigravity.X", "names": [], "values": []},
    "a function": {"is": "name", "of": "builtin_function_or_method posix.system"},
    "a module": {"is": "name", "of": "module os"},
    "a method": {"is": "method", "self": [0], "function": [0]},
    "a dunder method": {"is": "built-in method", "self": [2], "of": "__class__"},
    "a view outside": {
        "is": "view",
        "base": [3],
        "offset": 10**6,
        "shape": [9],
        "strides": [8],
        "dtype": "<f8",
    },
    "a view of objects": {
        "is": "view",
        "base": [3],
        "offset": 0,
        "shape": [1],
        "strides": [8],
        "dtype": "|O",
    },
    "an array of objects": {"is": "raw", "of": np.zeros(8, np.uint8), "dtype": "|O", "shape": [1]},
    "an absurd array": {"is": "objects", "shape": [10**12], "of": []},
    "itself in a tuple": {"is": "tuple", "of": [[1]]},
    "an unhashable key": {"is": "dict", "class": "dict", "of": [[2], 1]},
    "a generator of its own": {"is": "bits", "of": {"bit_generator": "os"}, "seed": None},
    "a huge seed": {"is": "bits", "of": {"bit_generator": "PCG64"}, "seed": [1, [], 10**9, 0]},
    "a number of no kind": {"is": "list", "of": [["|O", 1]]},
    "an outside name": {"outside": [["os:environ", 1]]},
    "an outside class": {"outside": [["builtins.int:x", 1]]},
    "an outside dunder": {"outside": [["tests.sb3.test_env_states.Node:__init__", 1]]},
    "an outside method": {"outside": [["tests.sb3.test_env_states.Held:run", 1]]},
}


class Held(Node):
    """The object that attacks are made on."""

    shared = 1

    def run(self) -> int:
        return self.shared


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_state_is_refused_and_runs_nothing(attack: str) -> None:
    name = code_reach.name_of(Held)
    tree = copy.deepcopy(ATTACKS[attack])
    root = {"is": "object", "class": name, "names": ["value"], "values": [[1]]}
    if isinstance(tree, dict) and "is" in tree:
        array = {"is": "array", "of": np.zeros(2), "order": "C", "read": False}
        tree = {"nodes": [root, tree, {"is": "list", "of": []}, array]}
    elif isinstance(tree, dict) and "outside" in tree:
        tree["nodes"] = [{**root, "values": [1]}]
    if isinstance(tree, dict) and "nodes" in tree:
        tree = {"outside": [], "constants": [], **tree}
        for node in tree["nodes"]:
            node.update({"class": name} if node.get("class") == "NODE" else {})
    with pytest.raises(StateError) as caught:
        plain_state.restore(Held(), tree)
    assert len(caught.value.message) < 300


@pytest.mark.filterwarnings("ignore:__del__")
def test_restoring_runs_no_methods() -> None:
    with pytest.warns(RuntimeWarning, match="__init__"):
        holder = Node(Trap())
    object.__getattribute__(holder.value, "__dict__").update(level=3, x=[1])
    tree = through(plain_state.capture(holder)[0])
    empty = Node()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain_state.restore(empty, tree)
    assert vars(empty.value) == {"level": 3, "x": [1]}
    del empty.value, holder.value, empty.me, holder.me


def test_a_state_is_not_changed_by_reading_it() -> None:
    gc.collect()
    env = strange.Kinds()
    env.reset(seed=1)
    before, _ = plain_state.capture(env)
    again, _ = plain_state.capture(env)
    assert plain_kinds.same(before, again)


# -- what code reaches -----------------------------------------------------------------------------


def test_state_captured_in_older_form_is_read() -> None:
    """Envs captured by their class: see tests/saves/test_checkpoint_rows.py for a whole checkpoint."""
    from arzbench.sb3 import env_state

    env = gym.make("CartPole-v1")
    saved = {
        "own": {"state": np.array([0.1, 0.2, 0.3, 0.4]), "steps_beyond_terminated": None},
        "wrappers": [
            {"kind": "TimeLimit", "_elapsed_steps": 7}, {"kind": "OrderEnforcing", "_has_reset": True},
            {"kind": "PassiveEnvChecker"},
        ],
        "random": None, "spaces": [None, None],
    }  # fmt: skip
    env_state.restore_earlier(env, saved)
    assert env.get_wrapper_attr("_elapsed_steps") == 7
    env.step(0)
    saved["own"] = {"__class__": 1}
    with pytest.raises(StateError):
        env_state.restore_earlier(env, saved)


def test_the_tiers_are_known() -> None:
    assert set(TIERS) == {"exact", "replay", "unproven", "reset"}
    assert msgspec.json.encode(TIERS)
