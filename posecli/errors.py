"""Everything that can go wrong for a reason the user can understand, and the exit code of each."""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process says to its caller."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NO_INPUT = 3
    MACHINE = 4
    INTERRUPTED = 130
    TERMINATED = 143


class PosecliError(Exception):
    """A problem told to the user in one line: what, where, what to do."""

    exit_code = ExitCode.SOME_FAILED


class UsageError(PosecliError):
    """Options that contradict each other or make no sense."""

    exit_code = ExitCode.USAGE


class NoInputError(PosecliError):
    """Nothing to work on was found."""

    exit_code = ExitCode.NO_INPUT


class MachineError(PosecliError):
    """Something of the machine is missing: weights, a device, a place to write."""

    exit_code = ExitCode.MACHINE


class MediaError(PosecliError):
    """One photo or video cannot be read; the others go on."""


class DataError(PosecliError):
    """A label, boxes or results file does not hold what it should."""


def is_full(error: BaseException) -> bool:
    """Whether the disk, or the user's share of it, is full: no input's fault, the whole run ends."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
