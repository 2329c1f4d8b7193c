"""Lists of paths for @LIST and @-, in the encodings that programs write."""

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unicodedata import category

from posecli.errors import NoInputError

# UTF-32 before UTF-16, whose mark is a prefix of that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Three consecutive ASCII characters, as in every suffix, in both byte orders.
_UTF16 = (
    ("utf-16-le", re.compile(rb"(?:[\x20-\x7e]\0){3}")),
    ("utf-16-be", re.compile(rb"(?:\0[\x20-\x7e]){3}")),
)
# Control characters that texts do not have; about an eighth of a photo's bytes are among them.
_CONTROL = bytes({*range(32), 127} - {*b"\0\t\n\r\x1b"})
_MOST_CONTROL = 0.02
# Longest path.
_LONGEST = 32768


def paths_of(content: bytes, name: str) -> list[str]:
    """The paths of a list: one on each line (LF, CRLF or CR), or NUL-separated; blank lines are skipped.

    Text is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one; UTF-16 without one is recognised by
    its bytes. Invalid UTF-8 is kept as by os.fsdecode. name: for errors.

    Raises NoInputError for a list that is empty or not text.
    """
    wide = _wide_text(content, name)
    text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8)) if wide is None else wide
    lines = [line for line in _split(text, "\0" if "\0" in text else "\n") if line.strip()]
    if not lines:
        raise NoInputError(f"list {name}: it is empty, write one path a line")
    control = len(content) - len(content.translate(None, _CONTROL)) if wide is None else 0
    if control > _MOST_CONTROL * len(content) or max(map(len, lines)) > _LONGEST:
        raise NoInputError(f"list {name}: not a list of paths but binary data; give a photo or video without the @")
    return lines


def is_disk(path: Path) -> bool:
    """Whether a path is the root of a disk, which in a list is probably a damaged line."""
    resolved = Path(os.path.abspath(path))  # noqa: PTH100 - without access to the disk
    return resolved == Path(resolved.anchor)


def _wide_text(content: bytes, name: str) -> str | None:
    """The text of UTF-16 or UTF-32, None for other content."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content[len(mark) :].decode(encoding)
            except UnicodeDecodeError as error:
                raise NoInputError(f"list {name}: damaged {encoding.upper()} text, save it as UTF-8") from error
    for encoding, ascii_run in _UTF16:
        if not any(match.start() % 2 == 0 for match in ascii_run.finditer(content)):
            continue
        if _names_of_one_character(content):
            return None
        try:
            text = content[: len(content) // 2 * 2].decode(encoding)
        except UnicodeDecodeError:
            continue
        if all(character in "\0\r\n\t" or category(character) not in ("Cc", "Cs") for character in text):
            return text
    return None


def _names_of_one_character(content: bytes) -> bool:
    """Whether content that looks like UTF-16 is a NUL-separated list of existing files, by its first names."""
    names = [name for name in content[:64].split(b"\0") if name]
    try:
        return bool(names) and all(os.path.lexists(name) for name in names)
    except (OSError, ValueError):
        return False


def _split(text: str, separator: str) -> Iterator[str]:
    if separator == "\n" and "\n" not in text:
        separator = "\r"
    for line in text.split(separator):
        # Concatenated lists have a byte order mark in each part.
        line = line.removeprefix("\ufeff")
        yield line.rstrip("\r") if separator == "\n" else line
