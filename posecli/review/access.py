"""Who may talk to the server: the browser that was given the token, from the page itself.

Every request is checked before anything of it is used: the address that it was sent to (Host, against DNS rebinding),
where it comes from (Origin and Sec-Fetch-Site, against other pages), the cookie, its length. Answers say that browsers
may load nothing from elsewhere, and show the page in no other one.
"""

import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Longest body of a request, and longest path with query.
MOST_BYTES, MOST_ADDRESS = 1 << 20, 8192

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_AGAIN = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>posecli</title>\n'
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass
class Keys:
    """The secrets of a server. token: in the printed address. launch: in that of the browser that is started, for one
    use, since other users of the machine may see the arguments of processes. cookie: what a browser then has.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    launch: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def admits(self, token: str) -> bool:
        """Whether a token of an address is right."""
        if self.launch and _same(token, self.launch):
            self.launch = ""
            return True
        return _same(token, self.token)


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


class Guard:
    """An ASGI application around another one, which gets allowed requests only. port: that of the server."""

    def __init__(self, app: ASGIApp, keys: Keys, port: int) -> None:
        self._app, self._keys = app, keys
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._origins = {f"http://{host}" for host in self._hosts}
        self._cookie = f"posecli_review_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return  # no WebSockets: the connection is closed

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(scope)
        if answer is None:
            await self._app(scope, _limited(receive), with_headers)
            return
        await answer(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is not passed on."""
        headers = Headers(scope=scope)
        if headers.getlist("host") not in [[host] for host in self._hosts]:
            return _refused(403, "the address is not that of this server")
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_ADDRESS:
            return _refused(414, "the address is too long")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _refused(405, "only GET and POST are known")
        first = scope["path"] == "/"
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not (first and headers.get("sec-fetch-mode") == "navigate"):
            return _refused(403, "from another page")
        if first and (token := _token(scope)) is not None and scope["method"] == "GET":
            return RedirectResponse("/", 303) if self._has_cookie(headers) else self._admitted(token)
        if not self._has_cookie(headers):
            if first and site == "cross-site":
                # The address was a link on another page, and browsers send no strict cookie yet after its redirection.
                return HTMLResponse(_AGAIN, 403)
            line = "open the address that posecli review printed: this one lacks its token, or is that of another start"
            return PlainTextResponse(f"{line}\n", 403) if first else _refused(403, line)
        return self._refused_post(headers) if scope["method"] == "POST" else None

    def _refused_post(self, headers: Headers) -> Response | None:
        origins = headers.getlist("origin")
        if len(origins) != 1 or origins[0] not in self._origins:
            return _refused(403, "from another page")
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return _refused(415, "not application/json")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 12 or int(length) > MOST_BYTES:
            return _refused(413, f"longer than {MOST_BYTES} bytes")
        return None

    def _admitted(self, token: str) -> Response:
        if not self._keys.admits(token):
            return PlainTextResponse(
                "the token is not that of this start of posecli review: see what it printed\n", 403
            )
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._keys.cookie, httponly=True, samesite="strict", path="/")
        return answer

    def _has_cookie(self, headers: Headers) -> bool:
        for text in headers.getlist("cookie"):
            try:
                found = SimpleCookie(text).get(self._cookie)
            except CookieError:
                continue
            if found is not None and _same(found.value, self._keys.cookie):
                return True
        return False


def _token(scope: Scope) -> str | None:
    """The token in the query, None without one."""
    from urllib.parse import parse_qs

    found = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=None).get("token")
    return None if found is None else found[0]


def _refused(status: int, line: str) -> Response:
    return JSONResponse({"error": line}, status)


class TooLongError(Exception):
    """A body without a length is longer than allowed; raised where it is read."""


def _limited(receive: Receive) -> Receive:
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MOST_BYTES:
            raise TooLongError
        return message

    return limited
