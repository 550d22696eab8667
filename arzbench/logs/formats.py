"""Detects the format of a log and reads the times of its lines (docs/reference/log-formats.md)."""

from __future__ import annotations

import datetime
import itertools
import json
import re
from enum import StrEnum
from typing import Any

from arzbench.errors import UsageError


class Format(StrEnum):
    """A log format; the value is the name shown."""

    TAIL = "Kaggle text tail"
    KAGGLE = "Kaggle JSON stream"
    JSONL = "JSON lines"
    LOGGING = "Python logging"
    SB3 = "Stable-Baselines3 tables"
    TIMED = "plain text with timestamps"
    PLAIN = "plain text"
    PATTERN = "as the pattern says"


TAIL = re.compile(rb"(\d+(?:\.(\d+))?)s \d+(?: |$)")
DATE = re.compile(
    r"(?P<Y>\d{4})[-/](?P<m>\d\d)[-/](?P<d>\d\d)[T ]"
    r"(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)(?:[.,](?P<f>\d{1,9}))?"
)
CLOCK = re.compile(r"^\W{0,2}(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)(?:[.,](?P<f>\d{1,9}))?")
SECONDS = re.compile(r"^\[?\s*(\d+\.\d+)\s?(?:s\b|\])")
LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
#: "2025-10-16 06:38:22,123 - INFO - name:12 - text" and "INFO:name:text"
RECORD = re.compile(
    r"(?:^|\s|[|:\]-])(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\s?[|:\]-]+\s*(?P<name>[\w.]+)(?::\d+)?\s*[:|\]-]"
)
TABLE = re.compile(r"^\| +([\w/ .]+?) +\| +(\S.*?) +\|$")
_OBJECT = re.compile(rb'\{(?:[^"{}]|"(?:[^"\\]|\\.)*+")*+\}', re.S)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{0,15})?")
#: bytes of the longest record
_MAX_OBJECT = 1 << 22
#: seconds above this are since 1970
_EPOCH = 1e8

TIME_KEYS = ("time", "elapsed", "elapsed_s", "timestamp", "ts", "asctime", "@timestamp", "datetime")
TEXT_KEYS = ("message", "msg", "event", "text", "data")


def is_stream(start: bytes) -> bool:
    """Return whether `start` begins Kaggle's JSON, whose lines may be of any length."""
    head = start.lstrip()[:4096]
    return re.match(rb'\[?\s{0,9}\{\s{0,9}"', head) is not None and b'"stream_name"' in head


def detect(block: bytes) -> Format:
    """Return the format of the log that begins with `block`."""
    start = block[:65536]
    if is_stream(start):
        return Format.KAGGLE
    lines = [line for line in start.split(b"\n")[:400] if line.strip()]
    if not lines:
        return Format.PLAIN
    if sum(bool(TAIL.match(line)) for line in lines) * 2 > len(lines):
        return Format.TAIL
    if sum(line.startswith(b"{") and _object(line) is not None for line in lines) * 2 > len(lines):
        return Format.JSONL
    texts = [line.decode(errors="replace") for line in lines]
    if sum(bool(RECORD.search(text[:120])) for text in texts) * 3 > len(texts):
        return Format.LOGGING
    if sum(bool(TABLE.match(text.strip())) for text in texts) * 3 > len(texts):
        return Format.SB3
    if sum(time_of(text) is not None for text in texts) * 3 > len(texts):
        return Format.TIMED
    return Format.PLAIN


def time_of(text: str) -> float | None:
    """Return the time at the head of a line, in seconds since some origin of the whole log."""
    head = text[:64]
    if (match := DATE.search(head)) is not None:
        try:
            date = datetime.datetime(*(int(match[k]) for k in "YmdHMS"))  # type: ignore[arg-type]
        except ValueError:
            return None
        return (date - datetime.datetime(1970, 1, 1)).total_seconds() + _fraction(match["f"])
    if (match := CLOCK.match(head)) is not None:
        hours, minutes, seconds = (int(match[k]) for k in "HMS")
        return hours * 3600 + minutes * 60 + seconds + _fraction(match["f"])
    match = SECONDS.match(head)
    return float(match[1]) if match is not None else None


class Stamps:
    """Reads times at the heads of lines; a clock that jumps back begins a new day."""

    def __init__(self, pattern: re.Pattern[str] | None = None) -> None:
        self._pattern = pattern if pattern is not None and "time" in pattern.groupindex else None
        self._origin: float | None = None
        self._last = 0.0
        self._days = 0.0

    def read(self, text: str) -> float | None:
        """Return the seconds since the first time of the log."""
        if self._pattern is not None:
            match = self._pattern.search(text)
            text = (match["time"] or "") if match is not None else ""
            seconds = float(text) if _NUMBER.fullmatch(text) else time_of(text)
        else:
            seconds = time_of(text)
        if seconds is None:
            return None
        if self._origin is None:
            self._origin = seconds if seconds > _EPOCH or CLOCK.match(text) else 0.0
        seconds += self._days - self._origin
        if CLOCK.match(text) and seconds < self._last - 43_200:
            self._days += 86_400
            seconds += 86_400
        self._last = seconds
        return seconds


def _fraction(digits: str | None) -> float:
    return float("0." + digits) if digits else 0.0


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a user's pattern of a line, with some of the groups `message`, `time`, `tag`, `step`, `t`.

    Raises:
        UsageError: it is no regular expression, or has none of those groups.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--pattern {pattern!r}: {error}", "it is a Python regular expression") from error
    if not {"message", "time", "tag", "step", "t"} & compiled.groupindex.keys():
        raise UsageError(
            f"--pattern {pattern!r} has no named group that is known",
            r"name what it finds: (?P<time>...) (?P<tag>...) (?P<message>...) (?P<step>...) (?P<t>...)",
        )
    return compiled


class Json:
    """Converts a stream of JSON to lines of the text tail, `<t>s <n> <message>`."""

    def __init__(self, kind: Format) -> None:
        self.damaged = 0  # places that could not be read
        self.closed = False  # the array's end was seen
        self._kind = kind
        self._rest = b""
        self._number = itertools.count(1)
        self._time = 0.0
        self._origin: float | None = None

    def convert(self, block: bytes) -> bytes:
        """Return the records that `block` completes, as lines of the tail format."""
        out: list[bytes] = []
        if self._kind is Format.JSONL:
            for line in block.splitlines():
                self._take(line, out)
        else:
            self._rest = self._objects(self._rest + block, out)
        return b"".join(out)

    def finish(self) -> None:
        """Check what is left at the end of the stream."""
        self.closed = self._rest.strip().endswith(b"]")
        self._between(self._rest)
        self._rest = b""

    def _objects(self, data: bytes, out: list[bytes]) -> bytes:
        """Convert the whole objects in `data`; return what follows them."""
        end = 0
        for match in _OBJECT.finditer(data):
            self._between(data[end : match.start()])
            end = match.end()
            self._take(match[0], out)
        if len(data) - end > _MAX_OBJECT:  # no object is that long: go on behind what is damaged
            self.damaged += 1
            end = len(data)
        return data[end:]

    def _between(self, gap: bytes) -> None:
        """Count anything but a comma between two objects as damage."""
        if gap.strip(b" \t\r\n,[]\x00"):
            self.damaged += 1

    def _take(self, text: bytes, out: list[bytes]) -> None:
        entry = _object(text)
        if entry is None:
            if self._kind is Format.JSONL:  # plain text among the records
                self._write(text.decode(errors="replace"), out)
            else:
                self.damaged += 1
            return
        if self._kind is Format.KAGGLE:
            self._set_time(entry.get("time"))
            message = str(entry.get("data", ""))
        else:
            self._set_time(next((entry[k] for k in TIME_KEYS if k in entry), None))
            message = described(entry)
        self._write(message, out)

    def _set_time(self, time: object) -> None:
        """Set the time of the next lines; dates and seconds since 1970 count from the first."""
        seconds = time_of(time) if isinstance(time, str) else time
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not abs(seconds) < 1e15:
            return
        if self._origin is None:
            self._origin = float(seconds) if seconds > _EPOCH or isinstance(time, str) else 0.0
        self._time = max(0.0, float(seconds) - self._origin)

    def _write(self, message: str, out: list[bytes]) -> None:
        for line in message.removesuffix("\n").split("\n"):
            text = line.encode(errors="replace")
            out.append(b"%.9fs %d %s\n" % (self._time, next(self._number), text))


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def described(entry: dict[str, Any]) -> str:
    """Return a JSON record as one line of text: its message, then its numbers as `key=value`."""
    text = next((str(entry[k]) for k in TEXT_KEYS if k in entry), "")
    level = entry.get("level") or entry.get("levelname")
    numbers = [
        f"{k}={v}"
        for k, v in entry.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and k not in TIME_KEYS
    ]
    return " ".join(filter(None, [str(level) if level else "", text, *numbers]))
