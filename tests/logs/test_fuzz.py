"""10,000 mutations of every kind of log: a result or one clear error, never a traceback."""

import contextlib
import random

import pytest

from arzbench.errors import ArzbenchError
from tests.logs.reading import SB3, STEPS, kaggle, report, tail

BAR = "x\r 50%|##  | 3/6 [00:01<00:02, 3s/it]\x1b[A"
CLOCKED = b"12:30:59 episode 3 length 240\n[  1.5] Eval num_timesteps=1000, episode_reward=3\n"
RECORD = b"2025-10-16 06:38:22,123 - INFO - name:12 - step 1\n"
SEEDS = {
    "tail": tail("Training started", *STEPS[:6], BAR, "Traceback (most recent call last):"),
    "kaggle": kaggle("Dependencies installed", *STEPS[:4], "[NbConvertApp] Writing 5 bytes"),
    "jsonl": b'{"ts": 1.5, "msg": "a", "step": 1}\n{"time": "12:00:01", "step": 3}\n',
    "logging": RECORD + RECORD.replace(b"1\n", b"2/10\n"),
    "sb3": (SB3.format(960, 8) + SB3.format(1920, 16)).encode(),
    "plain": CLOCKED + b"epoch 1/10\n",
}
PIECES = [
    *(b"\x00", b"\xff\xfe", b"\n", b"\r", b"\x1b[A", b"{", b"}", b'"', b"\\", b"[", b"]", b",", b"s "),
    *(b"1e999", b"step=99999999999999999999", b"\xe2\x96", b"nan", b"-1", b"9" * 400, b"t=1e5", b" " * 70),
    *(b"%|", b"9999-99-99 99:99:99"),
]


def mutated(seed: bytes, rng: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            data[at:at] = rng.choice(PIECES)
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 3:
            data[at:at] = data[: rng.randrange(len(data) + 1)]
            del data[4000:]
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", SEEDS)
def test_no_mutation_breaks_it(name: str) -> None:
    rng = random.Random(name)
    for _ in range(1 + 10_000 // len(SEEDS)):
        data = mutated(SEEDS[name], rng)
        with contextlib.suppress(ArzbenchError):
            found = report(
                data, block=rng.choice([64, 500, 1 << 20]), limits=(("a limit", 10.0),), quota_s=9.0
            )
            assert sum(t.lines for t in found.tags) == found.lines
