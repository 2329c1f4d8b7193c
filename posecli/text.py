"""Escaping of external texts, such as file names, for one-line messages."""

import unicodedata
from pathlib import PurePath


def printed(text: str | PurePath) -> str:
    """The text in printable UTF-8 on one line, with invalid UTF-8 and control characters as escapes."""
    plain = str(text).encode("utf-8", "surrogateescape" if _from_bytes(str(text)) else "backslashreplace")
    decoded = plain.decode("utf-8", "backslashreplace")
    return "".join(c if _visible(c) else c.encode("unicode_escape").decode() for c in decoded)


def _from_bytes(text: str) -> bool:
    """Whether all surrogates represent bytes of a file name."""
    return all("\udc80" <= c <= "\udcff" for c in text if "\ud800" <= c <= "\udfff")


def _visible(character: str) -> bool:
    """Whether a character is visible: no control, line or direction character."""
    return character.isprintable() or unicodedata.category(character) == "Zs"
