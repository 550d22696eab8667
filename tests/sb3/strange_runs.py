"""Trains the strange envs in a process of its own: `python -m tests.sb3.strange_runs begin|resume FOLDER`.

`begin` saves each training midway through an episode and trains on; `resume` trains on from what was saved.
Both write down how the rest went.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from arzbench.sb3 import workload
from arzbench.training_state import TrainingState
from tests.saves.states import header, opened
from tests.sb3 import strange_envs
from tests.sb3.controls import Free, config, start

HALF, WHOLE = 34, 80
ENVS = {**strange_envs.EXACT, **strange_envs.ANY}
CASES = [*ENVS, *strange_envs.AROUND]


class Save(Free):
    """Saves once, and remembers the episodes that end after that."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder = folder
        self.tier, self.unseen = "", []

    def before_step(self, training: Any, updates: int) -> None:
        super().before_step(training, updates)
        if self.folder is not None and training.num_timesteps >= HALF and not self.tier:
            self.episodes.clear()
            state = training.capture()
            self.tier, self.unseen = state.tier, training.state.env_state.unseen
            opened(self.folder).save(state, header(HALF))


def train(name: str, folder: Path, state: TrainingState | None) -> dict[str, Any]:
    around = strange_envs.AROUND.get(name)
    workload.DummyVecEnv = DummyVecEnv if around is None else lambda fns: around(DummyVecEnv(fns))
    env = f"strange/{name if around is None else 'Growing'}-v0"
    study = config("dqn", env=env, n_envs=2, total_timesteps=WHOLE, learning_starts=10, batch_size=8, seed=3)
    training, _ = start(study, state)
    control = Save(folder if state is None else None)
    training.run(control)
    result = {
        "weights": training.fingerprint()["weights"],
        "episodes": control.episodes,
        "tier": control.tier if state is None else training.resumed,
        "unseen": control.unseen if state is None else training.unseen,
    }
    training.close()
    return result


def main(stage: str, folder: Path) -> None:
    th.set_num_threads(1)
    for name, make in ENVS.items():
        gym.register(f"strange/{name}-v0", entry_point=make)
    results = {}
    for name in CASES:
        place, state = folder / name, None
        if stage == "resume":
            found = opened(place).newest("study-1")
            assert found is not None
            state = found.load()
        results[name] = train(name, place, state)
    (folder / f"{stage}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
