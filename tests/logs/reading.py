"""Reads a log from bytes, as tests need it."""

import io
from typing import Any

from arzbench.logs.analyze import read_log
from arzbench.logs.findings import LogReport, Options
from arzbench.logs.source import BLOCK, Source


def report(data: bytes, *, block: int = BLOCK, **options: Any) -> LogReport:
    return read_log(Source("log", io.BytesIO(data), block=block), Options(**options))


def tags(found: LogReport) -> dict[str, int]:
    return {t.tag: t.lines for t in found.tags}
