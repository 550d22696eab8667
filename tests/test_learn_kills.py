"""Scripts that train a model of their own, killed with SIGKILL twice: the library's own bits."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("own_ppo", "qrdqn", "her", "ars")


def test_killed_twice_and_started_again_it_is_the_library_s_own_training(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "scripts" / "learn_kills.py"), "--out", str(tmp_path / "out")]
    counts = ["--times", "1", "--commands", "0", "--models", *MODELS]
    done = subprocess.run([*program, *counts], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["good"] is True
    assert found["kills"] == 2 * len(MODELS)
    assert found["killed and resumed, everything as by the library's own learn"] == "4 of 4"
    assert found["unreadable states after them"] == 0


def test_the_python_api_leaves_the_random_generator_as_the_script_seeded_it() -> None:
    for name in ("learn", "BudgetCallback", "Session"):
        code = f"import random, arzbench; random.seed(5); arzbench.{name}; print(random.getrandbits(64))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seeded = [sys.executable, "-c", "import random; random.seed(5); print(random.getrandbits(64))"]
        assert done.stdout == subprocess.run(seeded, capture_output=True, text=True).stdout
