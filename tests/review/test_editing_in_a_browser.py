"""Edits on the page of `posecli review` in a real browser: drags, keys, ids, two tabs."""

from collections.abc import Callable

import numpy as np

from tests.review.browser import CLIP, LEFT_EYE, LEFT_WRIST, PHOTO, RIGHT_WRIST, Review, Tab, keypoint, painted


def test_a_keypoint_is_dragged_undone_and_done_again(tabs: Callable[..., Tab], server: Review) -> None:
    tab, before = tabs(CLIP, 3), len(server.journal())
    start = keypoint(3, 0, LEFT_WRIST)
    tab.press("1")
    tab.drag(start, (24, -10))
    edit = tab.until_edits(before + 1)[-1]
    assert (edit["op"], edit["input"], edit["frame"], edit["person"]) == ("keypoints", "clip.mp4", 3, "p0")
    assert list(edit["keypoints"]) == [str(LEFT_WRIST)]
    # A pixel of the screen is less than one of the picture here.
    np.testing.assert_allclose(edit["keypoints"][str(LEFT_WRIST)], [*(start + (24, -10)), 2], atol=1.01)
    tab.until(lambda: tab.row(LEFT_WRIST) == "left wrist corrected", "shown")
    tab.page.click("#undo")
    assert tab.until_edits(before + 2)[-1]["target"] == edit["seq"]
    tab.until(lambda: tab.row(LEFT_WRIST) == "left wrist 0.70", "undone")
    tab.press("Control+Shift+Z")
    tab.until_edits(before + 3)
    tab.until(lambda: tab.row(LEFT_WRIST) == "left wrist corrected", "done again")


def test_a_whole_correction_by_keys(tabs: Callable[..., Tab], server: Review) -> None:
    tab, before = tabs(PHOTO), len(server.journal())
    x, y = keypoint(0, 1, RIGHT_WRIST)
    tab.press("Tab", "Tab", "k")
    tab.page.wait_for_selector("#overlay .hintText")
    tab.press("w")  # the eleventh letter, from the middle row of a keyboard
    tab.until(lambda: tab.status.startswith("right wrist"), "chosen")
    tab.press("j", "l", "l", "j", "ArrowRight", "ArrowRight", "Shift+ArrowDown", "ArrowUp")
    edit = tab.until_edits(before + 1)[-1]
    assert edit["person"] == "p1" and list(edit["keypoints"]) == [str(RIGHT_WRIST)]
    np.testing.assert_allclose(edit["keypoints"][str(RIGHT_WRIST)], [x + 2, y + 9, 2], atol=0.011)
    tab.press("v")
    assert tab.until_edits(before + 2)[-1]["keypoints"][str(RIGHT_WRIST)][2] == 1
    tab.press("a")
    assert tab.until_edits(before + 3)[-1]["op"] == "accept"
    tab.press("i", "Shift+ArrowLeft", "Alt+ArrowDown", "Enter")
    added = tab.until_edits(before + 4)[-1]
    assert added["op"] == "add" and len(added["keypoints"]) == 17 and added["track"] is None
    tab.until_people(3)
    tab.press("b", "ArrowRight", "Alt+ArrowLeft", "Enter")
    moved = tab.until_edits(before + 5)[-1]
    assert moved["op"] == "box" and moved["person"] == f"a{added['seq']}"
    np.testing.assert_allclose(np.subtract(moved["box"], added["box"]), [1, 0, 0, 0], atol=0.011)
    tab.press("Escape", "Delete")
    assert tab.until_edits(before + 6)[-1]["op"] == "delete"
    tab.until_people(2)


def test_ids_change_from_here_on(tabs: Callable[..., Tab], server: Review) -> None:
    tab, before = tabs(CLIP, 30), len(server.journal())
    tab.press("1", "t")
    tab.page.keyboard.type("5")
    tab.press("Enter")
    edit = tab.until_edits(before + 1)[-1]
    assert (edit["op"], edit["frame"], edit["track"], edit["to"]) == ("track", 30, 1, 5)
    tab.until(lambda: tab.page.locator("#peopleList .chip").all_inner_texts() == ["5", "2"], "new id")
    tab.press("5", "t")
    tab.page.keyboard.type("2")
    tab.until(lambda: "exchanged" in tab.page.inner_text("#trackMeaning"), "explained")
    tab.press("Enter")
    assert tab.until_edits(before + 2)[-1]["swap"] is True
    tab.until(lambda: tab.page.locator("#peopleList .chip").all_inner_texts() == ["2", "5"], "exchanged")
    tab.press("u")
    tab.until_edits(before + 3)
    tab.press("u")
    tab.until_edits(before + 4)
    tab.until(lambda: tab.page.locator("#peopleList .chip").all_inner_texts() == ["1", "2"], "as before")


def test_frames_follow_a_correction(tabs: Callable[..., Tab], server: Review) -> None:
    tab, before = tabs(CLIP, 10), len(server.journal())
    tab.press("2")
    tab.drag(keypoint(10, 1, LEFT_WRIST), (0, 30))
    tab.until_edits(before + 1)
    tab.press(*("." for _ in range(8)))
    tab.until(lambda: tab.page.input_value("#frameNumber") == "18", "frame 18")
    tab.until(lambda: tab.status.startswith("Frame 18"), "shown")
    tab.drag(keypoint(18, 1, LEFT_WRIST), (0, 30))
    tab.until_edits(before + 2)
    tab.press("g")
    tab.page.wait_for_selector("#proposal:not([hidden])")
    assert len(server.journal()) == before + 2
    tab.press("(")
    tab.until(lambda: tab.page.input_value("#frameNumber") == "17", "frame before")
    tab.until(lambda: tab.row(LEFT_WRIST) == "left wrist propagated", "preview")
    tab.until(lambda: tab.page.locator("#overlay .ghost").count() == 1, "the place before")
    tab.press("Enter")
    edit = tab.until_edits(before + 3)[-1]
    assert edit["op"] == "propagate" and edit["track"] == 2
    followed = edit["values"]["14"]["p1"][str(LEFT_WRIST)]
    np.testing.assert_allclose(followed, keypoint(14, 1, LEFT_WRIST) + (0, 30), atol=6)
    tab.until(lambda: tab.page.is_hidden("#proposal"), "banner gone")
    tab.until(lambda: tab.row(LEFT_WRIST) == "left wrist propagated", "accepted")


def test_two_tabs_notice_each_other_and_a_drag_goes_on(tabs: Callable[..., Tab], server: Review) -> None:
    one, two, before = tabs(CLIP, 22), tabs(CLIP, 22), len(server.journal())
    one.page.bring_to_front()
    one.press("1")
    start = keypoint(22, 0, LEFT_WRIST)
    one.drag(start, (20, 0), release=False)
    two.press("1", *["l"] * (LEFT_EYE + 1), "Shift+ArrowUp", "Escape")
    two.until_edits(before + 1)
    one.until(lambda: "Another page moved keypoints" in one.status, "noticed")
    one.until(lambda: one.row(LEFT_EYE) == "left eye corrected", "shown")
    one.page.mouse.move(*one.screen(*(start + (40, 0))), steps=3)
    one.page.mouse.up()
    edit = one.until_edits(before + 2)[-1]
    np.testing.assert_allclose(edit["keypoints"][str(LEFT_WRIST)][:2], start + (40, 0), atol=1.01)
    two.until(lambda: two.row(LEFT_WRIST) == "left wrist corrected", "noticed by the other")
    # Each one undoes its own edit.
    two.press("u")
    edits = two.until_edits(before + 3)
    assert edits[-1]["target"] == edits[-3]["seq"]


def test_a_person_is_added_as_in_the_frame_before(tabs: Callable[..., Tab], server: Review) -> None:
    tab, before = tabs(CLIP, 35), len(server.journal())
    tab.press("1")
    tab.page.click("#remove")
    assert tab.until_edits(before + 1)[-1]["op"] == "delete"
    x0, y0, x1, y1 = painted()[35].boxes[0].tolist()
    tab.page.click("#add")
    tab.drag(np.array([x0, y0]), (x1 - x0, y1 - y0))
    tab.page.wait_for_selector("#adding[open]")
    assert tab.page.locator("#adding option").all_inner_texts()[0] == "person 1, seen in frame 34"
    tab.press("Enter")
    added = tab.until_edits(before + 2)[-1]
    assert (added["op"], added["track"]) == ("add", 1)
    np.testing.assert_allclose(list(added["keypoints"].values()), [[*p, 2] for p in painted()[35].keypoints[0]], atol=6)
    # A corner of its box, then the way back.
    tab.page.click("#add")
    tab.press("Escape")
    tab.drag(np.array([x1, y1]), (15, 10))
    moved = tab.until_edits(before + 3)[-1]
    assert (moved["op"], moved["person"]) == ("box", f"a{added['seq']}")
    np.testing.assert_allclose(np.subtract(moved["box"], added["box"]), [0, 0, 15, 10], atol=1.5)
    for count in range(4, 7):
        tab.press("u")
        tab.until_edits(before + count)
    tab.until(lambda: tab.page.locator("#peopleList .chip").all_inner_texts() == ["1", "2"], "as before")


def test_a_drag_of_somebody_whom_another_tab_deletes_ends(tabs: Callable[..., Tab], server: Review) -> None:
    one, two, before = tabs(CLIP, 28), tabs(CLIP, 28), len(server.journal())
    one.page.bring_to_front()
    one.press("2")
    one.drag(keypoint(28, 1, LEFT_WRIST), (0, 20), release=False)
    two.press("2", "Delete")
    two.until_edits(before + 1)
    one.until(lambda: "deleted the person that you were changing" in one.status, "noticed")
    one.until_people(1)
    one.page.mouse.up()
    two.press("u")
    two.until_edits(before + 2)
    one.until_people(2)
