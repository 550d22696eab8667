"""Reads whole blocks of a log at once: lines are sorted into classes by how they begin.

Lines of a flood begin alike. NumPy counts them by their first bytes (digits taken as one), and only
lines of classes that have something to say are looked at one by one. Memory does not grow with the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from arzbench.logs.events import MAX_TEXT, Said, by_pattern, is_bar, listen, tag_of, visible
from arzbench.logs.formats import TAIL, Stamps

Bytes = NDArray[np.uint8]
Index = NDArray[np.intp]

#: bytes of a message that say which class it is of
_KEY = 32
#: bytes in which the time and number of the tail format stand
_HEAD = 40
#: lines of a class that are heard before it is left alone as having nothing to say
_PATIENCE = 64
#: lines of one class that are heard in one block
_MOST = 1500
#: classes and tags kept
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
    """What is known of the messages under one tag."""

    lines: int = 0
    bytes: int = 0
    example: str = ""
    calls: int = 0  # the largest "[Call #N]" of a periodic message


@dataclass(slots=True)
class Heard:
    """A message that said something."""

    said: Said
    text: str
    tag: str
    time: float | None
    row: int  # lines before it, as a terminal counts them: a carriage return begins one too
    offset: int  # bytes before it


@dataclass(slots=True)
class _Class:
    tag: str
    heard: int = 0
    talks: bool = False
    silent: bool = False


@dataclass(slots=True)
class Scanner:
    """Counts lines and tags, and hands on the messages that say something."""

    numbered: bool  # `<t>s <n> <message>`
    pattern: re.Pattern[str] | None = None  # a user's, of a line
    stamps: Stamps = field(default_factory=Stamps)  # of lines that are not numbered
    lines: int = 0
    rows: int = 0
    size: int = 0  # in bytes
    unnumbered: int = 0
    bars: int = 0
    unfinished: str | None = None
    tags: dict[str, Tag] = field(default_factory=dict)
    first_time: float | None = None
    last_time: float | None = None
    resolution_s: float = 0.0
    last_texts: list[str] = field(default_factory=list)
    #: (seconds, lines, bytes) in the course of the log
    course: list[tuple[float, int, int]] = field(default_factory=list)
    _classes: dict[int, _Class] = field(default_factory=dict)

    def feed(self, block: bytes) -> Iterator[Heard]:
        """Take whole lines; the last one may lack its end."""
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
        lines = _Lines(block, starts, ends, heads, valid, returns, self.stamps)
        classes = self._sort(lines, kinds, first, counts, sizes)
        self._clock(lines)
        for index in _worth(classes, inverse, counts):
            heard = self._hear(lines, int(index), classes[inverse[index]])
            if heard is not None:
                yield heard
        self.lines += len(ends)
        self.rows += len(ends) + len(returns)
        self.size += len(block)
        self.last_texts = [
            *self.last_texts,
            *(lines.text(i) for i in range(max(0, len(ends) - 40), len(ends))),
        ][-40:]

    def _set_aside(self, block: bytes) -> tuple[bytes, bool]:
        """A last line without an end is a message, unless it is a progress bar cut off while it was drawn."""
        text = block.decode(errors="replace")
        if "\n" in text or not is_bar(text):
            return block + b"\n", False
        if self.numbered and (found := TAIL.match(block)) is not None:
            self.tell(float(found[1]), self.lines, self.size)
            text = text[found.end() :]
        self.unfinished = visible(text)
        self.size += len(block)
        return b"", True

    def _heads(self, data: Bytes, starts: Index, ends: Index) -> tuple[Index, NDArray[np.bool_]]:
        """Where the messages begin: behind the second space of the line."""
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

    def _sort(
        self,
        lines: _Lines,
        kinds: NDArray[np.uint64],
        first: Index,
        counts: Index,
        sizes: Index,
    ) -> list[_Class]:
        """The class of each kind of line, new ones made, their lines counted under their tags."""
        classes = []
        columns = (kinds.tolist(), first.tolist(), counts.tolist(), sizes.tolist())
        for kind, index, count, size in zip(*columns, strict=True):
            known = self._classes.get(kind)
            if known is None:
                text = lines.text(index)
                known = _Class(self._known_tag(self._name(text), text))
                if len(self._classes) < _MAX_CLASSES:
                    self._classes[kind] = known
            tag = self.tags[known.tag]
            tag.lines += count
            tag.bytes += int(size)
            classes.append(known)
        return classes

    def _name(self, text: str) -> str:
        found = self.pattern.search(text) if self.pattern is not None else None
        return (found.groupdict().get("tag") if found is not None else None) or tag_of(text)

    def _known_tag(self, name: str, text: str) -> str:
        if name not in self.tags:
            if len(self.tags) >= _MAX_TAGS:
                name = _OTHER
            self.tags.setdefault(name, Tag(example=visible(text)[:120]))
        return name

    def _clock(self, lines: _Lines) -> None:
        """Times in the course of a block."""
        usable = np.arange(len(lines.starts)) if lines.valid is None else np.flatnonzero(lines.valid)
        if not len(usable):
            return
        for index in usable[:: -(-len(usable) // 256)].tolist() + usable[-1:].tolist():
            self.tell(lines.time(index, 0), self.lines + index, self.size + int(lines.starts[index]))
        if lines.valid is not None and not self.resolution_s:
            found = TAIL.match(lines.block, int(lines.starts[usable[0]]))
            self.resolution_s = 10.0 ** -len((found and found[2]) or b"")

    def tell(self, time: float | None, lines: int, offset: int) -> None:
        """The time was `time` after `lines` lines and `offset` bytes; at most 4096 such are kept."""
        if time is None:
            return
        if self.first_time is None:
            self.first_time = self.last_time = time
        assert self.last_time is not None
        self.last_time = max(self.last_time, time)
        self.course.append((self.last_time, lines, offset))
        if len(self.course) > 4096:
            del self.course[1:-1:2]

    def _hear(self, lines: _Lines, index: int, kind: _Class) -> Heard | None:
        if kind.silent:
            return None
        kind.heard += 1
        text = lines.text(index)
        said = self._listen(text, kind.tag)
        if said is None:
            kind.silent = kind.heard >= _PATIENCE and not kind.talks
            return None
        kind.talks = True
        if said.calls is not None:
            tag = self.tags[kind.tag]
            tag.calls = max(tag.calls, said.calls)
        row = self.rows + lines.row_before(index)
        offset = self.size + int(lines.starts[index])
        return Heard(said, visible(text), kind.tag, lines.time(index), row, offset)

    def _listen(self, text: str, tag: str) -> Said | None:
        found = self.pattern.search(text) if self.pattern is not None else None
        if found is None:
            return listen(text, tag)
        said = by_pattern(found, tag)
        return said if said else listen(found.groupdict().get("message") or text, tag)


@dataclass(slots=True)
class _Lines:
    """The lines of one block."""

    block: bytes
    starts: Index
    ends: Index
    heads: Index
    valid: NDArray[np.bool_] | None
    returns: Index
    stamps: Stamps

    def text(self, index: int) -> str:
        """The message of line `index`, its beginning where it is long."""
        head, end = int(self.heads[index]), int(self.ends[index])
        return self.block[head : min(end, head + MAX_TEXT)].decode(errors="replace").removesuffix("\r")

    def time(self, index: int, back: int = 30) -> float | None:
        """Its time; that of a line at most `back` before it, where it has none itself."""
        if self.valid is None:
            texts = (self.text(i) for i in range(index, max(-1, index - back - 1), -1))
            return next((t for t in map(self.stamps.read, texts) if t is not None), None)
        if not self.valid[index]:
            return self.time(index - 1, back - 1) if index and back > 0 else None
        found = TAIL.match(self.block, int(self.starts[index]))
        return float(found[1]) if found is not None else None

    def row_before(self, index: int) -> int:
        """Lines of this block before it, as a terminal counts them."""
        return index + int(np.searchsorted(self.returns, self.starts[index]))


def _keys(data: Bytes, heads: Index, ends: Index) -> NDArray[np.uint64]:
    """A number for how each message begins."""
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


def _worth(classes: list[_Class], inverse: Index, counts: Index) -> Index:
    """Lines to listen to, in order; of a class with very many, one in every few and the last."""
    if len(classes) == 0:
        return np.empty(0, np.intp)
    open_ = np.array([not c.silent for c in classes])
    picked = np.flatnonzero(open_[inverse])
    crowded = np.flatnonzero(open_ & (counts > _MOST))
    if not len(crowded):
        return picked
    kept = [picked[~np.isin(inverse[picked], crowded)]]
    for kind in crowded.tolist():
        mine = np.flatnonzero(inverse == kind)
        kept += [mine[:: -(-len(mine) // _MOST)], mine[-1:]]
    return np.unique(np.concatenate(kept))
