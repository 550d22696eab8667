"""What a run loads, and what it leaves unloaded until something asks for it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, environment, loaded

COMPILER_INSIDE = "torch._dynamo.eval_frame"
SHAPES_INSIDE = "torch._refs.linalg"
#: what the training stack loads in places where no training uses it
SPARED = {COMPILER_INSIDE, SHAPES_INSIDE, "sympy", "pandas", "matplotlib", "tensorboard", "scipy", "pygame"}
ALGORITHMS = {
    "dqn": ("CartPole-v1", "learning_starts=20", "train_freq=4"),
    "ppo": ("CartPole-v1", "n_steps=32", "batch_size=16"),
    "sac": ("Pendulum-v1", "learning_starts=20"),
}


def training(algorithm: str) -> list[str]:
    env, *changes = ALGORITHMS[algorithm]
    settings = ["total_timesteps=64", "evaluation.eval_freq=0", "baseline.episodes=0", *changes]
    sets = [word for change in settings for word in ("--set", change)]
    return ["run", "--env", env, "--algo", algorithm, *sets, "--timesteps", "64", "--fresh"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_training_with_updates_loads_nothing_it_does_not_use(algorithm: str, tmp_path: Path) -> None:
    """Nor is any of it loaded by the end: its time is spared, not put off."""
    modules, done = loaded("run", *training(algorithm), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"torch", "stable_baselines3", "torch._dynamo"} <= modules
    assert not modules & SPARED


def test_a_training_on_the_road_loads_nothing_of_numba_s_for_gpus(tmp_path: Path) -> None:
    study = ["--study", "incident", "--set", "baseline.episodes=0", "--set", "evaluation.eval_freq=0"]
    modules, done = loaded("run", "run", *study, "--timesteps", "24", "--fresh", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "numba" in modules
    assert not modules & {*SPARED, "numba.cuda", "numba_cuda"}


def run(code: str, *, defer: str = "COMPILER, *SHAPES", folder: Path = ROOT) -> Any:
    """What `code` puts into `answer`, in a fresh process, after names were deferred and torch imported."""
    text = (
        "import json, sys\n"
        f"from arzbench.sb3.deferred import *\ndefer({defer})\nimport torch\n"
        f"inside = lambda: sorted({{{COMPILER_INSIDE!r}, {SHAPES_INSIDE!r}}} & set(sys.modules))\n"
        f"answer = inside()\n{code}\nprint(json.dumps(answer))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


OPTIMIZE = """
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.Adam([weight], lr=0.1)
def update():
    optimizer.zero_grad()
    (weight ** 2).sum().backward()
    optimizer.step()
    return optimizer.state_dict()["param_groups"][0]["lr"], weight.tolist()
"""


def test_an_optimizer_steps_the_same_before_and_after_the_compiler_is_there() -> None:
    before, after = run(f"""{OPTIMIZE}
first = update(), inside()
torch._dynamo.config
second = update(), {COMPILER_INSIDE!r} in inside()
answer = first, second""")
    plain = run(f"{OPTIMIZE}\nanswer = update(), update()", defer="")
    assert before == [plain[0], []]
    assert after == [plain[1], True]


@pytest.mark.parametrize(
    "use",
    [
        "from torch._dynamo import config",
        "import torch._dynamo.config",
        "torch._dynamo.graph_break()",
        "torch._dynamo.disable(len)",
        "dir(torch._dynamo)",
        "torch._dynamo.mine = 1; assert torch._dynamo.mine == 1",
        "assert not hasattr(torch._dynamo, 'no_such_name')",
    ],
)
def test_the_compiler_is_the_real_one_for_whoever_uses_it(use: str) -> None:
    found = run(f"""{OPTIMIZE}
update()
{use}
import types
module = sys.modules["torch._dynamo"]
answer = [type(module) is types.ModuleType, torch._dynamo is module, type(module.__loader__).__name__,
          module.__spec__.loader is module.__loader__, callable(module.reset), *update()[1][:1]]""")
    assert found[:5] == [True, True, "SourceFileLoader", True, True], found


def test_a_compiled_function_still_leaves_an_optimizer_alone() -> None:
    """What was used before the compiler came is disabled for it afterwards."""
    counted = """
update()
def step(x):
    optimizer.zero_grad()
    return x + 1
seen = []
def backend(graph, inputs):
    seen.append(len(graph.graph.nodes))
    return graph.forward
answer = torch.compile(step, backend=backend)(torch.zeros(1)).tolist(), seen, weight.grad is None"""
    assert run(OPTIMIZE + counted) == run(OPTIMIZE + counted, defer="")


@pytest.mark.parametrize(
    "use",
    [
        "from torch._decomp import get_decompositions",
        "import torch._refs; torch._refs.add",
        "from torch.fx.experimental.proxy_tensor import make_fx; make_fx(lambda x: x + 1)(torch.ones(1))",
    ],
)
def test_shapes_are_complete_for_whoever_uses_a_part_of_them(use: str) -> None:
    shape = "torch.empty(3, 4, device='meta').cumsum(1).shape"
    assert run(f"{use}\nassert {SHAPES_INSIDE!r} in inside()\nanswer = list({shape})") == [3, 4]


def test_a_module_that_is_not_there_cannot_be_imported_and_one_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken_module.py").write_text("import sys\n1 / 0\n")
    code = """
try:
    import no_such_module
except ModuleNotFoundError as error:
    answer = [str(error)]
import broken_module
try:
    broken_module.anything
except ZeroDivisionError:
    answer += [type(sys.modules.get("broken_module")).__name__]
answer += [len([f for f in sys.meta_path if type(f).__module__ == "arzbench.sb3.deferred"])]
"""
    answer = run(code, defer="'no_such_module', 'broken_module'", folder=tmp_path)
    assert answer == ["No module named 'no_such_module'", "NoneType", 0]


def test_a_module_loaded_before_is_left_alone() -> None:
    assert run("answer = type(json).__name__", defer="'json'") == "module"


GARBAGE = """
import gc, msgspec
from arzbench.sb3.loading import load
from arzbench.study import AnyConfig
from tests.sb3.controls import Log
if sys.argv[1] == "never":
    gc.disable()
study = {"algo": "ppo", "env": "CartPole-v1", "total_timesteps": 16, "n_steps": 16, "batch_size": 16}
config = msgspec.convert(study, AnyConfig)
load([config])
from arzbench.sb3.workload import SB3Workload
workload = SB3Workload()
workload.check(config)
before = gc.isenabled()
workload.create(config, Log())
print(before, gc.isenabled())
"""


@pytest.mark.parametrize(("asked", "printed"), [("as usual", "False True"), ("never", "False False")])
def test_garbage_is_collected_from_the_training_on(asked: str, printed: str) -> None:
    words = [sys.executable, "-c", "import sys" + GARBAGE, asked]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.stdout == f"{printed}\n", done.stderr


def test_garbage_is_collected_in_any_other_command(tmp_path: Path) -> None:
    code = (
        "import atexit, gc, sys\n"
        "sys.argv = ['arzbench', 'report']\n"
        "atexit.register(lambda: print(gc.isenabled()))\n"
        "from arzbench.__main__ import main\nmain()"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "True\n"), done.stderr


SHAPES_FOR_USERS = """
import msgspec
from arzbench.sb3.loading import load
from arzbench.study import AnyConfig
study = {"algo": "ppo", "total_timesteps": 16, "n_steps": 16, "batch_size": 16, **json.loads(sys.argv[1])}
load([msgspec.convert(study, AnyConfig)])
import torch
print("torch._refs.linalg" in sys.modules, "torch._dynamo.eval_frame" in sys.modules)
"""


@pytest.mark.parametrize(
    ("study", "shapes"),
    [
        ({"env": "CartPole-v1"}, False),
        ({"env": "arzbench/TrafficLight-v0"}, False),
        ({"env": "tests.odd_envs:NoSuchEnv"}, True),
        ({"env": "CartPole-v1", "policy": "mine:Policy"}, True),
        ({"env": "CartPole-v1", "wrappers": ["gymnasium.wrappers:FlattenObservation"]}, True),
        ({"env": "CartPole-v1", "policy_kwargs": {"activation_fn": "torch.nn:ELU"}}, True),
    ],
)
def test_code_of_others_finds_all_of_torch_but_its_compiler(study: dict[str, Any], shapes: bool) -> None:
    if "policy_kwargs" in study:
        study = {"env": study["env"], "hyperparameters": {"policy_kwargs": study["policy_kwargs"]}}
    done = subprocess.run(
        [sys.executable, "-c", "import json, sys" + SHAPES_FOR_USERS, json.dumps(study)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(shapes), "False"]
