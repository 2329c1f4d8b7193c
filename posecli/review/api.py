"""The HTTP API of `posecli review`: what the page asks, and the edits that it sends."""

import asyncio
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from posecli.corrections.corrections import Corrections
from posecli.corrections.edits import Edit
from posecli.corrections.propagation import Values, propagate
from posecli.errors import DataError, MachineError, MediaError, PosecliError, UsageError
from posecli.review import state_json
from posecli.review.access import MOST_BYTES, TooLongError
from posecli.review.merging import Merging
from posecli.review.needs import NeedList
from posecli.review.pictures import Pictures
from posecli.text import printed

LOG = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
# Rows of an answer, seconds of waiting for changes, edits of one answer, proposals that are kept.
_MOST_ROWS, _MOST_WAIT, _MOST_EDITS, _PROPOSALS = 500, 30, 1000, 8
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_CLIENT = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_WIDEST = 32768

Handler = Callable[[Request], Awaitable[Response]]


class _Refused(Exception):
    """A request that cannot be answered. status: of HTTP; the text is one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True)
class _Proposal:
    """What a propagation would write. seq: the last edit that it knew."""

    seq: int
    name: str
    track: int
    values: Values


class Api:
    """The routes, over the corrections of one output folder. merging: writes coco_corrected.json."""

    def __init__(self, corrections: Corrections, pictures: Pictures, merging: Merging) -> None:
        self._corrections, self._pictures, self._merging = corrections, pictures, merging
        self._needs = NeedList(corrections)
        self._proposals: OrderedDict[str, _Proposal] = OrderedDict()
        self._changed = asyncio.Event()
        self._decoding: dict[int, asyncio.Lock] = {}
        self.closing = False

    def application(self) -> Starlette:
        """The application without any check of who asks."""
        gets = {
            "/": self._page,
            "/static/{name}": self._static,
            "/api/session": self._session,
            "/api/inputs": self._inputs,
            "/api/frame": self._frame,
            "/api/image": self._image,
            "/api/needs": self._need_rows,
            "/api/tracks": self._tracks,
            "/api/changes": self._changes,
        }
        posts = {
            "/api/edit": self._edit,
            "/api/undo": self._undo,
            "/api/redo": self._redo,
            "/api/propagate": self._propagate,
            "/api/propagate/accept": self._accept,
            "/api/finish": self._finish,
        }
        routes = [Route(path, _answering(work), methods=["GET"]) for path, work in gets.items()]
        routes += [Route(path, _answering(work), methods=["POST"]) for path, work in posts.items()]
        return Starlette(routes=routes, exception_handlers={404: _no_route, 405: _no_route})

    def close(self) -> None:
        """Let requests that wait for changes end. Called in the thread of the server."""
        self.closing = True
        self._changed.set()

    async def _page(self, request: Request) -> Response:
        return await _file("review.html")

    async def _static(self, request: Request) -> Response:
        return await _file(request.path_params["name"])

    async def _session(self, request: Request) -> Response:
        return _json(state_json.session(self._corrections))

    async def _inputs(self, request: Request) -> Response:
        offset, limit = _rows(request)
        search = request.query_params.get("search", "").casefold()
        return _json(await run_in_threadpool(self._found_inputs, offset, limit, search))

    def _found_inputs(self, offset: int, limit: int, search: str) -> dict[str, Any]:
        corrections = self._corrections
        names = corrections.run_inputs.names
        found = [i for i, name in enumerate(names) if search in name.casefold()] if search else range(len(names))
        rows = []
        for number in found[offset : offset + limit]:
            info = corrections.inputs()[number]
            rows.append(state_json.input_info(number, info, corrections.edit_count(info.name)))
        return {"total": len(found), "inputs": rows}

    async def _frame(self, request: Request) -> Response:
        number, index = self._input(request), _whole(request, "frame")
        return _json(await run_in_threadpool(self._state, number, index))

    def _state(self, number: int, index: int) -> dict[str, Any]:
        name = self._corrections.run_inputs.names[number]
        _known_frame(self._corrections, name, index)
        seq = self._corrections.seq  # read before the frame, which may be newer then, but not older
        return state_json.frame(number, self._corrections.frame(name, index), seq)

    async def _image(self, request: Request) -> Response:
        number, index = self._input(request), _whole(request, "frame")
        width = _whole(request, "width", _WIDEST) if "width" in request.query_params else None
        # Requests for one clip wait here, so that those which the page gave up meanwhile are not decoded.
        async with self._decoding.setdefault(number, asyncio.Lock()):
            if await request.is_disconnected():
                return Response(status_code=499)
            content = await run_in_threadpool(self._jpeg, number, index, width or None)
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, no-cache"})

    def _jpeg(self, number: int, index: int, width: int | None) -> bytes:
        info = self._corrections.inputs()[number]
        _known_frame(self._corrections, info.name, index)
        return self._pictures.jpeg(info.name, info.kind, self._corrections.frame(info.name, index), width)

    async def _need_rows(self, request: Request) -> Response:
        offset, limit = _rows(request)
        reason = request.query_params.get("reason") or None
        return _json(await run_in_threadpool(self._needs.rows, offset, limit, reason))

    async def _tracks(self, request: Request) -> Response:
        name = self._corrections.run_inputs.names[self._input(request)]
        found = await run_in_threadpool(self._corrections.tracks, name)
        return _json({"tracks": [state_json.track(info) for info in found]})

    async def _changes(self, request: Request) -> Response:
        since, wait = _whole(request, "since"), min(_MOST_WAIT, _whole(request, "wait", default=0))
        changed = self._changed
        if self._corrections.seq <= since and wait and not self.closing:
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), wait)
        edits = self._corrections.since(since)[:_MOST_EDITS]
        shown = [state_json.edit(self._corrections, edit) for edit in edits]
        return _json({"seq": edits[-1].seq if edits else self._corrections.seq, "edits": shown})

    async def _edit(self, request: Request) -> Response:
        body = await _body(request, "client", "edit")
        client, given = _client(body), body["edit"]
        if not isinstance(given, dict):
            raise _Refused(400, "edit must be an object")
        if given.get("op") == "propagate":
            raise _Refused(400, "propagate: ask for a proposal, and accept it")
        number = self._checked_input(given.get("input"))
        name = self._corrections.run_inputs.names[number]
        made = await run_in_threadpool(self._corrections.apply, {**given, "input": name}, client)
        self._notify()
        assert made.frame is not None
        state = await run_in_threadpool(self._state, number, made.frame)
        return _json({"seq": made.seq, "edit": state_json.edit(self._corrections, made), "frame": state})

    async def _undo(self, request: Request) -> Response:
        return await self._step(request, self._corrections.undo)

    async def _redo(self, request: Request) -> Response:
        return await self._step(request, self._corrections.redo)

    async def _step(self, request: Request, work: Callable[[str], Edit | None]) -> Response:
        made = await run_in_threadpool(work, _client(await _body(request, "client")))
        if made is None:
            return _json({"seq": self._corrections.seq, "edit": None, "input": None, "frame": None})
        self._notify()
        target = self._corrections.edit(made.values["target"])
        number = None if target.input is None else state_json.number_of(self._corrections, target.input)
        shown = state_json.edit(self._corrections, made)
        return _json({"seq": made.seq, "edit": shown, "input": number, "frame": target.frame})

    async def _propagate(self, request: Request) -> Response:
        body = await _body(request, "client", "input", "track")
        _client(body)
        name = self._corrections.run_inputs.names[self._checked_input(body["input"])]
        track = _checked_whole(body["track"], "track")
        seq = self._corrections.seq
        values = await run_in_threadpool(propagate, self._corrections, name, track)
        proposal = secrets.token_hex(8)
        self._proposals[proposal] = _Proposal(seq, name, track, values)
        while len(self._proposals) > _PROPOSALS:
            self._proposals.popitem(last=False)
        return _json({"proposal": proposal, "frames": sorted(values), "values": _texts(values)})

    async def _accept(self, request: Request) -> Response:
        body = await _body(request, "client", "proposal")
        client = _client(body)
        key = body["proposal"]
        proposal = self._proposals.get(key) if isinstance(key, str) else None
        if proposal is None:
            raise _Refused(404, "there is no such proposal any more: ask for a new one")
        later = self._corrections.since(proposal.seq)
        if any(edit.input in (None, proposal.name) for edit in later):
            del self._proposals[key]
            raise _Refused(409, "the corrections changed since the proposal was made: ask for a new one")
        edit = {"op": "propagate", "input": proposal.name, "track": proposal.track, "values": _texts(proposal.values)}
        made = await run_in_threadpool(self._corrections.apply, edit, client)
        self._proposals.pop(key, None)
        self._notify()
        return _json({"seq": made.seq, "edit": state_json.edit(self._corrections, made)})

    async def _finish(self, request: Request) -> Response:
        await _body(request)
        path, people = await run_in_threadpool(self._merging.write)
        return _json({"path": printed(path), "people": people})

    def _notify(self) -> None:
        """Wake the requests that wait for changes."""
        self._merging.changed()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _input(self, request: Request) -> int:
        return self._checked_input(_whole(request, "input"))

    def _checked_input(self, value: Any) -> int:
        number = _checked_whole(value, "input")
        count = len(self._corrections.inputs())
        if number >= count:
            raise _Refused(404, f"input {number}: there are {count}, from 0")
        return number


def _answering(work: Handler) -> Handler:
    """The handler with its errors as JSON of one line."""

    async def answer(request: Request) -> Response:
        try:
            return await work(request)
        except _Refused as error:
            return _json({"error": str(error)}, error.status)
        except TooLongError:
            return _json({"error": f"longer than {MOST_BYTES} bytes"}, 413)
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            if not isinstance(error, PosecliError | OSError):
                line = f"unexpected {type(error).__name__}: {line}"
                LOG.error("%s: %s", request.url.path, line, exc_info=LOG.isEnabledFor(logging.DEBUG))
            return _json({"error": printed(line)}, _status(error))

    return answer


def _status(error: Exception) -> int:
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, MediaError):
        return 404
    return 409 if isinstance(error, DataError) else 507 if isinstance(error, MachineError) else 500


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _json({"error": "there is nothing at this address" if status == 404 else "not with this method"}, status)


def _json(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


async def _file(name: str) -> Response:
    """A file of the page, by one of their names."""
    found = next((path for path in STATIC.iterdir() if path.name == name and path.suffix in _TYPES), None)
    if found is None:
        raise _Refused(404, "there is nothing at this address")
    content = await run_in_threadpool(found.read_bytes)
    return Response(content, media_type=_TYPES[found.suffix], headers={"Cache-Control": "no-cache"})


async def _body(request: Request, *names: str) -> Mapping[str, Any]:
    """The object of a request with these fields and no others."""
    try:
        body = orjson.loads(await request.body() or b"{}")
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise _Refused(400, "the body is not JSON") from error
    if not isinstance(body, dict) or {*body} != {*names}:
        raise _Refused(400, f"the body must be an object of {', '.join(names)}" if names else "the body must be {}")
    return body


def _client(body: Mapping[str, Any]) -> str:
    client = body["client"]
    if not isinstance(client, str) or not _CLIENT.fullmatch(client):
        raise _Refused(400, "client must be a text of 1 to 64 letters, digits and .:_-")
    return client


def _whole(request: Request, name: str, most: int = 2**31, default: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not _NUMBER.fullmatch(text) or int(text) > most:
        raise _Refused(400, f"{name} must be a whole number from 0 to {most}")
    return int(text)


def _checked_whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**31:
        raise _Refused(400, f"{name} must be a whole number from 0")
    return value


def _rows(request: Request) -> tuple[int, int]:
    """offset and limit of a request."""
    return _whole(request, "offset", default=0), min(_MOST_ROWS, _whole(request, "limit", default=100))


def _known_frame(corrections: Corrections, name: str, index: int) -> None:
    count = corrections.run_inputs.frames(name)
    if index >= count:
        raise _Refused(404, f"frame {index}: the input has {count}, from 0")


def _texts(values: Values) -> dict[str, Any]:
    """A propagation with texts as keys, as in the journal."""
    return {
        str(frame): {
            person: {str(index): [round(x, 2), round(y, 2)] for index, (x, y) in points.items()}
            for person, points in people.items()
        }
        for frame, people in values.items()
    }
