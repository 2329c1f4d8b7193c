"""Texts from outside, such as file names, made fit for one line of a message."""

import unicodedata
from pathlib import PurePath


def printed(text: str | PurePath) -> str:
    """The text in printable UTF-8 on one line: bytes that are no UTF-8 and control characters as escapes."""
    plain = str(text).encode("utf-8", "surrogateescape" if _from_bytes(str(text)) else "backslashreplace")
    decoded = plain.decode("utf-8", "backslashreplace")
    return "".join(c if _visible(c) else c.encode("unicode_escape").decode() for c in decoded)


def _from_bytes(text: str) -> bool:
    """Whether every surrogate stands for a byte of a file name."""
    return all("\udc80" <= c <= "\udcff" for c in text if "\ud800" <= c <= "\udfff")


def _visible(character: str) -> bool:
    """Whether it takes a place on the line: no control, line or direction character."""
    return character.isprintable() or unicodedata.category(character) == "Zs"
