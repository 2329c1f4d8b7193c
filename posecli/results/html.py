"""HTML pages: the only place where external text is escaped, and their Content-Security-Policy."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from urllib.parse import quote

# Control characters, and those that change the direction of writing, by which a name could look like another.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(value: object) -> str:
    """Text as valid UTF-8 with invisible characters escaped, as \\x1b or \\u202e."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), str(value))


def text(value: object) -> str:
    """Any external value as text of an element or of a quoted attribute."""
    return escape(printable(value), quote=True)


def url(path: str) -> str:
    """A path relative to the page, with slashes, as the value of href or src; it never refers to another host."""
    try:
        data = path.encode("utf-8", "surrogateescape")  # as the file system has names that are not UTF-8
    except UnicodeEncodeError:
        data = path.encode("utf-8", "backslashreplace")
    quoted = quote(data)
    # Two leading slashes would name a host.
    return escape(f".{quoted}" if quoted.startswith("/") else quoted)


def json_for_script(document: object) -> str:
    """JSON for <script type="application/json">: ASCII, and nothing in it can end the element or start another."""
    data = json.dumps(document, separators=(",", ":"))
    for letter in "<>&":
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    return data


def head(title: object, css: str, script: str = "") -> str:
    """A page from its doctype to <body>, with its style and a Content-Security-Policy.

    Only the given script may run, as written by script_element. Images, players and links refer to files beside the
    page; nothing is loaded from elsewhere, and style attributes have no effect.
    """
    sources: Mapping[str, str] = {
        "default-src": "'none'",
        "script-src": _hashed(script) if script else "'none'",
        "style-src": _hashed(_block(css)),
        # For file: URLs some browsers do not count the page's folder as 'self'.
        "img-src": "'self' file: data:",
        "media-src": "'self' file:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in sources.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{_block(css)}</style></head><body>\n"
    )


def script_element(script: str) -> str:
    """The page's script, exactly as the policy of head allows it by hash."""
    return f"<script>{_block(script)}</script>"


def _block(content: str) -> str:
    return f"\n{content}" if not content.startswith("\n") else content


def _hashed(content: str) -> str:
    digest = hashlib.sha256(_block(content).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
