"""Who may ask the server of `posecli review` for what: cookies, hosts, other pages, tokens, paths, sources."""

import json
import os
import socket
from pathlib import Path

import pytest

from posecli.review.access import Keys
from tests.review.client import Client, make_media_run, review
from tests.review.routes import GETS, POSTS, SECRET, refused


def test_every_answer_has_the_headers(client: Client) -> None:
    for path in (*GETS, "/nothing", "/api/frame"):
        answer = client.raw("GET", path, {"Cookie": client.cookie})
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers
        cached = answer.headers["cache-control"]
        assert cached == "no-store" or cached.startswith("private") or cached == "no-cache"


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_without_the_cookie_nothing_is_answered(client: Client, path: str) -> None:
    method = "POST" if path in POSTS else "GET"
    headers = {k: v for k, v in client.post_headers.items() if k != "Cookie"}
    name, _, value = client.cookie.partition("=")
    for cookie in (
        None,
        f"{name}=",
        f"{name}={value[:-1]}",
        f"{name}={value}x",
        f"other={value}",
        "\xff=;;;=",
        "a" * 4000,
    ):
        given = headers if cookie is None else {**headers, "Cookie": cookie}
        refused(client.raw(method, path, given, b"{}" if method == "POST" else None), 403)


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_the_wrong_host_is_refused(client: Client, path: str) -> None:
    method = "POST" if path in POSTS else "GET"
    port = client.port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"127.0.0.1.evil.example:{port}",
        f"0.0.0.0:{port}",
        f"[::1]:{port}",
        "",
        f"localhost:{port}@evil.example",
    ):
        headers = {**client.post_headers, "Host": host}
        refused(client.raw(method, path, headers, b"{}" if method == "POST" else None), 403)
    token = client.address.partition("?")[2]
    refused(client.raw("GET", f"/?{token}", {"Host": f"evil.example:{port}"}), 403)


def test_localhost_is_the_same_server(client: Client) -> None:
    headers = {"Host": f"localhost:{client.port}", "Cookie": client.cookie}
    assert client.raw("GET", "/api/session", headers).status == 200
    headers |= {"Origin": f"http://localhost:{client.port}", "Content-Type": "application/json"}
    assert client.raw("POST", "/api/undo", headers, b'{"client":"nobody"}').status == 200


@pytest.mark.parametrize("path", POSTS)
def test_other_pages_cannot_post(client: Client, path: str) -> None:
    port = client.port
    for origin in (
        None,
        "null",
        "http://evil.example",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port + 1}",
        "http://127.0.0.1",
        f"http://127.0.0.1:{port}.evil.example",
    ):
        headers = {k: v for k, v in client.post_headers.items() if k != "Origin"}
        refused(client.raw("POST", path, headers if origin is None else {**headers, "Origin": origin}, b"{}"), 403)
    for site in ("cross-site", "same-site", "nonsense"):
        refused(client.raw("POST", path, {**client.post_headers, "Sec-Fetch-Site": site}, b"{}"), 403)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""):
        refused(client.raw("POST", path, {**client.post_headers, "Content-Type": kind}, b"{}"), 415)


def test_other_pages_cannot_embed_it(client: Client) -> None:
    for path in GETS[1:]:
        for site in ("cross-site", "same-site"):
            refused(client.raw("GET", path, {"Cookie": client.cookie, "Sec-Fetch-Site": site}), 403)
    headers = {"Cookie": client.cookie, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    refused(client.raw("GET", "/", headers), 403)
    assert client.raw("GET", "/", {**headers, "Sec-Fetch-Mode": "navigate"}).status == 200


def test_tokens(client: Client) -> None:
    token = client.address.partition("token=")[2]
    for wrong in ("", "x", token[:-1], token + "x", token.swapcase(), "%00", "%ff", "%c3%a9", "a" * 5000):
        answer = client.raw("GET", f"/?token={wrong}")
        refused(answer, 403)
        assert "set-cookie" not in answer.headers
    assert client.raw("GET", f"/?token=x&token={token}").status == 403
    assert client.raw("GET", f"/api/session?token={token}").status == 403
    refused(client.raw("GET", "/?token=" + "a" * 9000), 414)
    # Who has the cookie may open an old address.
    answer = client.raw("GET", "/?token=old", {"Cookie": client.cookie})
    assert (answer.status, answer.headers["location"]) == (303, "/")
    # A link on another page: the cookie is sent from the second request on, which the browser makes by itself.
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = client.raw("GET", "/", headers)
    refused(answer, 403)
    assert b'content="0;url=/"' in answer.content
    assert b"refresh" not in client.raw("GET", "/", {**headers, "Sec-Fetch-Site": "same-origin"}).content


def test_the_token_of_the_started_browser_is_valid_once() -> None:
    keys = Keys()
    assert keys.admits(keys.token) and keys.admits(keys.token)
    launch = keys.launch
    assert keys.admits(launch) and not keys.admits(launch) and not keys.admits("")


PATHS = (
    "/static/..%2f..%2fapi.py",
    "/static/../api.py",
    "/static/%2e%2e/api.py",
    "/static/..\\api.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/review.js%00.css",
    "/static/",
    "/static/.",
    "/static/..",
    "/../secret.txt",
    "/secret.txt",
    "/%2e%2e/%2e%2e/secret.txt",
    "/api/../../secret.txt",
    "//evil.example/",
    "/api/session/",
    "/api",
    "/openapi.json",
    "/docs",
)


@pytest.mark.parametrize("path", PATHS)
def test_there_is_no_other_path(client: Client, path: str) -> None:
    answer = client.raw("GET", path, {"Cookie": client.cookie})
    assert answer.status == 404 or (answer.status == 307 and path == "/api/session/"), answer.status
    assert SECRET.encode() not in answer.content


def test_methods(client: Client) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
        refused(client.raw(method, "/api/session", client.post_headers), 405)
    for path in POSTS:
        refused(client.raw("GET", path, {"Cookie": client.cookie}), 405)
    refused(client.post("/api/session", {}), 405)
    head = client.raw("HEAD", "/api/session", {"Cookie": client.cookie})
    assert head.status == 200 and head.content == b""


def test_it_listens_on_the_loopback_interface_only(client: Client) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells this machine's own address
        own = probe.getsockname()[0]
    if own.startswith("127."):
        pytest.skip("this machine has no other interface")
    with pytest.raises(OSError), socket.create_connection((own, client.port), timeout=2):
        pass


HOSTILE = ("<img src=x onerror=alert(1)>.png", "'\";\n--&amp;\u202e%2e%2e.mp4")


@pytest.mark.skipif(os.name == "nt", reason="such names do not exist on Windows")
def test_hostile_names_are_data(tmp_path: Path) -> None:
    out = make_media_run(tmp_path, HOSTILE)
    with review(out) as client:
        inputs = client.get("/api/inputs").json["inputs"]
        assert inputs[0]["name"] == HOSTILE[0]
        for number in (0, 1):
            assert client.get("/api/frame", input=number, frame=0).status == 200
        assert client.get("/api/image", input=0, frame=0).status == 200
        assert client.edit(op="accept", input=0, frame=0, person="p0").json["edit"]["name"] == HOSTILE[0]
        for number in (0, 1):
            answer = client.get("/api/image", input=number, frame=99)
            assert answer.status == 404 and answer.headers["content-type"] == "application/json"


def test_a_source_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A list of outputs that was tampered with names a folder, a device, a pipe, an address."""
    out = make_media_run(tmp_path)
    place = out / ".posecli" / "outputs.json"
    document = json.loads(place.read_bytes())
    os.mkfifo(tmp_path / "pipe")
    for source in (str(tmp_path), "/dev/zero", str(tmp_path / "pipe"), "http://127.0.0.1:9/x", "\0", "a" * 5000):
        document["sources"]["a.png"] = source
        place.write_bytes(json.dumps(document).encode())
        with review(out) as client:
            refused(client.get("/api/image", input=0, frame=0), 404)
