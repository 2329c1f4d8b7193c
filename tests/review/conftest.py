"""What the tests of `posecli review` share: a browser with the page, and a server that is asked without one."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from posecli.types import Poses
from tests.media_factory import picture, write_photo, write_video
from tests.review.browser import FRAMES, HEIGHT, HOSTILE_NAME, WIDTH, Review, Tab, hostile, painted, vars_of
from tests.review.client import Client, make_media_run, review
from tests.review.routes import SECRET
from tests.run_factory import make_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    pytest.importorskip("starlette", reason="starlette is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    if BROWSER is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox, since tests may run as root; only this page is opened.
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    folder = tmp_path_factory.mktemp("review")
    files = {
        "photo.png": write_photo(folder / "in" / "photo.png", picture(WIDTH, HEIGHT, 1)),
        "clip.mp4": write_video(folder / "in" / "clip.mp4", FRAMES, WIDTH, HEIGHT, options={"g": "12", "bf": "2"}),
        HOSTILE_NAME: write_photo(folder / "in" / HOSTILE_NAME, picture(WIDTH, HEIGHT, 2)),
    }
    clip = painted()
    photo = Poses(**{**vars_of(clip[0]), "track_ids": None})
    inputs = {"photo.png": [photo], "clip.mp4": clip, HOSTILE_NAME: [hostile()]}
    review = Review(make_run(folder / "out", inputs, size=(WIDTH, HEIGHT), sources=files))
    yield review
    review.kill()


@pytest.fixture
def tabs(browser: Any, server: Review) -> Iterator[Callable[..., Tab]]:
    """Opens tabs that share their cookies; at the end none may have had an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 700})
    context.set_default_timeout(8000)
    opened: list[Tab] = []

    def open_tab(number: int, frame: int = 0) -> Tab:
        opened.append(Tab(context.new_page(), server))
        return opened[-1].open(number, frame)

    yield open_tab
    errors = [error for tab in opened for error in tab.errors]
    context.close()
    assert not errors


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "secret.txt").write_text(SECRET)
    return make_media_run(folder)


@pytest.fixture(scope="module")
def client(out: Path) -> Iterator[Client]:
    with review(out) as found:
        yield found
        assert found.get("/api/session").status == 200  # it is still there after all of them
