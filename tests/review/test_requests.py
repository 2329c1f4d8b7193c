"""Hostile requests to every route: refused in one line, and nothing is written."""

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.corrections.journal import journal_path
from posecli.review.access import MOST_BYTES
from tests.review.client import Client
from tests.review.routes import GOOD, POSTS, refused

VALUES = (
    "",
    "-1",
    "+1",
    "1.0",
    "1e3",
    "0x1",
    " 1",
    "01",
    "٣",
    "a",
    "null",
    "NaN",
    "99999999999999999999",
    "../secret.txt",
    "/etc/passwd",
    "%00",
    "%2e%2e%2f",
    "clip.mp4",
    "1;DROP",
    "[1]",
    "1%0d%0aX:%20y",
)


@pytest.mark.parametrize("value", VALUES)
def test_numbers_that_are_none(client: Client, value: str) -> None:
    quoted = value if "%" in value else "".join(f"%{b:02x}" for b in value.encode())
    for path in (
        f"/api/frame?input={quoted}&frame=0",
        f"/api/frame?input=1&frame={quoted}",
        f"/api/image?input={quoted}&frame=0",
        f"/api/image?input=1&frame={quoted}",
        f"/api/image?input=1&frame=0&width={quoted}",
        f"/api/tracks?input={quoted}",
        f"/api/inputs?offset={quoted}",
        f"/api/inputs?limit={quoted}",
        f"/api/needs?offset={quoted}",
        f"/api/changes?since={quoted}",
        f"/api/changes?since=0&wait={quoted}",
    ):
        refused(client.raw("GET", path, {"Cookie": client.cookie}), 400)
    refused(client.raw("GET", "/api/needs?reason=__class__", {"Cookie": client.cookie}), 400)


def test_inputs_and_frames_that_are_not_there(client: Client) -> None:
    for path in ("frame?input=2&frame=0", "frame?input=1&frame=30", "image?input=1&frame=2000000000", "tracks?input=9"):
        refused(client.raw("GET", f"/api/{path}", {"Cookie": client.cookie}), 404)


BODIES = (
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"client":"a","edit":' * 5000,
    b'{"client":NaN,"edit":{}}',
    b'{"client":"a","edit":{"op":"keypoints","input":1,"frame":0,"person":"p0","keypoints":{"7":[NaN,1,2]}}}',
    b'{"client":"a","edit":{"op":"keypoints","input":1,"frame":0,"person":"p0","keypoints":{"7":[1e999,1,2]}}}',
)


@pytest.mark.parametrize("path", POSTS)
def test_bodies_that_are_no_request(client: Client, path: str) -> None:
    for body in BODIES:
        answer = client.post(path, body)
        if path == "/api/finish" and body == b"":
            assert answer.status == 200
        else:
            refused(answer, 400)


@pytest.mark.parametrize(
    "change",
    [
        {"op": "propagate"},
        {"op": "undo"},
        {"op": "__class__"},
        {"op": 1},
        {"op": None},
        {"input": 2},
        {"input": -1},
        {"input": "clip.mp4"},
        {"input": "../secret.txt"},
        {"input": True},
        {"input": 0.0},
        {"input": None},
        {"input": [1]},
        {"input": 10**30},
        {"frame": 30},
        {"frame": -1},
        {"frame": 1.5},
        {"frame": "0"},
        {"frame": 10**12},
        {"frame": None},
        {"person": "p9"},
        {"person": "a1"},
        {"person": "../p0"},
        {"person": 0},
        {"person": "p0\n"},
        {"person": ""},
        {"keypoints": {}},
        {"keypoints": {"17": [1, 2, 2]}},
        {"keypoints": {"-1": [1, 2, 2]}},
        {"keypoints": {"7": [1, 2, 3]}},
        {"keypoints": {"7": [1, 2]}},
        {"keypoints": {"7": [1e9, 2, 2]}},
        {"keypoints": {"7": ["1", 2, 2]}},
        {"keypoints": [[1, 2, 2]]},
        {"keypoints": {"7": None}},
        {"more": 1},
        {"seq": 5},
        {"client": "x"},
    ],
    ids=str,
)
def test_edits_that_are_none_are_refused_and_not_written(client: Client, out: Path, change: dict[str, Any]) -> None:
    before = journal_path(out).read_bytes()
    refused(client.post("/api/edit", {"client": "one", "edit": {**GOOD, **change}}), 400, 404)
    assert journal_path(out).read_bytes() == before


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "<b>", "é", "a\n", 5, None, ["a"], {}], ids=repr)
def test_clients_that_are_none(client: Client, out: Path, name: object) -> None:
    before = journal_path(out).read_bytes()
    for path, body in (
        ("/api/edit", {"edit": GOOD}),
        ("/api/undo", {}),
        ("/api/redo", {}),
        ("/api/propagate", {"input": 1, "track": 1}),
        ("/api/propagate/accept", {"proposal": "x"}),
    ):
        refused(client.post(path, {"client": name, **body}), 400)
    assert journal_path(out).read_bytes() == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=10), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(POSTS[:-1]),
    st.fixed_dictionaries(
        {"client": st.just("fuzz") | JSON},
        optional={
            "edit": JSON
            | st.fixed_dictionaries(
                {
                    "op": st.sampled_from(["keypoints", "box", "add", "delete", "track", "accept"]),
                    "input": st.just(1) | JSON,
                    "frame": st.just(0) | JSON,
                },
                optional={
                    "person": st.just("p0") | JSON,
                    "keypoints": JSON,
                    "box": JSON,
                    "track": JSON,
                    "to": JSON,
                    "until": JSON,
                    "swap": JSON,
                },
            ),
            "input": JSON,
            "track": JSON,
            "proposal": JSON,
        },
    ),
)
def test_any_json_is_refused_or_done(client: Client, path: str, body: dict[str, Any]) -> None:
    try:
        encoded = json.dumps(body).encode()
    except UnicodeEncodeError:
        return
    answer = client.post(path, encoded)
    if answer.status == 200:
        assert answer.json["seq"] >= 0
    else:
        refused(answer)


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=60))
def test_any_query_is_refused_or_answered(client: Client, query: bytes) -> None:
    text = "".join(chr(b) if 33 <= b < 127 and b != 35 else f"%{b:02x}" for b in query)
    for path in ("/api/frame", "/api/image", "/api/inputs", "/api/changes", "/api/tracks", "/api/needs", "/static/x"):
        answer = client.raw("GET", f"{path}?{text}", {"Cookie": client.cookie})
        assert answer.status in (200, 400, 404), answer.content[:200]


def test_long_bodies_are_not_read(client: Client) -> None:
    body = json.dumps({"client": "a" * MOST_BYTES, "edit": GOOD}).encode()
    for headers in ({}, {"Content-Length": str(10**15)}):
        try:
            refused(client.raw("POST", "/api/edit", {**client.post_headers, **headers}, body), 413)
        except (ConnectionError, TimeoutError):
            assert not headers
    # In chunks, without a length.
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
        head = "".join(f"{k}: {v}\r\n" for k, v in client.post_headers.items())
        start = f"POST /api/edit HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n{head}Transfer-Encoding: chunked\r\n\r\n"
        connection.sendall(start.encode())
        sent = 0
        answer = b""
        with contextlib.suppress(ConnectionError):
            while sent < 3 * MOST_BYTES:
                connection.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
                sent += 65536
            connection.sendall(b"0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(1000)
        assert b" 413 " in answer.split(b"\r\n")[0] if answer else sent < 3 * MOST_BYTES
