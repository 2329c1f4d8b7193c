"""`python -m posecli` and the `posecli` command."""

import atexit
import contextlib
import os
import sys
from typing import NoReturn

from posecli import interrupt

# numpy's products are of small matrices; OpenBLAS's threads would only be busy waiting for work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Signals are handled until the end of the process, not only while the command runs.
_HANDLE_SIGNALS = interrupt.handle_signals()


def run() -> NoReturn:
    """Run the command line and exit."""
    _HANDLE_SIGNALS.__enter__()
    from posecli.cli.main import main

    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
        if interrupt.received_signal() is None and not interrupt.any_blocked():
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or its reader has ended
                    stream.flush()
        # Python's own exit would free modules and compiled networks one by one, which takes a tenth of a second.
        os._exit(code)


if __name__ == "__main__":
    run()
