"""`python -m posecli` and the `posecli` command."""

import os
from typing import NoReturn

from posecli import interrupt

# Signals are handled until the end of the process, not only while the command runs.
_HANDLE_SIGNALS = interrupt.handle_signals()


def run() -> NoReturn:
    """Run the command line and exit."""
    _HANDLE_SIGNALS.__enter__()
    from posecli.cli.main import main

    try:
        main()
    except SystemExit as ended:
        if interrupt.received_signal() is not None or interrupt.any_blocked():
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        raise


if __name__ == "__main__":
    run()
