"""The server of `posecli review`: what the page asks and sends, and that nothing answered is lost."""

import json
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from posecli.corrections.corrections import Corrections
from posecli.media.video import VideoReader
from tests.media_factory import picture, write_photo, write_video
from tests.review.client import FRAMES, HEIGHT, WIDTH, Answer, Client, make_media_run, review


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return make_media_run(tmp_path)


def pixels(answer: Answer) -> np.ndarray:
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg"), answer.content[:200]
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def is_like(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and float(np.abs(found.astype(float) - wanted).mean()) < 4


def test_the_page_gets_what_it_needs(out: Path) -> None:
    with review(out) as client:
        session = client.get("/api/session").json
        assert (session["inputs"], session["seq"], session["read_only"], session["out"]) == (2, 0, False, "out")
        assert session["keypoints"]["names"][7] == "left_elbow" and session["keypoints"]["mirrors"][7] == 8
        assert all(0 <= k < 17 for pair in session["keypoints"]["skeleton"] for k in pair)
        assert len(session["keypoints"]["colors"]) == 17
        found = client.get("/api/inputs").json
        assert found["total"] == 2
        assert [(i["id"], i["name"], i["kind"], i["frames"]) for i in found["inputs"]] == [
            (0, "a.png", "photo", 1),
            (1, "clip.mp4", "video", FRAMES),
        ]
        assert [i["id"] for i in client.get("/api/inputs", search="CLIP").json["inputs"]] == [1]
        assert client.get("/api/inputs", offset=1, limit=1).json["inputs"][0]["id"] == 1
        frame = client.get("/api/frame", input=1, frame=4).json
        assert (frame["frame"], frame["time_s"], frame["width"], len(frame["people"])) == (4, 0.16, WIDTH, 2)
        person = frame["people"][1]
        assert (person["key"], person["track"], len(person["keypoints"]), len(person["std"])) == ("p1", 2, 17, 17)
        tracks = client.get("/api/tracks", input=1).json["tracks"]
        assert [(t["track"], t["first"], t["last"], t["frames"]) for t in tracks] == [(1, 0, 29, 30), (2, 0, 29, 30)]


def test_pictures_are_those_of_reading_in_sequence(out: Path) -> None:
    with VideoReader(out.parent / "in" / "clip.mp4") as reader:
        frames = [frame.pixels for frame in reader]
    with review(out) as client:
        for index in (20, 3, 29, 0, 21):
            assert is_like(pixels(client.get("/api/image", input=1, frame=index)), frames[index])
        assert is_like(pixels(client.get("/api/image", input=0, frame=0)), picture(WIDTH, HEIGHT, 3))
        assert pixels(client.get("/api/image", input=1, frame=5, width=80)).shape == (60, 80, 3)
        assert pixels(client.get("/api/image", input=1, frame=5, width=9999)).shape == (HEIGHT, WIDTH, 3)


def test_edits_are_seen_by_everybody_and_can_be_undone(out: Path) -> None:
    with review(out) as client:
        answer = client.move(3).json
        assert (answer["seq"], answer["edit"]["op"], answer["edit"]["input"]) == (1, "keypoints", 1)
        assert answer["frame"]["people"][0]["corrected"] == [7]
        assert answer["frame"]["people"][0]["keypoints"][7] == [20, 30.5, 2]
        assert client.get("/api/frame", input=1, frame=3).json["seq"] == 1
        assert [i["edits"] for i in client.get("/api/inputs").json["inputs"]] == [0, 1]
        other = Client(client.port, client.address, "two").enter()
        assert other.post("/api/undo", {"client": "two"}).json["edit"] is None
        undone = client.post("/api/undo", {"client": "one"}).json
        assert (undone["seq"], undone["input"], undone["frame"], undone["edit"]["op"]) == (2, 1, 3, "undo")
        assert client.get("/api/frame", input=1, frame=3).json["people"][0]["corrected"] == []
        assert client.post("/api/redo", {"client": "one"}).json["seq"] == 3
        edits = other.get("/api/changes", since=0).json
        assert edits["seq"] == 3 and [edit["op"] for edit in edits["edits"]] == ["keypoints", "undo", "redo"]
        assert edits["edits"][0]["client"] == "one" and edits["edits"][0]["name"] == "clip.mp4"


@pytest.mark.alone
def test_a_waiting_client_hears_of_an_edit_at_once(out: Path) -> None:
    with review(out) as client:
        other = Client(client.port, client.address, "two").enter()
        answers: list[tuple[float, dict]] = []

        def wait() -> None:
            found = other.get("/api/changes", since=0, wait=20).json
            answers.append((time.monotonic(), found))

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        assert not answers
        before = time.monotonic()
        client.move(2)
        thread.join(5)
        assert answers[0][0] - before < 5 and answers[0][1]["edits"][0]["frame"] == 2
        began = time.monotonic()
        assert client.get("/api/changes", since=1, wait=1).json == {"seq": 1, "edits": []}
        assert 0.9 < time.monotonic() - began < 10
        waiting = threading.Thread(target=lambda: other.get("/api/changes", since=1, wait=20))
        waiting.start()
        time.sleep(0.2)
        began = time.monotonic()
    assert time.monotonic() - began < 10  # the end does not wait for those who wait
    waiting.join(5)


def test_the_merged_file_is_written_when_asked_for_and_at_the_end(out: Path) -> None:
    with review(out) as client:
        client.move(3)
        client.edit(op="accept", input=1, frame=4, person="p1")
        answer = client.post("/api/finish", {}).json
        assert Path(answer["path"]).name == "coco_corrected.json" and answer["people"] == 2
        found = json.loads((out / "coco_corrected.json").read_bytes())
        assert sum(bool(a.get("corrected")) for a in found["annotations"]) == 1
        client.edit(op="delete", input=0, frame=0, person="p0")
    found = json.loads((out / "coco_corrected.json").read_bytes())
    assert len(found["annotations"]) == 2 * FRAMES
    with Corrections.open(out, write=False) as corrections:
        assert corrections.seq == 3


def test_a_source_that_is_gone_or_changed_is_one_line_and_the_rest_goes_on(out: Path) -> None:
    photo, clip = out.parent / "in" / "a.png", out.parent / "in" / "clip.mp4"
    with review(out) as client:
        pixels(client.get("/api/image", input=1, frame=0))
        write_video(clip, FRAMES, WIDTH, HEIGHT, options={"g": "3"})
        until = time.monotonic() + 10
        while (answer := client.get("/api/image", input=1, frame=0)).status == 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert answer.status == 404 and "changed since the run" in answer.json["error"]
        write_photo(photo, picture(WIDTH, HEIGHT, 8))
        answer = client.get("/api/image", input=0, frame=0)
        assert answer.status == 404 and "changed since the run" in answer.json["error"]
        photo.unlink()
        clip.unlink()
        for number in (0, 1):
            answer = client.get("/api/image", input=number, frame=0)
            assert answer.status == 404 and "gone" in answer.json["error"] and "\n" not in answer.json["error"]
        assert client.move(3).status == 200
        assert client.get("/api/frame", input=0, frame=0).status == 200


def test_parallel_requests_of_several_clips(tmp_path: Path) -> None:
    """More clips than are kept open, from several threads."""
    from tests.review.client import poses
    from tests.run_factory import make_run

    names = [f"c{i}.mp4" for i in range(4)]
    sources = {n: write_video(tmp_path / n, 12, WIDTH, HEIGHT, options={"g": str(4 + i)}) for i, n in enumerate(names)}
    out = make_run(tmp_path / "out", {n: [poses(1)] * 12 for n in names}, size=(WIDTH, HEIGHT), sources=sources)
    wanted = picture(WIDTH, HEIGHT, 7)
    problems: list[object] = []
    with review(out) as client:

        def ask(seed: int) -> None:
            random = np.random.default_rng(seed)
            for _ in range(12):
                number = int(random.integers(4))
                answer = client.get("/api/image", input=number, frame=7, width=int(random.integers(150, 170)))
                if answer.status != 200 or (
                    pixels(answer).shape == wanted.shape and not is_like(pixels(answer), wanted)
                ):
                    problems.append((number, answer.status, answer.content[:100]))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not problems


def test_needs_are_sorted_in_pages_and_follow_edits(out: Path) -> None:
    with review(out) as client:
        first = client.get("/api/needs", limit=3).json
        assert first["total"] > 3 and len(first["needs"]) == 3 and first["seq"] == 0
        rows = client.get("/api/needs").json["needs"]
        assert rows[:3] == first["needs"] and rows[3:5] == client.get("/api/needs", offset=3, limit=2).json["needs"]
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
        by_reason = client.get("/api/needs", reason="scores").json["needs"]
        values = [row["reasons"]["scores"] for row in by_reason]
        assert values == sorted(values, reverse=True)
        worst = rows[0]
        client.edit(op="accept", input=worst["input"], frame=worst["frame"], person=worst["person"])
        again = client.get("/api/needs").json
        assert again["seq"] == 1
        assert (worst["input"], worst["frame"], worst["person"]) not in [
            (row["input"], row["frame"], row["person"]) for row in again["needs"]
        ]


def test_a_proposal_writes_nothing_until_it_is_accepted(out: Path) -> None:
    with review(out) as client:
        client.move(3, x=20)
        client.move(9, x=80)
        asked = {"client": "one", "input": 1, "track": 1}
        found = client.post("/api/propagate", asked).json
        assert client.get("/api/session").json["seq"] == 2
        assert found["frames"] == sorted(map(int, found["values"])) and set(range(4, 9)) & {*found["frames"]}
        frame = found["frames"][0]
        point = found["values"][str(frame)]["p0"]["7"]
        made = client.post("/api/propagate/accept", {"client": "one", "proposal": found["proposal"]}).json
        assert made["seq"] == 3 and made["edit"]["op"] == "propagate"
        person = client.get("/api/frame", input=1, frame=frame).json["people"][0]
        assert person["propagated"] == [7] and person["keypoints"][7][:2] == point
        answer = client.post("/api/propagate/accept", {"client": "one", "proposal": found["proposal"]})
        assert answer.status == 404
        # After another edit a proposal is out of date.
        stale = client.post("/api/propagate", asked).json["proposal"]
        client.move(6, x=50)
        answer = client.post("/api/propagate/accept", {"client": "one", "proposal": stale})
        assert answer.status == 409 and "ask for a new one" in answer.json["error"]
        assert client.post("/api/propagate", {**asked, "track": 77}).status == 400
        undone = client.post("/api/undo", {"client": "one"}).json
        assert undone["frame"] == 6
        assert client.post("/api/undo", {"client": "one"}).json["frame"] == frame


def test_numbered_images_are_shown(tmp_path: Path) -> None:
    from tests.review.client import poses
    from tests.run_factory import make_run

    for number in range(5):
        write_photo(tmp_path / f"f_{number:03d}.png", picture(WIDTH, HEIGHT, number))
    pattern = tmp_path / "f_%03d.png"
    out = make_run(tmp_path / "out", {"f.mp4": [poses(1)] * 5}, size=(WIDTH, HEIGHT), sources={"f.mp4": pattern})
    with review(out) as client:
        for number in (4, 1, 3):
            answer = client.get("/api/image", input=0, frame=number)
            assert is_like(pixels(answer), picture(WIDTH, HEIGHT, number))
