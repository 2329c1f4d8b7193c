"""One-line messages for errors of an input."""

from posecli.errors import MachineError, PosecliError, is_full
from posecli.text import printed


def error_message(error: BaseException, shown: str) -> str:
    """One line with the input (shown) and the cause. The error of a full disk, which ends the run, is raised again."""
    if is_full(error):
        raise error
    text = printed(" ".join(str(error).splitlines()))
    if isinstance(error, MachineError) and printed(shown) not in text:  # of a device, which knows no input
        return f"{printed(shown)}: {text}"
    if isinstance(error, PosecliError):
        return text
    if isinstance(error, MemoryError):
        return f"{printed(shown)}: too large for this machine's memory"
    return f"{printed(shown)}: {error.strerror if isinstance(error, OSError) and error.strerror else text}"
