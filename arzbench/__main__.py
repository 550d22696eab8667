"""The `arzbench` command. `watch -- command` without options starts its command before anything is loaded."""

import gc
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:3] == ["watch", "--"] and len(sys.argv) > 3:
        from arzbench.wiring.watching import start_at_once

        start_at_once(sys.argv[3:])
    gc.disable()  # what is imported is no garbage; enabled again when a command is called
    from arzbench import cli

    cli.main()


if __name__ == "__main__":
    main()
