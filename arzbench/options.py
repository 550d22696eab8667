"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from arzbench import importing
from arzbench.errors import UsageError

_Flags = TypeVar("_Flags")
_Result = TypeVar("_Result")


def takes(flags: type[_Flags]) -> Callable[[Callable[[_Flags], _Result]], Callable[..., _Result]]:
    """A command whose options are the fields of the dataclass `flags`; its body gets an instance."""

    def decorate(body: Callable[[_Flags], _Result]) -> Callable[..., _Result]:
        @functools.wraps(body)
        def command(**values: Any) -> _Result:
            return body(flags(**values))

        command.__signature__ = inspect.signature(flags, eval_str=True)  # type: ignore[attr-defined]
        return command

    return decorate


def parse_count(flag: str, text: str, least: int = 1) -> int:
    """A whole number from `least` up; underscores and commas may group digits."""
    try:
        value = int(text.replace(",", ""))
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a whole number", f"for example {flag} 1000") from None
    if value < least:
        raise UsageError(f"{flag} {value} is too small", f"it must be at least {least}")
    return value


def parse_share(flag: str, text: str, least: float = 0.0, *, one: bool = True) -> float:
    """A number from `least` to 1 (below 1 unless `one`); "95%" is 0.95."""
    example = f"for example {flag} {0.5 if one else 0.95}"
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a number", example) from None
    if not (least <= value < 1 or (one and value == 1)):
        outside = f"{least:g}..1" if one else f"[{least}, 1)"
        raise UsageError(f"{flag} {text} is outside {outside}", example)
    return value


def parse_folder(text: str) -> Path:
    """The working folder, whose modules a study may name; it need not exist yet."""
    folder = Path(text)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--dir {folder} is not a folder", "name a folder, or leave --dir out")
    importing.also_from(folder)
    return folder


def count(flag: str, text: str, least: int = 1) -> Any:
    """A typer option that is a whole number from `least` up."""
    return typer.Option(
        flag, metavar="N", help=text, parser=lambda value: parse_count(flag, str(value), least)
    )


def value(flag: str, metavar: str, text: str) -> Any:
    """A typer option with one value."""
    return typer.Option(flag, metavar=metavar, help=text)


def switch(flag: str, text: str) -> Any:
    """A typer option that is given or not."""
    return typer.Option(flag, help=text)


def as_flags(words: Sequence[tuple[str, str | None]]) -> str:
    """Options and their values as they are typed, each behind a space; those without a value are left out."""
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in words if value is not None)


Script = Annotated[
    Path | None,
    typer.Argument(metavar="SCRIPT", help="Your own Python file that calls arzbench.learn."),
]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="-- ARGS", help="The script's own arguments, behind --.")
]
Factory = Annotated[
    str | None, value("--factory", "FILE:FUNCTION", "Your own function that returns an unlearned model.")
]
Study = Annotated[str | None, value("--study", "NAME|FILE", "A study file or its name.")]
Env = Annotated[str | None, value("--env", "ID", "A registered Gymnasium env.")]
Algo = Annotated[str | None, value("--algo", "NAME", "ppo, sac, dqn, tqc, ...: docs/guides/studies.md.")]
Set = Annotated[
    list[str] | None,
    value("--set", "KEY=VALUE", "Change a hyper-parameter or a study's key (n_steps=512)."),
]
Device = Annotated[str | None, value("--device", "NAME", "cpu, cuda or auto.")]
Dir = Annotated[
    Path,
    typer.Option(
        "--dir",
        metavar="FOLDER",
        parser=parse_folder,
        help="Working folder: profiles/, reports/, checkpoints/.",
    ),
]
Quota = Annotated[
    str | None, value("--quota", "TIME", "Wall time there is: 12h, 90m, 1-06:00:00; auto finds it.")
]
Platform = Annotated[
    str | None,
    value("--platform", "NAME", "Whose limits count (kaggle-p100, local, ...); plan compares a,b,c."),
]
Confidence = Annotated[
    float,
    typer.Option(
        "--confidence",
        metavar="P",
        parser=lambda text: parse_share("--confidence", str(text), 0.5, one=False),
        help="How sure the budget must be to end in time.",
    ),
]
Foreign = Annotated[bool, switch("--allow-foreign", "Use another machine's calibration, widened and marked.")]
From = Annotated[
    str | None, value("--from", "NAME|FILE", "Use this calibration, widened if of another machine.")
]
Expired = Annotated[bool, switch("--allow-expired", "Use a calibration of more than 30 days ago.")]
Checkpoints = Annotated[
    str | None, value("--checkpoints", "URL", "A run copies its checkpoints there, and goes on from them.")
]
Run = Annotated[str | None, value("--run", "ID", "Which run; else the newest.")]
Json = Annotated[bool, switch("--json", "Print JSON instead of tables.")]
