"""Two stacks that never see each other: what costs loads nothing of what runs.

`lint-imports` checks the same on the source; here it is what a fresh interpreter really loads.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, TRAINING_PACKAGES, loaded

TRAINING_STACK = ("arzbench.traffic", "arzbench.sb3", "arzbench.wiring.learning", "arzbench.wiring.scripts")
CONTRACT = {"arzbench.traffic.bench.record"}


def light_modules() -> list[str]:
    """Every module of the package but those of the training stack and `__main__`."""
    files = sorted((ROOT / "arzbench").rglob("*.py"))
    dotted = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    names = [name.removesuffix(".__init__") for name in dotted if not name.endswith(".__main__")]
    return [name for name in names if name in CONTRACT or not name.startswith(TRAINING_STACK)]


def test_modules_of_the_cost_stack_load_no_training_package(tmp_path: Path) -> None:
    modules, done = loaded("import", *light_modules(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "arzbench.cli" in modules
    assert not modules & TRAINING_PACKAGES


@pytest.mark.parametrize(
    ("command", "code"),
    [("--help", 0), ("calibrate --help", 0), ("run --help", 0), ("plan", 2), ("report", 2)],
)
def test_help_and_light_commands_load_no_training_package(command: str, code: int, tmp_path: Path) -> None:
    """In an empty folder plan and report end with an error about files: they have loaded what they need."""
    modules, done = loaded("run", *command.split(), folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Usage" in done.stdout or code
    assert "Traceback" not in done.stderr
    assert not modules & TRAINING_PACKAGES
    if command == "--help":
        assert not {name for name in modules if name.startswith("arzbench.commands")}


TRAIN_CARTPOLE = """
import sys
import msgspec
from arzbench.sb3 import held_out
from arzbench.sb3.workload import SB3Workload
from arzbench.study import AnyConfig
from tests.sb3.controls import Free, Log

study = {"algo": "ppo", "env": "CartPole-v1", "total_timesteps": 16, "n_steps": 16, "batch_size": 16}
training = SB3Workload().create(msgspec.convert(study, AnyConfig), Log())
training.run(Free())
episodes = held_out.HeldOutEpisodes(training.config, 2)
assert episodes.baselines == ("random",)
assert training.num_timesteps == 16, episodes.play_model(training.model)
print(sorted({"numba", "arzbench.traffic.physics"} & set(sys.modules)))
"""


def test_training_and_comparing_another_env_loads_no_traffic_engine() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_CARTPOLE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
