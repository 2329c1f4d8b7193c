"""The page of `posecli review` in a real browser: zoom, a killed server, lost answers, hostile names, sizes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.review.browser import (
    CLIP,
    HOSTILE,
    HOSTILE_NAME,
    LEFT_WRIST,
    PHOTO,
    RIGHT_WRIST,
    WIDTH,
    Review,
    Tab,
    keypoint,
)


def test_wheel_and_two_fingers_zoom_about_their_place(tabs: Callable[..., Tab]) -> None:
    tab = tabs(CLIP, 5)
    place = tab.screen(200, 150)
    tab.page.mouse.move(*place)
    for _ in range(4):
        tab.page.mouse.wheel(0, -120)
    tab.until(lambda: tab.page.locator("#picture").bounding_box()["width"] > 2 * WIDTH, "zoomed")
    np.testing.assert_allclose(tab.screen(200, 150), place, atol=3)  # wheels tell whole pixels
    touch = tab.page.context.new_cdp_session(tab.page)
    (x, y), width = tab.screen(300, 180), tab.page.locator("#picture").bounding_box()["width"]
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    tab.until(lambda: tab.page.locator("#picture").bounding_box()["width"] > 1.9 * width, "two fingers")
    np.testing.assert_allclose(tab.screen(300, 180), (x, y), atol=3)


def test_an_edit_that_is_refused_is_shown_and_kept(tabs: Callable[..., Tab], server: Review) -> None:
    tab, before = tabs(CLIP, 25), len(server.journal())

    def refuse(route: Any) -> None:
        route.fulfill(status=507, content_type="application/json", body='{"error": "the disk is full"}')

    tab.page.route("**/api/edit", refuse)
    tab.press("1", "l", "ArrowRight")
    tab.until(lambda: "the disk is full" in tab.page.inner_text("#unsaved"), "shown")
    tab.until(lambda: tab.page.inner_text("#saving") == "1 edit not saved", "not saved")
    tab.until(lambda: tab.row(0) == "nose corrected", "kept")
    tab.page.unroute("**/api/edit")
    tab.page.click("#unsaved button")
    tab.until_edits(before + 1)
    tab.until(lambda: tab.page.is_hidden("#unsaved"), "saved")
    assert all("507" in error for error in tab.errors)
    tab.errors.clear()


def test_a_lost_answer_makes_no_second_edit(tabs: Callable[..., Tab], server: Review) -> None:
    tab, before = tabs(PHOTO), len(server.journal())
    lost: list[int] = []

    def lose(route: Any) -> None:
        answer = route.fetch()
        if lost:
            route.fulfill(response=answer)
        else:
            lost.append(answer.status)
            route.abort()

    tab.page.route("**/api/edit", lose)
    # The box and a keypoint of somebody whose key is not known yet.
    tab.press("i", "Enter", "ArrowRight", "l", "ArrowDown", "Escape")
    tab.until(lambda: lost == [200], "added, but not told")
    tab.page.click("#unsaved button >> text=Try now")
    edits = tab.until_edits(before + 3)[before:]
    assert [edit["op"] for edit in edits] == ["add", "keypoints", "keypoints"]
    assert {edit["person"] for edit in edits[1:]} == {f"a{edits[0]['seq']}"}
    tab.until_people(3)
    tab.until(lambda: tab.page.inner_text("#personName") == "Person 3", "chosen")
    tab.page.click("#remove")
    tab.until_edits(before + 4)
    assert all("ERR_FAILED" in error for error in tab.errors)
    tab.errors.clear()


def test_edits_outlive_a_killed_server(tabs: Callable[..., Tab], server: Review) -> None:
    tab, before = tabs(PHOTO), len(server.journal())
    start = keypoint(0, 0, LEFT_WRIST)
    tab.press("1")
    tab.drag(start, (20, 5))
    saved = tab.until_edits(before + 1)[-1]
    server.kill()
    tab.press("l", "ArrowLeft")
    tab.until(lambda: tab.page.inner_text("#saving") == "1 edit not saved", "not saved")
    tab.until(lambda: "does not answer" in tab.page.inner_text("#unsaved"), "told")
    server.start()
    tab.page.click("#unsaved button >> text=Try now")
    # Another start has another token: the page says what to do, and has kept the edit.
    tab.until(lambda: "open the address" in tab.page.inner_text("#unsaved"), "told")
    tab.page.on("dialog", lambda dialog: dialog.accept())
    tab.errors.clear()
    tab.open(PHOTO)
    tab.press("1")
    tab.until(lambda: tab.row(LEFT_WRIST) == "left wrist corrected", "shown")
    tab.page.click("#unsaved button >> text=Save")
    edits = tab.until_edits(before + 2)
    assert edits[before] == saved and list(edits[-1]["keypoints"]) == [str(RIGHT_WRIST)]
    tab.errors = [e for e in tab.errors if not e.startswith("dialog: ")]


def test_hostile_names_and_numbers_run_nothing(tabs: Callable[..., Tab], server: Review) -> None:
    tab = tabs(HOSTILE)
    tab.page.click("#inputTab")
    names = tab.page.locator("#inputList .name").all_inner_texts()
    assert HOSTILE_NAME.replace("\u202e", "\\u202e") in names
    tab.page.click("#needTab")
    tab.press("1", "e", "z", "l", "ArrowRight", "Escape", "2", "f", "Tab")
    tab.page.wait_for_timeout(300)
    assert tab.page.locator("main img, nav img, aside img, body script:not([src])").count() == 0
    assert tab.page.locator("#overlay [d*=NaN], #overlay [d*=Infinity], #overlay [x*=NaN]").count() == 0
    # A keypoint that was nowhere can be put into the picture.
    before = len(server.journal())
    tab.press("Escape", "Escape", "Escape", "1", "l")
    tab.page.keyboard.down("Shift")
    tab.page.mouse.click(*tab.screen(200, 100))
    tab.page.keyboard.up("Shift")
    tab.until(lambda: len(server.journal()) > before, "placed")
    assert server.journal()[before]["keypoints"]["0"] == pytest.approx([200, 100, 2], abs=1.01)


def test_no_text_is_ever_read_as_html_or_code() -> None:
    scripts = list((Path(__file__).parents[2] / "posecli/review/static").glob("*.js"))
    assert len(scripts) > 15
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function")
    assert not [path.name for path in scripts if forbidden.search(path.read_text(encoding="utf-8"))]
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 400 for path in scripts)


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1280, 700, "dark"), (1440, 900, "light"), (390, 844, "light")]
)
def test_nothing_overflows(tabs: Callable[..., Tab], width: int, height: int, scheme: str) -> None:
    tab = tabs(CLIP, 12)
    tab.page.set_viewport_size({"width": width, "height": height})
    tab.page.emulate_media(color_scheme=scheme)
    tab.press("1", "l")
    over = tab.page.evaluate(
        """() => [...document.querySelectorAll('body *')]
        .filter(e => e.checkVisibility() && !e.closest('svg, canvas, dialog, #stage'))
        .filter(e => { const b = e.getBoundingClientRect(); return b.right > innerWidth + 1 || b.left < -1; })
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert over == []
    if width > 780:
        assert tab.page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    nameless = "button:not([aria-label]):empty, input:not([aria-label]):not([type=checkbox])"
    assert all(e.evaluate("e => e.labels.length") for e in tab.page.locator(nameless).all())
