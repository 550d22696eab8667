"""A plain PyTorch loop under a quota: stopped in time, killed, started again, it ends with the same weights.

python examples/torch_loop.py --quota 30s       # exit code 4: more to do, the same command goes on
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import arzbench

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quota", help="for example 12h; none without")
parser.add_argument("--folder", default="runs/torch_loop")
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--save-every", default="10m")
options = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(1)
inputs = torch.rand(2048, 2) * 4 - 2
targets = torch.sin(3 * inputs[:, :1]) * inputs[:, 1:]
model = nn.Sequential(
    nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Dropout(0.1), nn.Linear(64, 1)
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=options.epochs)


def save(folder: Path) -> None:
    state = {part: globals()[part].state_dict() for part in ("model", "optimizer", "schedule")}
    torch.save({**state, "generator": torch.get_rng_state()}, folder / "training.pt")


def restore(folder: Path) -> None:
    state = torch.load(folder / "training.pt", weights_only=True)
    for part in ("model", "optimizer", "schedule"):
        globals()[part].load_state_dict(state[part])
    torch.set_rng_state(state["generator"])


def train_one_epoch() -> float:
    for rows in torch.randperm(len(inputs)).split(64):
        loss = nn.functional.mse_loss(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
    return loss.item()


with arzbench.Session(
    options.quota, folder=options.folder, save=save, restore=restore, save_every=options.save_every
) as session:
    for epoch in session.units("epoch", total=options.epochs):
        loss = train_one_epoch()
        print(f"epoch {epoch}: loss {loss:.4f}")

session.leave()  # at once: exit code 0 finished, 4 more to do
