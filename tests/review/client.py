"""A run's output folder with real media, a server over it, and a client that can send anything."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from posecli.corrections.corrections import Corrections
from posecli.review.server import served
from posecli.types import Poses
from tests.media_factory import picture, write_photo, write_video
from tests.run_factory import make_run

WIDTH, HEIGHT, FRAMES = 160, 120, 30


def poses(people: int, seed: int = 0, tracks: list[int] | None = None) -> Poses:
    """People with 17 keypoints within the frame."""
    random = np.random.default_rng(seed)
    return Poses(
        keypoints=random.uniform(5, 110, (people, 17, 2)).astype(np.float32),
        std=random.uniform(0.5, 3, (people, 17, 2)).astype(np.float32),
        scores=random.uniform(0.1, 1, (people, 17)).astype(np.float32),
        boxes=np.tile(np.array([[2, 3, 110, 115]], np.float32), (people, 1)),
        box_scores=np.full(people, 0.9, np.float32),
        person_scores=np.full(people, 0.7, np.float32),
        track_ids=None if tracks is None else np.array(tracks, np.int64),
    )


def make_media_run(folder: Path, names: tuple[str, str] = ("a.png", "clip.mp4")) -> Path:
    """OUT of a run on a photo and a clip of 30 frames (160x120), input 0 and 1; two people with ids in each frame."""
    photo, clip = names
    photo_file = write_photo(folder / "in" / photo, picture(WIDTH, HEIGHT, 3))
    clip_file = write_video(folder / "in" / clip, FRAMES, WIDTH, HEIGHT, options={"g": "12", "bf": "2"})
    people = [poses(2, i, [1, 2]) for i in range(FRAMES)]
    inputs = {photo: [poses(1, 99)], clip: people}
    return make_run(folder / "out", inputs, size=(WIDTH, HEIGHT), sources={photo: photo_file, clip: clip_file})


@dataclass
class Answer:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The content as JSON."""
        return json.loads(self.content)


@dataclass
class Client:
    """Requests to a server as its page sends them; every part can be replaced."""

    port: int
    address: str
    name: str = "one"
    cookie: str = field(default="", init=False)

    def raw(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """A request with these headers only, and Host where it is not among them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            headers = headers or {}
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if body is not None and "Content-Length" not in headers and "Transfer-Encoding" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            connection.close()

    def enter(self) -> "Client":
        """Open the printed address, as a browser does."""
        answer = self.raw("GET", self.address.partition(str(self.port))[2])
        assert (answer.status, answer.headers["location"]) == (303, "/")
        attributes = answer.headers["set-cookie"].lower()
        assert "httponly" in attributes and "samesite=strict" in attributes
        self.cookie = answer.headers["set-cookie"].split(";")[0]
        return self

    def get(self, path: str, **query: Any) -> Answer:
        """A request of the page."""
        target = f"{path}?{urlencode(query)}" if query else path
        return self.raw("GET", target, {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin"})

    def post(self, path: str, body: Any) -> Answer:
        """An edit of the page. body: JSON, or bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.raw("POST", path, self.post_headers, content)

    @property
    def post_headers(self) -> dict[str, str]:
        """The headers of the page's POST requests."""
        return {
            "Cookie": self.cookie,
            "Origin": f"http://127.0.0.1:{self.port}",
            "Content-Type": "application/json",
            "Sec-Fetch-Site": "same-origin",
        }

    def edit(self, **edit: Any) -> Answer:
        """Send an edit."""
        return self.post("/api/edit", {"client": self.name, "edit": edit})

    def move(self, frame: int, x: float = 20.0, person: str = "p0", k: int = 7) -> Answer:
        """Move a keypoint of a person of the clip."""
        return self.edit(op="keypoints", input=1, frame=frame, person=person, keypoints={str(k): [x, 30.5, 2]})


@contextmanager
def review(out: Path) -> Iterator[Client]:
    """A server over an output folder in this process, and a client that has opened its page."""
    with Corrections.open(out, write=True) as corrections, served(corrections) as server:
        yield Client(server.port, server.address).enter()
