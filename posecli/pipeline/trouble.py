"""What went wrong with an input, as the one line that the user sees."""

import errno

from posecli.errors import PosecliError
from posecli.media.inputs import printable


def one_line(error: BaseException, shown: str) -> str:
    """One line that names the input and the cause. A full disk is passed on: it is not this input's fault."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        raise error
    text = printable(" ".join(str(error).splitlines()))
    if isinstance(error, PosecliError):
        return text
    if isinstance(error, MemoryError):
        return f"{printable(shown)}: too large for this machine's memory"
    return f"{printable(shown)}: {error.strerror if isinstance(error, OSError) and error.strerror else text}"
