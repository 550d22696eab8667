"""Scans whole blocks of a log at once: lines are sorted into classes by how they begin.

Lines of a flood begin alike. NumPy counts them by their first bytes (all digits alike), and only lines of
classes that carry facts are parsed one by one. Memory does not grow with the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from arzbench.logs.events import MAX_TEXT, Facts, facts_of_match, is_bar, parse_message, tag_of, visible
from arzbench.logs.formats import TAIL, Stamps

Bytes = NDArray[np.uint8]
Index = NDArray[np.intp]

#: first bytes of a message, which decide its class
_KEY = 32
#: first bytes of a line, which hold the time and number of the tail format
_HEAD = 40
#: a class is skipped once so many of its lines had no facts
_TRIES = 64
#: lines of one class that are parsed in one block
_MAX_PARSED = 1500
#: classes and tags told apart
_MAX_CLASSES = 20_000
_MAX_TAGS = 400
_OTHER = "(other)"
_PRIMES = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64
)
_MASK = np.arange(256, dtype=np.uint8)
_MASK[ord("0") : ord("9") + 1] = ord("0")
_DATED = int.from_bytes(b"0000-00-", "little")
_DATE_BYTES = 19


@dataclass(slots=True)
class Tag:
    """The messages under one tag."""

    lines: int = 0
    bytes: int = 0
    example: str = ""
    calls: int = 0  # the largest "[Call #N]" of a periodic message


@dataclass(slots=True)
class Message:
    """A message with facts in it."""

    facts: Facts
    text: str
    tag: str
    time: float | None
    row: int  # lines before it, as a terminal counts them: a carriage return begins one too
    offset: int  # bytes before it


@dataclass(slots=True)
class _Class:
    """Lines that begin alike."""

    tag: str
    parsed: int = 0
    has_facts: bool = False
    skipped: bool = False


@dataclass(slots=True)
class Scanner:
    """Counts lines and tags, and yields the messages with facts in them."""

    numbered: bool  # `<t>s <n> <message>`
    pattern: re.Pattern[str] | None = None  # a user's, of a line
    stamps: Stamps = field(default_factory=Stamps)  # of lines that are not numbered
    lines: int = 0
    rows: int = 0
    size: int = 0  # in bytes
    unnumbered: int = 0
    unfinished: str | None = None
    tags: dict[str, Tag] = field(default_factory=dict)
    first_time: float | None = None
    last_time: float | None = None
    resolution_s: float = 0.0
    #: (seconds, lines, bytes) in the course of the log
    course: list[tuple[float, int, int]] = field(default_factory=list)
    _classes: dict[int, _Class] = field(default_factory=dict)

    def feed(self, block: bytes) -> Iterator[Message]:
        """Count whole lines (the last one may lack its end) and yield the messages with facts."""
        if not block:
            return
        if not block.endswith(b"\n"):
            block, unfinished = self._set_aside(block)
            if unfinished or not block:
                return
        data = np.frombuffer(block + bytes(_HEAD + _KEY + _DATE_BYTES), np.uint8)
        text = data[: len(block)]
        ends: Index = np.flatnonzero(text == 10)
        starts: Index = np.empty_like(ends)
        starts[0], starts[1:] = 0, ends[:-1] + 1
        heads, valid = self._heads(data, starts, ends) if self.numbered else (starts, None)
        returns: Index = np.flatnonzero((text[:-1] == 13) & (text[1:] != 10))
        keys = _keys(data, heads, ends)
        kinds, first, inverse, counts = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        sizes = np.bincount(inverse, weights=ends - starts + 1).astype(np.intp)
        lines = _Block(block, starts, ends, heads, valid, returns, self.stamps)
        classes = self._count(lines, kinds, first, counts, sizes)
        self._note_times(lines)
        for index in _lines_to_parse(classes, inverse, counts):
            message = self._parse(lines, int(index), classes[inverse[index]])
            if message is not None:
                yield message
        self.lines += len(ends)
        self.rows += len(ends) + len(returns)
        self.size += len(block)

    def _set_aside(self, block: bytes) -> tuple[bytes, bool]:
        """End the last line, unless it is a bar cut off while drawn: (block, whether it was set aside)."""
        text = block.decode(errors="replace")
        if "\n" in text or not is_bar(text):
            return block + b"\n", False
        if self.numbered and (match := TAIL.match(block)) is not None:
            self._note_time(float(match[1]), self.lines, self.size)
            text = text[match.end() :]
        self.unfinished = visible(text)
        self.size += len(block)
        return b"", True

    def _heads(self, data: Bytes, starts: Index, ends: Index) -> tuple[Index, NDArray[np.bool_]]:
        """(where the messages begin: behind the second space of the line; which lines are numbered)."""
        windows = np.lib.stride_tricks.sliding_window_view(data, _HEAD)[starts]
        spaces = windows == 32
        rows = np.arange(len(starts))
        one = spaces.argmax(axis=1)
        spaces[rows, one] = False
        two = spaces.argmax(axis=1)
        # a line may end right behind its number
        heads = np.minimum(starts + two + 1, ends)
        bare = (two == 0) | (starts + two > ends)
        digits = (windows[:, 0] >= 48) & (windows[:, 0] <= 57)
        valid = digits & (windows[rows, one - 1] == ord("s")) & (one > 1) & (starts + one < ends)
        after = windows[rows, np.minimum(one + 1, _HEAD - 1)]
        valid &= (after >= 48) & (after <= 57)
        heads = np.where(bare, ends, heads)
        heads = np.where(valid, heads, starts)
        self.unnumbered += int(np.count_nonzero(~valid))
        return heads, valid

    def _count(
        self,
        lines: _Block,
        kinds: NDArray[np.uint64],
        first: Index,
        counts: Index,
        sizes: Index,
    ) -> list[_Class]:
        """Count lines under their tags; return the class of each kind of line, new ones included."""
        classes = []
        columns = (kinds.tolist(), first.tolist(), counts.tolist(), sizes.tolist())
        for kind, index, count, size in zip(*columns, strict=True):
            line_class = self._classes.get(kind)
            if line_class is None:
                line_class = _Class(self._tag(lines.text(index)))
                if len(self._classes) < _MAX_CLASSES:
                    self._classes[kind] = line_class
            tag = self.tags[line_class.tag]
            tag.lines += count
            tag.bytes += int(size)
            classes.append(line_class)
        return classes

    def _tag(self, text: str) -> str:
        """Return the tag of a message; make a new one while there are few."""
        match = self.pattern.search(text) if self.pattern is not None else None
        name = (match.groupdict().get("tag") if match is not None else None) or tag_of(text)
        if name not in self.tags:
            if len(self.tags) >= _MAX_TAGS:
                name = _OTHER
            self.tags.setdefault(name, Tag(example=visible(text)[:120]))
        return name

    def _note_times(self, lines: _Block) -> None:
        """Note times in the course of a block."""
        usable = np.arange(len(lines.starts)) if lines.valid is None else np.flatnonzero(lines.valid)
        if not len(usable):
            return
        for index in usable[:: -(-len(usable) // 256)].tolist() + usable[-1:].tolist():
            self._note_time(lines.time(index, 0), self.lines + index, self.size + int(lines.starts[index]))
        if lines.valid is not None and not self.resolution_s:
            match = TAIL.match(lines.block, int(lines.starts[usable[0]]))
            self.resolution_s = 10.0 ** -len((match and match[2]) or b"")

    def _note_time(self, time: float | None, lines: int, offset: int) -> None:
        """Note that it was `time` after `lines` lines and `offset` bytes; keep at most 4096 such."""
        if time is None:
            return
        if self.first_time is None:
            self.first_time = self.last_time = time
        assert self.last_time is not None
        self.last_time = max(self.last_time, time)
        self.course.append((self.last_time, lines, offset))
        if len(self.course) > 4096:
            del self.course[1:-1:2]

    def _parse(self, lines: _Block, index: int, line_class: _Class) -> Message | None:
        if line_class.skipped:
            return None
        line_class.parsed += 1
        text = lines.text(index)
        facts = self._facts(text, line_class.tag)
        if facts is None:
            line_class.skipped = line_class.parsed >= _TRIES and not line_class.has_facts
            return None
        line_class.has_facts = True
        if facts.calls is not None:
            tag = self.tags[line_class.tag]
            tag.calls = max(tag.calls, facts.calls)
        start = int(lines.starts[index])
        row, offset = self.rows + index + int(np.searchsorted(lines.returns, start)), self.size + start
        return Message(facts, visible(text), line_class.tag, lines.time(index), row, offset)

    def _facts(self, text: str, tag: str) -> Facts | None:
        match = self.pattern.search(text) if self.pattern is not None else None
        if match is None:
            return parse_message(text, tag)
        return facts_of_match(match, tag) or parse_message(match.groupdict().get("message") or text, tag)


@dataclass(slots=True)
class _Block:
    """The lines of one block."""

    block: bytes
    starts: Index
    ends: Index
    heads: Index
    valid: NDArray[np.bool_] | None
    returns: Index
    stamps: Stamps

    def text(self, index: int) -> str:
        """Return the message of line `index`, at most `MAX_TEXT` bytes of it."""
        head, end = int(self.heads[index]), int(self.ends[index])
        return self.block[head : min(end, head + MAX_TEXT)].decode(errors="replace").removesuffix("\r")

    def time(self, index: int, back: int = 30) -> float | None:
        """Return the time of line `index`, or else that of a line at most `back` before it."""
        if self.valid is None:
            texts = (self.text(i) for i in range(index, max(-1, index - back - 1), -1))
            return next((t for t in map(self.stamps.read, texts) if t is not None), None)
        if not self.valid[index]:
            return self.time(index - 1, back - 1) if index and back > 0 else None
        match = TAIL.match(self.block, int(self.starts[index]))
        return float(match[1]) if match is not None else None


def _keys(data: Bytes, heads: Index, ends: Index) -> NDArray[np.uint64]:
    """Hash how each message begins, behind its date."""
    windows = np.lib.stride_tricks.sliding_window_view(data, _KEY)
    masked = _MASK[windows[heads]]
    dated = masked[:, :8].copy().view(np.uint64)[:, 0] == _DATED
    if dated.any():
        later = np.minimum(heads + _DATE_BYTES, ends)
        masked[dated] = _MASK[windows[later[dated]]]
        heads = np.where(dated, later, heads)
    length = ends - heads
    short = np.flatnonzero(length < _KEY)
    if len(short):
        masked[short] *= np.arange(_KEY)[None, :] < length[short, None]
    words = masked.view(np.uint64)
    mixed: NDArray[np.uint64] = (words * _PRIMES).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(29)
    mixed ^= dated
    return mixed


def _lines_to_parse(classes: list[_Class], inverse: Index, counts: Index) -> Index:
    """Indices in order; of a class with very many lines, one in every few and the last."""
    open_ = np.array([not c.skipped for c in classes])
    picked = np.flatnonzero(open_[inverse])
    crowded = np.flatnonzero(open_ & (counts > _MAX_PARSED))
    if not len(crowded):
        return picked
    parts = [picked[~np.isin(inverse[picked], crowded)]]
    for kind in crowded.tolist():
        members = np.flatnonzero(inverse == kind)
        parts += [members[:: -(-len(members) // _MAX_PARSED)], members[-1:]]
    return np.unique(np.concatenate(parts))
