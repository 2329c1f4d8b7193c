"""Errors that are reported to the user in one line, and their exit codes."""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the process."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NO_INPUT = 3
    MACHINE = 4
    INTERRUPTED = 130
    TERMINATED = 143


class PosecliError(Exception):
    """An error that is reported in one line: what, where, what to do."""

    exit_code = ExitCode.SOME_FAILED


class UsageError(PosecliError):
    """Invalid or contradictory options."""

    exit_code = ExitCode.USAGE


class NoInputError(PosecliError):
    """No input was found."""

    exit_code = ExitCode.NO_INPUT


class MachineError(PosecliError):
    """Something is missing on the machine: weights, a device, a writable folder."""

    exit_code = ExitCode.MACHINE


class MediaError(PosecliError):
    """A photo or video cannot be read; a run continues with the others."""


class DataError(PosecliError):
    """A file of labels, boxes, results or weights is invalid."""


def is_full(error: BaseException) -> bool:
    """Whether the disk or the user's quota is full, which ends the whole run."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
