"""DQN in one file, in the style of CleanRL, under a quota. A unit is an episode: no env has to be saved.

python examples/cleanrl_dqn.py --quota 60s      # exit code 4: more to do, the same command goes on
"""

import argparse
from pathlib import Path

import gymnasium as gym
import torch
from torch import nn

import arzbench

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quota", help="for example 12h; none without")
parser.add_argument("--folder", default="runs/cleanrl_dqn")
parser.add_argument("--episodes", type=int, default=400)
parser.add_argument("--save-every", default="10m")
parser.add_argument("--seed", type=int, default=1)
options = parser.parse_args()

LEARNING_RATE, GAMMA, BATCH, ROWS, LEARNING_STARTS, TARGET_EVERY = 1e-3, 0.99, 64, 20_000, 500, 250

torch.set_num_threads(1)
torch.manual_seed(options.seed)
env = gym.make("CartPole-v1")
q_network, target_network = (
    nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    for _ in range(2)
)
target_network.load_state_dict(q_network.state_dict())
optimizer = torch.optim.Adam(q_network.parameters(), lr=LEARNING_RATE)
replay = {
    "observation": torch.zeros(ROWS, 4),
    "next_observation": torch.zeros(ROWS, 4),
    "action": torch.zeros(ROWS, 1, dtype=torch.int64),
    "reward": torch.zeros(ROWS),
    "terminated": torch.zeros(ROWS),
}
step = 0


def save(folder: Path) -> None:
    state = {
        "q_network": q_network.state_dict(),
        "target_network": target_network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "replay": replay,
        "step": step,
        "generator": torch.get_rng_state(),
    }
    torch.save(state, folder / "dqn.pt")


def restore(folder: Path) -> None:
    global step
    state = torch.load(folder / "dqn.pt", weights_only=True)
    q_network.load_state_dict(state["q_network"])
    target_network.load_state_dict(state["target_network"])
    optimizer.load_state_dict(state["optimizer"])
    replay.update(state["replay"])
    step = state["step"]
    torch.set_rng_state(state["generator"])


def act(observation: torch.Tensor, episode: int) -> int:
    epsilon = max(0.05, 1 - episode / (0.25 * options.episodes))
    if torch.rand(()) < epsilon:
        return int(torch.randint(2, ()))
    with torch.no_grad():
        return int(q_network(observation).argmax())


def learn() -> None:
    rows = torch.randint(min(step, ROWS), (BATCH,))
    batch = {name: values[rows] for name, values in replay.items()}
    with torch.no_grad():
        best = target_network(batch["next_observation"]).max(dim=1).values
        target = batch["reward"] + GAMMA * best * (1 - batch["terminated"])
    value = q_network(batch["observation"]).gather(1, batch["action"]).squeeze(1)
    optimizer.zero_grad()
    nn.functional.smooth_l1_loss(value, target).backward()
    optimizer.step()
    if step % TARGET_EVERY == 0:
        target_network.load_state_dict(q_network.state_dict())


def play_and_learn(episode: int) -> float:
    global step
    total, over = 0.0, False
    observation = torch.as_tensor(env.reset(seed=options.seed + episode)[0])
    while not over:
        action = act(observation, episode)
        after, reward, terminated, truncated, _ = env.step(action)
        transition = (observation, torch.as_tensor(after), action, float(reward), float(terminated))
        for values, value in zip(replay.values(), transition, strict=True):
            values[step % ROWS] = value
        observation, over = transition[1], terminated or truncated
        total += float(reward)
        step += 1
        if step >= LEARNING_STARTS:
            learn()
    return total


with arzbench.Session(
    options.quota, folder=options.folder, save=save, restore=restore, save_every=options.save_every
) as session:
    for episode in session.units("episode", total=options.episodes):
        episode_return = play_and_learn(episode)
        print(f"episode {episode}: return {episode_return:.0f}")

session.leave()  # at once: exit code 0 finished, 4 more to do
