"""The command line: the app, its errors and exit codes. The commands are the modules of `arzbench.commands`.

Nothing heavy is imported here: `arzbench --help` needs neither torch, numba nor gymnasium.
"""

from __future__ import annotations

import errno
import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from arzbench import __version__, commands
from arzbench.errors import ArzbenchError, ExitCode, leave, tell, unknown

#: the first commands in `arzbench --help`, in this order; any others follow by name
_FIRST = (
    "calibrate", "plan", "run", "report", "bench", "logs", "watch", "doctor", "quota", "compare", "validate",
)  # fmt: skip
_EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 will not fit the quota, 4 stopped with more to do, "
    "5 the same, with no session left. "
    "Start with: arzbench calibrate, then arzbench plan --quota 12h."
)


class _Commands(TyperGroup):
    """Names the valid commands where an unknown one is given."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown("command", args[0], [n for n in self.commands if not n.startswith("_")])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="arzbench",
    cls=_Commands,
    help="Will this training fit, and if not, what will? Measure, plan, run and report a reinforcement-"
    "learning training under a wall-clock quota.",
    epilog=_EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"arzbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _register_commands() -> None:
    names = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    for name in (*_FIRST, *sorted(names.difference(_FIRST))):
        module = importlib.import_module(f"{commands.__name__}.{name}")
        app.command(name)(getattr(module, name))


_register_commands()


@app.command("_worker", hidden=True)
def _worker(task: Path, answer: Path) -> None:
    """Measure one repetition (started by calibrate)."""
    from arzbench.worker import run_worker

    leave(run_worker(task, answer))


def main() -> None:
    """The console script: every error becomes one message and an exit code."""
    try:
        code = app(standalone_mode=False)  # what the command returned
    except ArzbenchError as error:
        tell(error.message, error.hint)
        code = error.exit_code
    except KeyboardInterrupt:
        tell("interrupted", "")
        code = 130
    except typer.Abort:
        code = ExitCode.FAILURE
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        tell(f"a name is too long for this system: {str(error.filename)[:60]}...", "shorten it")
        code = ExitCode.USAGE
    except Exception as error:
        # typer's own usage errors (its base class is not public)
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "arzbench"
        tell(format_message(), f"see {path} --help")
        code = ExitCode.USAGE
    if "torch" in sys.modules:  # an error may come just before a deadline, too
        leave(int(code or 0))
    sys.exit(int(code or 0))
