"""What one message says: a counter, a phase, a length, an error. Rules for words found in real logs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from arzbench.logs.formats import DATE, LEVEL, RECORD, TABLE

#: a line is looked at this far
MAX_TEXT = 4096


class Mark(Enum):
    """A moment that a message tells of."""

    READY = auto()  # dependencies are installed
    TRAIN_START = auto()
    TRAIN_END = auto()
    EVAL_START = auto()
    EVAL_END = auto()
    CONVERT = auto()  # a notebook is written: Kaggle's last act
    TRACEBACK = auto()
    ERROR = auto()  # the last line of a traceback
    KILLED = auto()  # by the system: memory, time limit
    DONE = auto()  # the program says that it is done


@dataclass(slots=True)
class Counter:
    """A number that counts: `name` tells the counters of a log apart."""

    name: str
    value: int
    word: str
    total: int | None = None
    sim_s: float | None = None


@dataclass(slots=True)
class Said:
    """What one message said."""

    marks: tuple[Mark, ...] = ()
    counters: tuple[Counter, ...] = ()
    episode_steps: int | None = None
    total_steps: int | None = None
    calls: int | None = None  # of a periodic message: "[Call #1000]"

    def __bool__(self) -> bool:
        return bool(
            self.marks or self.counters or self.episode_steps or self.total_steps or self.calls is not None
        )


_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_COUNT = re.compile(
    r"(?P<word>global[_ ]?step|env(?:ironment)?[_ ]steps?|num_timesteps|total_timesteps|time[_ ]?steps?"
    r"|steps?|iterations?|iter|episodes?|epochs?)\b\"?\s*[=:#]?\s*\[?(?P<value>\d[\d,]{0,14})\b(?![.%]\d?)"
    r"(?:\s*/\s*(?P<total>\d[\d,]{0,14}))?",
    re.I,
)
_SIM = re.compile(r"\b(?:t|sim(?:ulat(?:ed|ion))?[_ ]?time)\s*[=:]\s*(\d+(?:\.\d+)?)", re.I)
_BAR = re.compile(
    r"(?P<name>[^\r%|]{0,60}?):?\s*\d{1,3}%\|[^|]{0,200}\|\s*(?P<value>\d[\d,]*)/(?P<total>\d[\d,]*)\s*\["
)
_PROGRESS = re.compile(r"\bprogress\b\W{0,3}(?P<value>\d[\d,]*)\s*/\s*(?P<total>\d[\d,]*)", re.I)
_PERIODIC = re.compile(r"^\[PERIODIC:\d+\] (?P<tag>\S+) \[Call #(?P<call>\d{1,15})\]")
_EPISODE = re.compile(
    r"episode.{0,40}?\b(?:length|steps?|len)\b\D{0,4}(?P<steps>\d{1,9})(?:\.0*)?\b(?!\s*/)", re.I
)
_TOTAL = re.compile(
    r"\btotal[ _](?:time[ _]?)?steps?\b\s*[:=]\s*(?P<a>\d[\d,_]*)"
    r"|\b(?P<b>\d[\d,_]*) total (?:time ?)?steps\b",
    re.I,
)
_TRAIN_START = re.compile(
    r"\b(?:start\w*|begin\w*)\b.{0,30}\btrain(?:ing)?\b|\btraining\b.{0,10}\b(?:start|begin|began)", re.I
)
_TRAIN_END = re.compile(r"\btrain(?:ing|ed)?\b.{0,20}\b(?:complete|finished|done|ended)", re.I)
_EVAL_START = re.compile(
    r"\b(?:start\w*|begin\w*)\b.{0,30}\bevaluation\b|\bevaluation\b.{0,10}\b(?:start|begin|began)", re.I
)
_EVAL_END = re.compile(r"\bevaluation\b.{0,20}\b(?:complete|finished|done|ended)", re.I)
_READY = re.compile(r"\bdependencies\b.{0,20}\b(?:ready|installed)|^Successfully installed ", re.I)
_CONVERT = re.compile(r"\[NbConvertApp\] (?:Writing|Converting)")
_ERROR = re.compile(r"^(?:[\w.]+\.)?(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit))\b(?::|$)")
_KILLED = re.compile(
    r"out of memory|oom[- ]?kill|^Killed\b|due to time limit|time limit exceeded|exceeded.{0,20}time|"
    r"tried to allocate more memory|kernel died|segmentation fault|timeout (?:reached|expired)|"
    r"run(?:time)? limit reached|CANCELLED AT|SIGKILL",
    re.I,
)
_DONE = re.compile(
    r"^\W*(?:\[?(?:SUCCESS|DONE|FINISHED)\]?\b|all done|(?:run|script|job|program|everything) (?:is )?"
    r"(?:finished|complete|done))",
    re.I,
)
# Words without one of which a message says nothing: a look-up is a hundred times faster than a rule.
_COUNTING = ("step", "iter", "episode", "epoch")
_MARKING = (
    *("train", "evaluation", "dependenc", "successfully", "nbconvert", "traceback"),
    *(
        "error",
        "exception",
        "interrupt",
        "exit",
        "memory",
        "kill",
        "limit",
        "time",
        "kernel",
        "fault",
        "cancel",
    ),
    *("done", "success", "finish", "complete"),
)
_HINTS = (*_COUNTING, *_MARKING, "progress", "%|", "call #")


def visible(text: str) -> str:
    """`text` as it ends up on a terminal: without escape codes, behind the last carriage return."""
    text = _ANSI.sub("", text)
    if "\r" in text:
        pieces = [p for p in text.split("\r") if p.strip()]
        text = pieces[-1] if pieces else ""
    return text.replace("\x00", "").rstrip()


def tag_of(text: str) -> str:
    """What the messages of one kind have in common: a tag in brackets, a logger's name, a level."""
    if (found := _PERIODIC.match(text)) is not None:
        return found["tag"]
    if is_bar(text):
        return "(progress bar)"
    text = visible(text).lstrip()
    if (found := re.match(r"\[([^\]]{1,60})\]", text)) is not None:
        name = re.sub(r"[\d/.:,]+", "", found[1]).strip(" #-")
        if name:
            return name
    if (date := DATE.match(text.lstrip("["))) is not None or (found := RECORD.match(text)) is not None:
        head = text[: 200 if date is None else date.end() + 160]
        if (found := RECORD.search(head)) is not None:
            return f"{found['name']} {found['level']}"
        return level[1] if (level := LEVEL.search(head)) is not None else "(dated)"
    if text.startswith(("| ", "---")) and (TABLE.match(text) or not text.strip("-")):
        return "(table)"
    if (found := re.match(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b", text)) is not None:
        return found[1]
    return "(untagged)" if text else "(empty)"


def is_bar(text: str) -> bool:
    """Whether it is a piece of a progress bar's drawing."""
    return "\r" in text or "\x1b[A" in text or ("%|" in text and _BAR.search(text[:400]) is not None)


def by_pattern(found: re.Match[str], tag: str) -> Said:
    """What a user's pattern found: a counter in its group `step`, simulated seconds in `t`."""
    groups = found.groupdict()
    step, sim = groups.get("step"), groups.get("t")
    if not step or not step.replace(",", "").isdigit():
        return Said()
    sim_s = float(sim) if sim and re.fullmatch(r"\d+(\.\d*)?", sim) else None
    return Said(counters=(Counter(f"{tag} step", _integer(step), "step", None, sim_s),))


def listen(text: str, tag: str) -> Said | None:
    """What `text` says, None: nothing."""
    text = _without_record(visible(text[:MAX_TEXT]))[:400]
    low = text.lower()
    if not any(hint in low for hint in _HINTS):
        return None
    said = Said(marks=_marks(text, low))
    if "call #" in low and (found := _PERIODIC.match(text)) is not None:
        said.calls = int(found["call"])
    if "episode" in low and (found := _EPISODE.search(text)) is not None:
        said.episode_steps = int(found["steps"])
    if "total" in low and (found := _TOTAL.search(text)) is not None:
        said.total_steps = _integer(found["a"] or found["b"])
    counter = _counter(text, low, tag)
    said.counters = (counter,) if counter is not None else ()
    return said or None


def _without_record(text: str) -> str:
    """The message of a `logging` record: behind its date, logger and level."""
    if not text[:4].isdigit() or DATE.match(text) is None:
        return text
    found = RECORD.search(text, 0, 200)
    return text[found.end() :] if found is not None else text


_RULES = (
    (_READY, Mark.READY),
    (_TRAIN_START, Mark.TRAIN_START),
    (_TRAIN_END, Mark.TRAIN_END),
    (_EVAL_START, Mark.EVAL_START),
    (_EVAL_END, Mark.EVAL_END),
    (_CONVERT, Mark.CONVERT),
    (_ERROR, Mark.ERROR),
    (_KILLED, Mark.KILLED),
    (_DONE, Mark.DONE),
)


def _marks(text: str, low: str) -> tuple[Mark, ...]:
    if not any(word in low for word in _MARKING):
        return ()
    found = tuple(mark for rule, mark in _RULES if rule.search(text))
    return (*found, Mark.TRACEBACK) if text.startswith("Traceback (most recent call last)") else found


def _counter(text: str, low: str, tag: str) -> Counter | None:
    if "%|" in text and (found := _BAR.search(text)) is not None:
        name = f"bar {found['name'].strip()}"
        return Counter(name, _integer(found["value"]), "bar", _integer(found["total"]))
    if "progress" in low and (found := _PROGRESS.search(text)) is not None:
        return Counter("progress", _integer(found["value"]), "steps", _integer(found["total"]))
    if text.startswith("|") and (found := TABLE.match(text)) is not None:
        name, value = found[1].strip(), found[2].strip()
        if name == "total_timesteps" and value.isdigit():
            return Counter("table total_timesteps", _integer(value), "total_timesteps")
        return None
    if not any(word in low for word in _COUNTING) or text.startswith("Eval num_timesteps="):
        return None
    if (found := _COUNT.search(text)) is None:
        return None
    before = tag if tag[:1] != "(" else re.sub(r"[\d.,:;=]+", "#", text[: found.start()])[-32:]
    word = found["word"].lower()
    sim = _SIM.search(text)
    return Counter(
        f"{before} {word}".strip(),
        _integer(found["value"]),
        word,
        _integer(found["total"]) if found["total"] else None,
        float(sim[1]) if sim is not None else None,
    )


def _integer(text: str) -> int:
    return int(text.replace(",", "").replace("_", "")[:15] or 0)
