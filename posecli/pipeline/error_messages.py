"""What went wrong with an input, as the one line that the user sees."""

from posecli.errors import PosecliError, is_full
from posecli.text import printed


def error_message(error: BaseException, shown: str) -> str:
    """One line that names the input and the cause. A full disk is passed on: it is not this input's fault."""
    if is_full(error):
        raise error
    text = printed(" ".join(str(error).splitlines()))
    if isinstance(error, PosecliError):
        return text
    if isinstance(error, MemoryError):
        return f"{printed(shown)}: too large for this machine's memory"
    return f"{printed(shown)}: {error.strerror if isinstance(error, OSError) and error.strerror else text}"
