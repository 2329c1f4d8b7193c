"""Types of option values: converted and checked while the command line is parsed, with shell completion."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli.errors import UsageError
from posecli.remote import is_remote, without_file_scheme

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Parsed(click.ParamType[Any]):
    """A value converted by a function that raises UsageError. suggestions: values for shell completion."""

    def __init__(self, name: str, convert: Callable[[str], Any], suggestions: Sequence[str] = ()) -> None:
        self.name, self._convert, self._suggestions = name, convert, suggestions

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The converted value; defaults of another type than text are returned as they are."""
        if not isinstance(value, str):
            return value
        try:
            return self._convert(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """The suggestions that start with the typed text."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(text) for text in self._suggestions if text.startswith(incomplete)]


class OutputFolder(click.Path):
    """A folder as a Path; an address that fsspec opens as text."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path or the address."""
        if not isinstance(value, str):
            return super().convert(value, param, ctx)
        return value if is_remote(value) else super().convert(without_file_scheme(value), param, ctx)


def _position(text: str) -> Any:
    from posecli.media.span import parse_position

    return parse_position(text)


def _detect_every(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{text!r} is neither a number of frames nor auto")
    return int(text)


def _workers(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise UsageError(f"{text!r} is neither a number of processes nor auto")
    return int(text)


def _person(text: str) -> str:
    from posecli.tracking.choose import person_choice

    person_choice(text)
    return text


def _input_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and len(text) < 12):
        raise UsageError(f"{text!r} is not HEIGHTxWIDTH, such as 256x192")
    return int(height), int(width)


INPUT_SIZE = Parsed("HxW", _input_size)
POSITION = Parsed("TIME|FRAME", _position)
DETECT_EVERY = Parsed("N|auto", _detect_every, ["auto"])
WORKERS = Parsed("N|auto", _workers, ["auto"])
PERSON = Parsed("all|largest|N|id:N", _person, ["all", "largest", "id:"])
# Checked where they are used; the suggestions are for shell completion only.
WEIGHTS = Parsed("NAME|FILE", str, ["pose", "pose-fast"])
DEVICE = Parsed("auto|cpu|cuda|cuda:N", str, ["auto", "cpu", "cuda"])
DETECTOR = Parsed("NAME|boxes:FILE", str, ["person", "whole", "boxes:"])


def forbid_downloads(context: click.Context, _: click.Parameter, value: bool) -> None:
    """Callback of --offline: sets $POSECLI_OFFLINE until the command ends."""
    if value and not os.environ.get("POSECLI_OFFLINE"):
        os.environ["POSECLI_OFFLINE"] = "1"
        context.call_on_close(lambda: os.environ.pop("POSECLI_OFFLINE", None))


# Settings of the option --offline, which is read by posecli.weights.download alone.
OFFLINE: Mapping[str, Any] = {
    "is_flag": True,
    "expose_value": False,
    "callback": forbid_downloads,
    "help": "Download nothing, as with POSECLI_OFFLINE=1.",
}
