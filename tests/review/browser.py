"""A process of `posecli review` and its page in a browser, as the tests use them."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posecli.types import Poses
from tests.painted import SCENES

WIDTH, HEIGHT, FRAMES = 640, 360, 40
LEFT_EYE, LEFT_WRIST, RIGHT_WRIST = 1, 9, 10
PHOTO, CLIP, HOSTILE = 0, 1, 2
# As a file's name: elements, quotes, and a character that turns the direction of writing.
HOSTILE_NAME = "<img src=x onerror=alert(1)>\"'&<script>alert(2)<\u202egpj.png"


def painted() -> list[Poses]:
    """Two people with ids who walk far from each other."""
    found = []
    for _, poses, ids in SCENES["apart"].frames():
        fields = {name: getattr(poses, name) for name in ("keypoints", "std", "scores", "boxes", "box_scores")}
        found.append(Poses(**fields, person_scores=poses.person_scores, track_ids=np.array(ids, np.int64)))
    return found[:FRAMES]


def hostile() -> Poses:
    """People whose numbers are far outside of the picture, or none."""
    points = np.full((2, 17, 2), 1e30, np.float32)
    points[0, 3:9] = -1e30
    points[1] = np.linspace(-50, 900, 34).reshape(17, 2)
    boxes = np.array([[-1e30, -1e30, 1e30, 1e30], [300, 200, 300, 200]], np.float32)
    ones = np.ones(2, np.float32)
    return Poses(points, np.full((2, 17, 2), 1e30, np.float32), np.full((2, 17), 0.5, np.float32), boxes, ones, ones)


class Review:
    """`posecli review` as a process of its own, which can be killed and started again at the same port."""

    def __init__(self, out: Path) -> None:
        self.out, self.port = out, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "posecli", "review", str(self.out), "--no-browser", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.port = int(re.match(r"http://127\.0\.0\.1:(\d+)/", self.address)[1])  # type: ignore[index]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def journal(self) -> list[dict[str, Any]]:
        """The edits that are on disk."""
        path = self.out / ".posecli" / "corrections.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()[1:]] if path.exists() else []


def vars_of(poses: Poses) -> dict[str, Any]:
    names = ("keypoints", "std", "scores", "boxes", "box_scores", "person_scores")
    return {name: getattr(poses, name) for name in names}


class Tab:
    """A tab of the browser with the page; its errors are collected."""

    def __init__(self, page: Any, server: Review) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []
        page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))

    def open(self, number: int, frame: int = 0) -> "Tab":
        """Come by the printed address to a frame of an input."""
        # The redirection to the page keeps what follows the #; from a page of the same address nothing would be loaded.
        self.page.goto("about:blank")
        self.page.goto(f"{self.server.address}#input={number}&frame={frame}")
        self.page.wait_for_selector("body[data-ready]")
        self.page.focus("#stage")
        return self

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        for _ in range(250):
            if found := holds():
                return found
            self.page.wait_for_timeout(20)
        pytest.fail(f"{what}: {self.status!r}, {self.errors}")

    def until_edits(self, count: int) -> list[dict[str, Any]]:
        """The journal once it has so many edits."""
        self.until(lambda: len(self.server.journal()) >= count, f"{count} edits")
        edits = self.server.journal()
        assert len(edits) == count, edits[count:]
        self.until(lambda: self.page.inner_text("#saving") == "All saved", "saved")
        return edits

    def until_people(self, count: int) -> None:
        """Wait until the list has so many people: it is drawn after an edit was saved."""
        self.until(lambda: self.page.locator("#peopleList li").count() == count, f"{count} people")

    @property
    def status(self) -> str:
        return str(self.page.inner_text("#status"))

    def screen(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the picture is on the screen."""
        box = self.page.locator("#picture").bounding_box()
        scale = box["width"] / WIDTH
        return box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale

    def drag(self, start: np.ndarray, by: tuple[float, float], release: bool = True) -> None:
        self.page.mouse.move(*self.screen(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.screen(*(start + by)), steps=4)
        if release:
            self.page.mouse.up()

    def row(self, keypoint: int) -> str:
        """A keypoint's line in the list of the selected person."""
        return str(self.page.inner_text(f"#keypoint{keypoint}")).replace("\n", " ")


def keypoint(frame: int, person: int, index: int) -> np.ndarray:
    return np.asarray(painted()[frame].keypoints[person, index], np.float64)
