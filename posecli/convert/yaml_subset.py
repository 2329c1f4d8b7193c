"""The YAML of data set descriptions: mappings, lists, scalars and comments, without anchors, tags and objects.

PyYAML is no dependency, and these files need little of YAML. What is not understood is refused, never guessed.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from posecli.annotations.document import shortened
from posecli.errors import DataError

DEPTH = 16
LENGTH = 1 << 20

_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?([0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30}|[0-9]{1,30}(?=[eE]))([eE][-+]?[0-9]{1,3})?")
_KEY = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#&*!|>'"%@`{}\[\],?-][^#]*?|-[^\s#][^#]*?)\s*:(?=\s|$)""")
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}


class _Refused(Exception):
    """What is not understood."""


def parse_yaml(text: str) -> Any:
    """The value of a document. Raises DataError with the line of what is not understood."""
    if len(text) > LENGTH:
        raise DataError(f"YAML of more than {LENGTH} characters")
    reader = _Reader(text)
    try:
        return reader.document()
    except _Refused as error:
        raise DataError(f"line {reader.line}: YAML that is not read: {error}") from error


class _Reader:
    """Reads line by line. line: number of the current one, from 1."""

    def __init__(self, text: str) -> None:
        self._lines = text.removeprefix("\ufeff").splitlines()
        self._at = 0

    @property
    def line(self) -> int:
        return min(self._at, len(self._lines) - 1) + 1

    def document(self) -> Any:
        """The only document of the file."""
        if (row := self._peek()) is not None and row[1].startswith("---"):
            self._lines[self._at] = self._lines[self._at].replace("---", "   ", 1)
        value = self._block(-1, 0)
        if (row := self._peek()) is not None and row[1] != "...":
            raise _Refused(shortened(repr(row[1])))
        return value

    def _peek(self) -> tuple[int, str] | None:
        """Indent and text of the next line that is neither empty nor a comment."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            text = line.strip()
            if text and not text.startswith("#"):
                indent = len(line) - len(line.lstrip(" "))
                if line[indent] == "\t":
                    raise _Refused("an indent with tabs")
                return indent, text
            self._at += 1
        return None

    def _block(self, outside: int, depth: int) -> Any:
        """The value that stands on lines indented more than outside."""
        if depth > DEPTH:
            raise _Refused(f"nested more than {DEPTH} deep")
        row = self._peek()
        if row is None or row[0] <= outside:
            return None
        indent, text = row
        if text == "-" or text.startswith("- "):
            return self._sequence(indent, depth)
        if _KEY.match(text):
            return self._mapping(indent, depth)
        self._lines[self._at] = " " * indent + text
        return self._inline(text)

    def _sequence(self, indent: int, depth: int) -> list[Any]:
        values: list[Any] = []
        while (row := self._peek()) is not None and row[0] == indent and (row[1] + " ").startswith("- "):
            rest = row[1][1:]
            inner = rest.lstrip()
            if not inner or inner.startswith("#"):
                self._at += 1
                values.append(self._block(indent, depth + 1))
                continue
            # The rest of the line is a block of its own, indented by the hyphen.
            self._lines[self._at] = " " * (indent + 1 + len(rest) - len(inner)) + inner
            values.append(self._block(indent, depth + 1))
        if row is not None and row[0] > indent:
            raise _Refused(f"an indent that fits no line above: {shortened(repr(row[1]))}")
        return values

    def _mapping(self, indent: int, depth: int) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        while (row := self._peek()) is not None and row[0] == indent:
            found = _KEY.match(row[1])
            if found is None:
                raise _Refused(shortened(repr(row[1])))
            key, rest = _scalar(found[1]), row[1][found.end() :].strip()
            if isinstance(key, float | list | dict) or key in values:
                raise _Refused(f"the key {shortened(repr(key))}, which stands twice or is no name")
            if not rest or rest.startswith("#"):
                self._at += 1
                after = self._peek()
                # A list may stand under its key without an indent.
                flush = after is not None and after[0] == indent and (after[1] + " ").startswith("- ")
                values[key] = self._sequence(indent, depth + 1) if flush else self._block(indent, depth + 1)
            elif re.fullmatch(r"[|>][-+0-9]{0,2}(\s+#.*)?", rest):
                values[key] = self._literal(indent)
            else:
                values[key] = self._inline(rest)
        if row is not None and row[0] > indent:
            raise _Refused(f"an indent that fits no line above: {shortened(repr(row[1]))}")
        return values

    def _literal(self, outside: int) -> str:
        """A text of several lines, such as a script: as it stands."""
        self._at += 1
        kept = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.strip() and len(line) - len(line.lstrip(" ")) <= outside:
                break
            kept.append(line)
            self._at += 1
        return "\n".join(kept)

    def _inline(self, text: str) -> Any:
        """A value that begins on this line: a scalar, or a list or mapping in brackets, also over several lines."""
        if text[0] not in "[{":
            value = _scalar(_without_comment(text))
            self._at += 1
            return value
        flow = _Flow(_without_comment(text), self._next_line)
        value = flow.value(0)
        flow.end()
        self._at += 1
        return value

    def _next_line(self) -> str:
        """The next line with something on it, without its comment."""
        self._at += 1
        row = self._peek()
        if row is None:
            raise _Refused("a bracket that is not closed")
        return _without_comment(row[1])


class _Flow:
    """Reads a list or mapping in brackets. more: gives the next line."""

    def __init__(self, text: str, more: Callable[[], str]) -> None:
        self._text, self._at, self._more = text, 0, more

    def _next(self) -> str:
        """The next character that is no space."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            self._text, self._at = self._more(), 0

    def end(self) -> None:
        """Raise _Refused where more follows."""
        if self._text[self._at :].strip():
            raise _Refused(shortened(repr(self._text[self._at :])))

    def value(self, depth: int) -> Any:
        """The next value."""
        if depth > DEPTH:
            raise _Refused(f"nested more than {DEPTH} deep")
        first = self._next()
        if first == "[":
            values: list[Any] = []
            self._entries("]", lambda: values.append(self.value(depth + 1)))
            return values
        if first == "{":
            pairs: dict[Any, Any] = {}
            self._entries("}", lambda: self._pair(pairs, depth))
            return pairs
        return _scalar(self._token(",]}"))

    def _entries(self, close: str, read: Callable[[], object]) -> None:
        self._at += 1
        while self._next() != close:
            read()
            if self._next() == ",":
                self._at += 1
            elif self._next() != close:
                raise _Refused(shortened(repr(self._text[self._at :])))
        self._at += 1

    def _pair(self, pairs: dict[Any, Any], depth: int) -> None:
        self._next()
        key = _scalar(self._token(":,]}"))
        if self._next() != ":" or isinstance(key, float):
            raise _Refused(f"{shortened(repr(key))} without a value")
        self._at += 1
        pairs[key] = self.value(depth + 1)

    def _token(self, stops: str) -> str:
        start = self._at
        quote = self._text[start]
        if quote in "\"'":
            found = re.compile(r'"(?:[^"\\]|\\.)*"' if quote == '"' else r"'(?:[^']|'')*'").match(self._text, start)
            if found is None:
                raise _Refused(f"the text {shortened(self._text[start:])}")
            self._at = found.end()
            return found[0]
        while self._at < len(self._text) and self._text[self._at] not in stops + "[{":
            self._at += 1
        if self._at == start:
            raise _Refused(shortened(repr(self._text[start:])))
        return self._text[start : self._at].strip()


def _without_comment(text: str) -> str:
    """A line without a comment, which begins with # after a space, outside of quotes."""
    found = re.match(r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|(?<!\s)#|[^#"']|["'])*?(?=\s#|$)""", text)
    return (found[0] if found else text).rstrip()


def _scalar(text: str) -> Any:
    if text[:1] == '"':
        try:
            return json.loads(text)
        except ValueError as error:
            raise _Refused(f"the text {shortened(text)}") from error
    if text[:1] == "'":
        if len(text) < 2 or text[-1] != "'":
            raise _Refused(f"the text {shortened(text)}")
        return text[1:-1].replace("''", "'")
    if text[:1] in tuple("&*!|>%@`?{}[]"):
        raise _Refused(shortened(repr(text)))
    if text.casefold() in _WORDS:
        return _WORDS[text.casefold()]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
