"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arzbench.errors import UsageError

StudyOption = Annotated[
    str | None, typer.Option("--study", metavar="NAME|FILE", help="A study file or its name.")
]
EnvOption = Annotated[str | None, typer.Option("--env", metavar="ID", help="A registered Gymnasium env.")]
AlgoOption = Annotated[
    str | None, typer.Option("--algo", metavar="NAME", help="dqn, ppo, a2c, sac, td3 or ddpg.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a hyper-parameter or a study's key (n_steps=512)."
    ),
]
DeviceOption = Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda or auto.")]
DirOption = Annotated[
    Path, typer.Option("--dir", metavar="FOLDER", help="Working folder: profiles/, reports/, checkpoints/.")
]
QuotaOption = Annotated[
    str | None,
    typer.Option("--quota", metavar="TIME", help="Wall time there is: 12h, 90m, 1-06:00:00; auto finds it."),
]
PlatformOption = Annotated[
    str | None,
    typer.Option(
        "--platform",
        metavar="NAME",
        help="Whose limits count (kaggle-p100, local, ...); plan compares a,b,c.",
    ),
]
ConfidenceOption = Annotated[
    str, typer.Option("--confidence", metavar="P", help="How sure the budget must be to end in time.")
]
ForeignOption = Annotated[
    bool, typer.Option("--allow-foreign", help="Use another machine's calibration, widened and marked.")
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="NAME|FILE", help="Use this calibration, widened if of another machine."),
]
ExpiredOption = Annotated[
    bool, typer.Option("--allow-expired", help="Use a calibration of more than 30 days ago.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

AutoBudgetOption = Annotated[
    bool, typer.Option("--auto-budget", help="Plan now, and train what fits the quota.")
]
PlanFileOption = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Carry out this plan file.")
]
PlanOutputOption = Annotated[
    Path | None, typer.Option("--output", metavar="FILE", help="Where to write the plan file.")
]
TimestepsOption = Annotated[
    str | None, typer.Option("--timesteps", metavar="N", help="Train this many steps, planned or not.")
]
LogPeriodOption = Annotated[
    str | None,
    typer.Option("--log-period", metavar="N|every|off|auto", help="How often messages are written."),
]
ExtendOption = Annotated[
    bool, typer.Option("--extend", help="Let --timesteps be more than before; schedules keep their horizon.")
]
CheckpointsOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoints", metavar="URL", help="A run copies its checkpoints there, and goes on from them."
    ),
]
SessionsOption = Annotated[
    str | None, typer.Option("--max-sessions", metavar="N", help="Sessions this run may have in all.")
]

QuickOption = Annotated[bool, typer.Option("--quick", help="Fewer and shorter rounds, one batch size.")]
RecordOption = Annotated[
    Path | None, typer.Option("--output", metavar="FILE", help="Keep the raw record here as JSON.")
]


def parse_count(flag: str, text: str, least: int = 1) -> int:
    """A whole number from `least` up; underscores and commas may group digits."""
    try:
        value = int(text.replace(",", ""))
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a whole number", f"for example {flag} 1000") from None
    if value < least:
        raise UsageError(f"{flag} {value} is too small", f"it must be at least {least}")
    return value


def optional_count(flag: str, text: str | None) -> int | None:
    """`parse_count`, None where the flag was not given."""
    return None if text is None else parse_count(flag, text)


def parse_probability(flag: str, text: str) -> float:
    """A number in [0.5, 1); "95%" is 0.95."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a number", f"for example {flag} 0.95") from None
    if not 0.5 <= value < 1:
        raise UsageError(f"{flag} {text} is outside [0.5, 1)", f"for example {flag} 0.95")
    return value


def parse_share(flag: str, text: str) -> float:
    """A number in [0, 1]; "50%" is 0.5."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a number", f"for example {flag} 0.5") from None
    if not 0 <= value <= 1:
        raise UsageError(f"{flag} {text} is outside 0..1", f"for example {flag} 0.5")
    return value


def parse_folder(folder: Path) -> Path:
    """The working folder; it need not exist yet."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--dir {folder} is not a folder", "name a folder, or leave --dir out")
    return folder
