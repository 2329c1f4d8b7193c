"""Standard streams, terminal and clock of a command, as an argument that tests can replace."""

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import click


@dataclass(frozen=True)
class Environment:
    """Standard streams, terminal and clock of a command.

    is_tty: whether stderr is a terminal. clock: seconds of a monotonic clock.
    """

    stdin: IO[str] = field(default_factory=lambda: sys.stdin)
    stdout: IO[str] = field(default_factory=lambda: sys.stdout)
    stderr: IO[str] = field(default_factory=lambda: sys.stderr)
    is_tty: bool = field(default_factory=lambda: sys.stderr.isatty())
    clock: Callable[[], float] = time.monotonic

    def say(self, line: str) -> None:
        """Write a message to stderr."""
        click.echo(line, file=self.stderr)

    def print_json(self, document: Any) -> None:
        """Write a JSON document to stdout."""
        import orjson

        encoded = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        # UTF-8 whatever the encoding of stdout is.
        click.echo(encoded if hasattr(self.stdout, "buffer") else encoded.decode(), file=self.stdout)

    def print_file(self, path: Path) -> None:
        """Write a text file in UTF-8 to stdout, a block at a time."""
        if (buffer := getattr(self.stdout, "buffer", None)) is not None:
            self.stdout.flush()
            with path.open("rb") as file:
                shutil.copyfileobj(file, buffer)
            buffer.flush()
            return
        with path.open(encoding="utf-8", newline="") as text:
            shutil.copyfileobj(text, self.stdout)


def environment() -> Environment:
    """The environment that the running command was called with (click's obj), by default that of the process."""
    context = click.get_current_context(silent=True)
    given = context.find_object(Environment) if context is not None else None
    return given or Environment()
