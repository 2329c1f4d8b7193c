"""XML read piece by piece with expat of the standard library, made safe.

A document with a DOCTYPE is refused, so that there are no entities but XML's own five: none is expanded and nothing is
fetched. Depth and length of texts are limited; memory does not grow with the file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from posecli.annotations.document import quoted_name, shortened
from posecli.errors import DataError

DEPTH = 16
TEXT = 1 << 22
CHILDREN = 10_000
_CHUNK = 1 << 18


# Characters that XML cannot hold, not even escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """A text with ? for the characters that XML cannot hold."""
    return _NO_XML.sub("?", text)


def clean_names(names: Sequence[str]) -> list[str]:
    """Names of keypoints as XML holds them. Raises DataError where two become the same."""
    result = [clean(name) for name in names]
    if len(set(result)) < len(result):
        raise DataError("names of keypoints that differ only in characters which XML does not have: rename them")
    return result


@dataclass
class Node:
    """An element with all that is in it. text: of itself, without that of its children."""

    tag: str
    attributes: Mapping[str, str]
    children: list["Node"] = field(default_factory=list)
    text: str = ""

    def find(self, *path: str) -> "Node | None":
        """The first element on this path of tags."""
        node: Node | None = self
        for tag in path:
            node = next((child for child in node.children if child.tag == tag), None) if node else None
        return node

    def words(self, *path: str) -> str:
        """The text on this path, without space around it; "" where there is none."""
        node = self.find(*path)
        return node.text.strip() if node else ""


@dataclass(frozen=True)
class Item:
    """An element in the root, or in an element of the root. container: without its children.

    node: None at the start of a container. comment: of a comment, else "".
    """

    container: Node | None
    node: Node | None
    comment: str = ""


class _Refused(Exception):
    """Something that is not read, with the words for it."""


class _Handler:
    """Collects the items of a document. whole: tags of the root's children that are items as a whole."""

    def __init__(self, root: str, whole: frozenset[str]) -> None:
        self._root, self._whole = root, whole
        self._open: list[Node] = []
        self.items: list[Item] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        depth = len(self._open)
        if depth == 0 and tag != self._root:
            raise _Refused(f"its root is {shortened(tag)!a}, not {self._root}")
        if depth >= DEPTH:
            raise _Refused(f"elements nested more than {DEPTH} deep")
        node = Node(tag, attributes)
        parent = self._open[-1] if self._open else None
        self._open.append(node)
        if depth == 1 and tag not in self._whole:
            self.items.append(Item(node, None))
        elif parent is not None and (depth > 2 or parent.tag in self._whole):
            if len(parent.children) >= CHILDREN:
                raise _Refused(f"more than {CHILDREN} elements in a {shortened(parent.tag)!a}")
            parent.children.append(node)

    def text(self, text: str) -> None:
        node = self._open[-1]
        if len(node.text) + len(text) > TEXT:
            raise _Refused("a text that is too long")
        node.text += text

    def end(self, _: str) -> None:
        node, depth = self._open.pop(), len(self._open)
        if depth == 1 and node.tag in self._whole:
            self.items.append(Item(None, node))
        elif depth == 2 and self._open[1].tag not in self._whole:
            self.items.append(Item(self._open[1], node))

    def comment(self, text: str) -> None:
        self.items.append(Item(None, None, text[:TEXT]))

    def doctype(self, *_: Any) -> None:
        raise _Refused("it has a DOCTYPE, which is not read")


def _parser(handler: _Handler) -> expat.XMLParserType:
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = handler.start, handler.end
    parser.CharacterDataHandler, parser.CommentHandler = handler.text, handler.comment
    parser.StartDoctypeDeclHandler = handler.doctype
    parser.EntityDeclHandler = handler.doctype
    parser.buffer_text = True
    return parser


def read_items(path: Path, root: str, whole: frozenset[str]) -> Iterator[Item]:
    """The items of an XML file: of each child of the root its start and then its children, each with all in it.

    whole: tags of children that are one item. Raises DataError where the file cannot be read, is not XML, or has
    another root.
    """
    handler = _Handler(root, whole)
    parser = _parser(handler)
    try:
        with path.open("rb") as file:
            while True:
                chunk = file.read(_CHUNK)
                parser.Parse(chunk, not chunk)
                yield from handler.items
                handler.items.clear()
                if not chunk:
                    return
    except expat.ExpatError as error:
        raise DataError(f"{quoted_name(path)}: not XML ({error})") from error
    except _Refused as error:
        raise DataError(f"{quoted_name(path)}: {error}") from error
    except OSError as error:
        raise DataError(f"{quoted_name(path)}: {error.strerror}") from error
    except (ValueError, UnicodeError) as error:
        raise DataError(f"{quoted_name(path)}: not XML ({shortened(str(error))})") from error


def parse_fragment(text: str) -> Node | None:
    """An element with the elements of a text, such as an SVG's content; None where it is not XML."""
    handler = _Handler("root", frozenset({"fragment"}))
    try:
        _parser(handler).Parse(f"<root><fragment>{text}</fragment></root>", True)
    except (expat.ExpatError, _Refused, ValueError):
        return None
    return handler.items[-1].node if handler.items else None
