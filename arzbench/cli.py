"""The command line: the app, its errors and exit codes. The commands are the modules of `arzbench.commands`.

A command's module is imported when the command is called: `arzbench --help` imports none.
"""

from __future__ import annotations

import errno
import gc
import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from arzbench import __version__
from arzbench.errors import ArzbenchError, ExitCode, leave, tell, unknown
from arzbench.user_code import users_trace

#: listed first by `arzbench --help`, in the order in which they are met; the others follow by name
_ROAD = ("calibrate", "plan", "run", "report")


def _commands() -> dict[str, str]:
    """Name and first line of the docstring of each command, read from its file, which is not imported."""
    commands = {}
    files = sorted(Path(__file__).with_name("commands").glob("[a-z]*.py"))
    for path in sorted(files, key=lambda path: (_ROAD.index(path.stem) if path.stem in _ROAD else 9, path)):
        body = path.read_text(encoding="utf-8").partition(f"\ndef {path.stem}(")[2]
        commands[path.stem] = body.split('"""')[1].partition("\n")[0]
    return commands


COMMANDS = _commands()
_EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 will not fit the quota, 4 stopped with more to do, "
    "5 the same, with no session left. "
    "Start with: arzbench calibrate, then arzbench plan --quota 12h."
)


class _Commands(TyperGroup):
    """Imports a command when it is called; names the valid ones where an unknown one is given."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, *rest = args
        if name in COMMANDS:
            command = load(name)
            gc.freeze()  # what was imported stays
            gc.enable()  # see __main__.py
            return name, command, rest
        if name not in self.commands and not name.startswith("-"):
            raise unknown("command", name, COMMANDS)
        return super().resolve_command(ctx, args)


def load(name: str) -> Any:
    """The command `name`: the function of that name in its module of `arzbench.commands`."""
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(getattr(importlib.import_module(f"arzbench.commands.{name}"), name))
    return typer.main.get_command(alone)


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


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)  # what is called instead: `load`


def main() -> None:
    """The console script: every error becomes one message and an exit code."""
    try:
        code = app(standalone_mode=False)  # what the command returned
    except ArzbenchError as error:
        tell(error.message, error.hint, error.trace or users_trace(error))
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
