"""COCO files as labelling tools write them: repaired, reported, or refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posecli.annotations.coco_keypoints import read_annotations
from posecli.detect.boxes import read_boxes
from posecli.errors import DataError
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.scoring import score_keypoints
from posecli.keypoints import COCO17
from posecli.train.data import Source, read_people
from tests.annotations_factory import (
    Change,
    category,
    dataset,
    each,
    figures,
    mappings,
    nested,
    null_entries,
    renamed,
    unlabelled,
    without,
    write,
)

__all__ = ["write"]  # fixtures


# What labelling tools write: the figures are those of the plain file. The last is a word of what is told.
SHAPES: list[tuple[str, Change, str]] = [
    ("plain", lambda document: None, ""),
    ("uuids", renamed(lambda i: f"{i:08x}-aaaa-bbbb"), ""),
    ("huge ids", renamed(lambda i: 2**63 + i), ""),
    ("ids beyond 64 bits", renamed(lambda i: 2**70 + i), ""),
    ("objects as ids", renamed(lambda i: {"$oid": f"{i:024x}"}), ""),
    ("ids as 1.0", renamed(float), ""),
    ("mixed ids", renamed(lambda i: i if i % 2 else str(i)), ""),
    ("text against number", each("annotations", image_id=lambda _, a: str(a["image_id"])), "6 annotations whose"),
    ("ids with zeros", each("annotations", image_id=lambda _, a: f"{a['image_id']:012d}"), "6 annotations whose"),
    ("text as category", each("annotations", category_id="1"), "6 annotations whose category_id is text"),
    ("no annotation ids", without("annotations", "id"), "6 annotations without an id"),
    ("uuid annotation ids", each("annotations", id=lambda i, _: f"u-{i}"), ""),
    ("null where v is 0", unlabelled(None), "6 annotations with null or no numbers"),
    ("nan where v is 0", unlabelled(float("nan")), "6 annotations with null or no numbers"),
    ("nested", nested, "6 annotations with keypoints in lists of three"),
    ("no num_keypoints", without("annotations", "num_keypoints"), ""),
    ("num_keypoints 0", each("annotations", num_keypoints=0), "6 annotations whose num_keypoints"),
    ("iscrowd null", each("annotations", iscrowd=None), ""),
    ("iscrowd false", each("annotations", iscrowd=False), ""),
    ("iscrowd text", each("annotations", iscrowd="0"), ""),
    ("no iscrowd", without("annotations", "iscrowd"), ""),
    ("segmentation", each("annotations", segmentation={"counts": None}), ""),
    ("size -1", each("images", width=-1, height=-1), "3 images whose width and height are no size (-1, -1)"),
    ("size 0", each("images", width=0, height=0), "3 images whose width"),
    ("size null", each("images", width=None, height=None), ""),
    ("size text", each("images", width="320", height="320"), "3 images with width and height as text"),
    ("no size", without("images", "width"), "3 images whose width"),
    ("skeleton null", category(skeleton=None), ""),
    ("skeleton of names", category(skeleton=[["nose", "left_eye"]]), ""),
    ("skeleton from 0", category(skeleton=[[0, 1], [0, 2]]), ""),
    ("skeleton beyond", category(skeleton=[[1, 99], "x", None, [1]]), ""),
    ("null entries", null_entries, "1 annotation that is null: left out (first: number 7)"),
    ("mappings", mappings, "images are a mapping"),
    ("names twice", lambda d: d["images"].insert(0, d["images"][0]), "1 image whose id an image before has too"),
    ("unlisted", lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "image_id": 404}),
     '1 annotation of images that are not listed: left out (first: annotation 9: no image 404)'),
]  # fmt: skip


@pytest.mark.parametrize(("change", "told"), [shape[1:] for shape in SHAPES], ids=[shape[0] for shape in SHAPES])
def test_shapes_of_labelling_tools_mean_the_same(write: Callable[[Any], Path], change: Change, told: str) -> None:
    expected = figures(write(dataset()))
    document = dataset()
    change(document)
    path = write(document)
    assert figures(path) == expected and 0 < expected["AP"] < 1
    found = read_annotations(path)
    assert len(found.people) == 6 and len(found.images) == 3
    assert not told or any(told in note for note in found.notes), found.notes
    assert bool(told) or not [note for note in found.notes if "skeleton" not in note]
    assert sum(map(len, read_boxes(path).by_id.values())) == 6
    (path.parent / "x").mkdir()
    for image in range(1, 4):
        (path.parent / "x" / f"{image:06d}.png").touch()
    learnt = read_people([Source(path, path.parent / "x")])
    assert len(learnt) == 6
    assert [n.removeprefix("a.json: ") for n in learnt.notes] == list(found.notes)


def test_areas_and_boxes_that_are_none(write: Callable[[Any], Path]) -> None:
    expected = dataset()
    each("annotations", area=lambda _, a: 0.53 * a["bbox"][2] * a["bbox"][3])(expected)
    figures_expected = figures(write(expected))
    for area in (0, -1, float("nan"), None, "none"):
        document = dataset()
        each("annotations", area=area)(document)
        path = write(document)
        assert figures(path) == figures_expected
        assert any(
            "6 annotations" in note and "0.53 of the box's area" in note for note in read_annotations(path).notes
        )
    for box in (None, [1, 2, -3, 4], [1, 2, float("inf"), 4], [1, 2, 0, 0], "box", [1, 2]):
        document = dataset()
        each("annotations", bbox=box)(document)
        found = read_annotations(write(document))
        assert any("6 annotations" in note and "made from the labelled keypoints" in note for note in found.notes)
        for person in found.people:
            points = np.array(person["keypoints"]).reshape(-1, 3)
            points = points[points[:, 2] > 0, :2]
            x, y, width, height = person["bbox"]
            assert (points >= (x, y)).all() and (points <= (x + width, y + height)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["annotations"][2].update(keypoints=[1, 2, 2]), "annotation 3: 3 keypoint values, not 51"),
        (lambda d: d["annotations"][2].update(keypoints=[[1, 2]] * 17), "annotation 3: 17 keypoint values"),
        (lambda d: d["annotations"][2]["keypoints"].__setitem__(0, None), "annotation 3: nose is [null"),
        (lambda d: d["annotations"].__setitem__(2, "text"), "annotation number 3 is \"text\""),
        (lambda d: d["annotations"][2].pop("image_id"), "annotation 3 has no image_id"),
        (lambda d: d["images"][1].pop("id"), "image number 2 has no id"),
        (lambda d: d.update(images=5), "images is 5, not a list"),
        (lambda d: d.update(categories=[]), "no categories"),
        (lambda d: d.update(annotations=None), "no annotations"),
        (each("annotations", category_id=7), "none of its 6 annotations is of category \"person\" (id 1): 6 of 7"),
        (each("annotations", image_id="x"), 'annotation 1: no image "x" in the file'),
    ],
)  # fmt: skip
def test_what_cannot_be_told_names_the_entry(write: Callable[[Any], Path], change: Change, words: str) -> None:
    document = dataset()
    change(document)
    with pytest.raises(DataError) as error:
        read_annotations(write(document))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", " \n", "[]", "null", "3", '"x"', "[" * 100_000, '{"images": ' + "[" * 2000, "{", "\ufeff"]
)
def test_files_that_are_none_are_one_line(write: Callable[[Any], Path], text: str) -> None:
    path = write(text)
    for read in (read_annotations, lambda p: read_people([Source(p, p.parent)])):
        with pytest.raises(DataError) as error:
            read(path)
        assert "\n" not in str(error.value)
    if text != "[]":
        with pytest.raises(DataError):
            read_boxes(path)


def test_encodings_with_and_without_a_mark(tmp_path: Path) -> None:
    text = json.dumps(dataset())
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"):
        path = tmp_path / "a.json"
        path.write_bytes(text.encode(encoding))
        assert len(read_annotations(path).people) == 6


def test_no_people_are_told_and_score_as_pycocotools_has_it(write: Callable[[Any], Path]) -> None:
    path = write(dataset() | {"annotations": []})
    truth = read_ground_truth(path, path.parent, needs_images=False)
    assert "no person with a labelled keypoint" in truth.notes[-1]
    assert score_keypoints(truth.dataset, [], COCO17).values["AP"] == -1
    with pytest.raises(DataError, match="no person with a labelled keypoint"):
        read_people([Source(path, path.parent)])
    assert read_boxes(path).by_id == {}
