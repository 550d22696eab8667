"""A busy process: arithmetic and memory traffic without end, as another user of the machine makes.

Run as a process of its own; it ends with the process that started it.
"""

from __future__ import annotations

import os

import numpy as np


def keep_busy() -> None:
    """Multiply small matrices and stream through 32 MB until the parent process is gone."""
    parent = os.getppid()
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((160, 160)))[0]  # never overflows
    matrix, stream = turn, np.zeros(4_000_000)
    while os.getppid() == parent:
        for _ in range(20):
            matrix = matrix @ turn
        stream += 1.0


if __name__ == "__main__":
    keep_busy()
