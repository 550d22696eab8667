"""Extracts the facts in one message (counters, phases, errors) by rules made from real logs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from arzbench.logs.formats import DATE, LEVEL, RECORD, TABLE

#: bytes of a line that are parsed
MAX_TEXT = 4096


class Event(Enum):
    """Something that a message reports as happening."""

    READY = auto()  # dependencies are installed
    TRAIN_START = auto()
    TRAIN_END = auto()
    EVAL_START = auto()
    EVAL_END = auto()
    CONVERT = auto()  # a notebook is written: Kaggle's last act
    TRACEBACK = auto()
    ERROR = auto()  # the last line of a traceback
    KILLED = auto()  # by the system: memory, time limit
    DONE = auto()  # the whole program


@dataclass(slots=True)
class Counter:
    """A number that counts; `name` tells the counters of a log apart."""

    name: str
    value: int
    word: str
    total: int | None = None
    sim_s: float | None = None


@dataclass(slots=True)
class Facts:
    """What one message reports."""

    events: tuple[Event, ...] = ()
    counters: tuple[Counter, ...] = ()
    episode_steps: int | None = None
    total_steps: int | None = None
    calls: int | None = None  # of a periodic message: "[Call #1000]"

    def __bool__(self) -> bool:
        return bool(
            self.events or self.counters or self.episode_steps or self.total_steps or self.calls is not None
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
_RULES = {
    Event.READY: re.compile(r"\bdependencies\b.{0,20}\b(?:ready|installed)|^Successfully installed ", re.I),
    Event.TRAIN_START: re.compile(
        r"\b(?:start\w*|begin\w*)\b.{0,30}\btrain(?:ing)?\b|\btraining\b.{0,10}\b(?:start|begin|began)", re.I
    ),
    Event.TRAIN_END: re.compile(r"\btrain(?:ing|ed)?\b.{0,20}\b(?:complete|finished|done|ended)", re.I),
    Event.EVAL_START: re.compile(
        r"\b(?:start\w*|begin\w*)\b.{0,30}\bevaluation\b|\bevaluation\b.{0,10}\b(?:start|begin|began)", re.I
    ),
    Event.EVAL_END: re.compile(r"\bevaluation\b.{0,20}\b(?:complete|finished|done|ended)", re.I),
    Event.CONVERT: re.compile(r"\[NbConvertApp\] (?:Writing|Converting)"),
    Event.TRACEBACK: re.compile(r"^Traceback \(most recent call last\)"),
    Event.ERROR: re.compile(r"^(?:[\w.]+\.)?(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit))\b(?::|$)"),
    Event.KILLED: re.compile(
        r"out of memory|oom[- ]?kill|^Killed\b|due to time limit|time limit exceeded|exceeded.{0,20}time|"
        r"tried to allocate more memory|kernel died|segmentation fault|timeout (?:reached|expired)|"
        r"run(?:time)? limit reached|CANCELLED AT|SIGKILL",
        re.I,
    ),
    Event.DONE: re.compile(
        r"^\W*(?:\[?(?:SUCCESS|DONE|FINISHED)\]?\b|all done|(?:run|script|job|program|everything) (?:is )?"
        r"(?:finished|complete|done))",
        re.I,
    ),
}
# A message with none of these words has no facts: looking them up is a hundred times faster than a rule.
_COUNTER_WORDS = ("step", "iter", "episode", "epoch")
_EVENT_WORDS = (
    *("train", "evaluation", "dependenc", "successfully", "nbconvert", "traceback"),
    *("error", "exception", "interrupt", "exit", "memory", "kill"),
    *("limit", "time", "kernel", "fault", "cancel"),
    *("done", "success", "finish", "complete"),
)
_WORDS = (*_COUNTER_WORDS, *_EVENT_WORDS, "progress", "%|", "call #")


def visible(text: str) -> str:
    """Return `text` as a terminal shows it: without escape codes, from the last carriage return on."""
    text = _ANSI.sub("", text)
    if "\r" in text:
        pieces = [p for p in text.split("\r") if p.strip()]
        text = pieces[-1] if pieces else ""
    return text.replace("\x00", "").rstrip()


def tag_of(text: str) -> str:
    """Return what messages of one kind have in common: a tag in brackets, a logger's name, a level."""
    if (match := _PERIODIC.match(text)) is not None:
        return match["tag"]
    if is_bar(text):
        return "(progress bar)"
    text = visible(text).lstrip()
    if (match := re.match(r"\[([^\]]{1,60})\]", text)) is not None:
        name = re.sub(r"[\d/.:,]+", "", match[1]).strip(" #-")
        if name:
            return name
    if (date := DATE.match(text.lstrip("["))) is not None or RECORD.match(text) is not None:
        head = text[: 200 if date is None else date.end() + 160]
        if (match := RECORD.search(head)) is not None:
            return f"{match['name']} {match['level']}"
        return level[1] if (level := LEVEL.search(head)) is not None else "(dated)"
    if text.startswith(("| ", "---")) and (TABLE.match(text) or not text.strip("-")):
        return "(table)"
    if (match := LEVEL.match(text)) is not None:
        return match[1]
    return "(untagged)" if text else "(empty)"


def is_bar(text: str) -> bool:
    """Return whether `text` is a piece of a drawn progress bar."""
    return "\r" in text or "\x1b[A" in text or ("%|" in text and _BAR.search(text[:400]) is not None)


def facts_of_match(match: re.Match[str], tag: str) -> Facts | None:
    """Return the counter that a user's pattern matched: group `step`, with simulated seconds in `t`."""
    groups = match.groupdict()
    step, sim = groups.get("step"), groups.get("t")
    if not step or not step.replace(",", "").isdigit():
        return None
    sim_s = float(sim) if sim and re.fullmatch(r"\d+(\.\d*)?", sim) else None
    return Facts(counters=(Counter(f"{tag} step", _integer(step), "step", None, sim_s),))


def parse_message(text: str, tag: str) -> Facts | None:
    """Return the facts in `text`, or None."""
    text = _without_record(visible(text[:MAX_TEXT]))[:400]
    low = text.lower()
    if not any(word in low for word in _WORDS):
        return None
    facts = Facts(events=_events(text, low))
    if "call #" in low and (match := _PERIODIC.match(text)) is not None:
        facts.calls = int(match["call"])
    if "episode" in low and (match := _EPISODE.search(text)) is not None:
        facts.episode_steps = int(match["steps"])
    if "total" in low and (match := _TOTAL.search(text)) is not None:
        facts.total_steps = _integer(match["a"] or match["b"])
    counter = _counter(text, low, tag)
    facts.counters = (counter,) if counter is not None else ()
    return facts or None


def _without_record(text: str) -> str:
    """Return the message of a `logging` record: what follows date, logger and level."""
    if not text[:4].isdigit() or DATE.match(text) is None:
        return text
    match = RECORD.search(text, 0, 200)
    return text[match.end() :] if match is not None else text


def _events(text: str, low: str) -> tuple[Event, ...]:
    if not any(word in low for word in _EVENT_WORDS):
        return ()
    return tuple(event for event, rule in _RULES.items() if rule.search(text))


def _counter(text: str, low: str, tag: str) -> Counter | None:
    if "%|" in text and (match := _BAR.search(text)) is not None:
        name = f"bar {match['name'].strip()}"
        return Counter(name, _integer(match["value"]), "bar", _integer(match["total"]))
    if "progress" in low and (match := _PROGRESS.search(text)) is not None:
        return Counter("progress", _integer(match["value"]), "steps", _integer(match["total"]))
    if text.startswith("|") and (match := TABLE.match(text)) is not None:
        name, value = match[1].strip(), match[2].strip()
        if name == "total_timesteps" and value.isdigit():
            return Counter("table total_timesteps", _integer(value), "total_timesteps")
        return None
    if not any(word in low for word in _COUNTER_WORDS) or text.startswith("Eval num_timesteps="):
        return None
    if (match := _COUNT.search(text)) is None:
        return None
    before = tag if tag[:1] != "(" else re.sub(r"[\d.,:;=]+", "#", text[: match.start()])[-32:]
    word = match["word"].lower()
    sim = _SIM.search(text)
    return Counter(
        f"{before} {word}".strip(),
        _integer(match["value"]),
        word,
        _integer(match["total"]) if match["total"] else None,
        float(sim[1]) if sim is not None else None,
    )


def _integer(text: str) -> int:
    return int(text.replace(",", "").replace("_", "")[:15] or 0)
