"""`python -m posecli` and the `posecli` command."""

from typing import NoReturn

from posecli import interrupt

# Signals are handled to the very end of the process, not only while the command runs.
_WATCHING = interrupt.watching()


def run() -> NoReturn:
    """Run the command line and exit."""
    _WATCHING.__enter__()
    from posecli.cli.main import main

    main()


if __name__ == "__main__":
    run()
