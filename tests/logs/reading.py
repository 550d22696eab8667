"""Small logs, and what is read from them."""

import io
import json
from typing import Any

from arzbench.logs.analyze import read_log
from arzbench.logs.findings import LogContext, LogReport
from arzbench.logs.source import BLOCK, Source

SB3 = """---------------------------------
| rollout/            |          |
|    ep_len_mean      | 240      |
| time/               |          |
|    fps              | 120      |
|    time_elapsed     | {1}        |
|    total_timesteps  | {0}      |
---------------------------------
"""
STEPS = [f"[A] step={i} t={15.0 * i}s" for i in range(1, 41)]


def tail(*messages: str, step_s: float = 0.5) -> bytes:
    return "".join(f"{i * step_s:.1f}s {i} {m}\n" for i, m in enumerate(messages, 1)).encode()


def kaggle(*messages: str) -> bytes:
    entries = (
        json.dumps({"stream_name": "stdout", "time": 0.5 * i, "data": m + "\n"})
        for i, m in enumerate(messages, 1)
    )
    return ("[" + "\n,".join(entries) + "\n]").encode()


def report(data: bytes, *, block: int = BLOCK, **options: Any) -> LogReport:
    return read_log(Source("log", io.BytesIO(data), block=block), LogContext(**options))


def tags(found: LogReport) -> dict[str, int]:
    return {t.tag: t.lines for t in found.tags}
