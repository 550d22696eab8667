"""Two stacks that never see each other: what costs loads nothing of what runs.

`lint-imports` checks the same on the source; here it is what a fresh interpreter really loads.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from arzbench.cli import app

ROOT = Path(__file__).resolve().parent.parent
TRAINING_PACKAGES = {"torch", "numba", "gymnasium", "stable_baselines3"}
TRAINING_STACK = ("arzbench.traffic", "arzbench.sb3")
CONTRACT = {"arzbench.traffic.bench.record"}
COMMANDS = [name for name in typer.main.get_command(app).commands if not name.startswith("_")]

# Runs one command, or imports one list of modules, and tells what was loaded by the end.
PROBE = """
import atexit, json, runpy, sys
from pathlib import Path
kind, out, *rest = sys.argv[1:]
atexit.register(lambda: Path(out).write_text(json.dumps(sorted(sys.modules))))
if kind == "import":
    for name in rest:
        __import__(name)
else:
    sys.argv = ["arzbench", *rest]
    runpy.run_module("arzbench", run_name="__main__")
"""


def loaded(kind: str, *arguments: str, folder: Path) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """The modules a fresh interpreter holds after one command (or import), and how it ended."""
    out = folder / "modules.json"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, kind, str(out), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    return set(json.loads(out.read_text())), done


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


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_no_training_package(command: str, tmp_path: Path) -> None:
    modules, done = loaded("run", *filter(None, [command]), "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert not modules & TRAINING_PACKAGES


@pytest.mark.parametrize("command", ["plan", "report"])
def test_light_commands_load_no_training_package(command: str, tmp_path: Path) -> None:
    """In an empty folder both end with an error that is about files, and have loaded what they need."""
    modules, done = loaded("run", command, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not modules & TRAINING_PACKAGES
