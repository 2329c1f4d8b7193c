"""COCO files of labelling tools, through the one reader that eval, train and boxes share."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.annotations.boxes import read_person_boxes
from posecli.annotations.coco_keypoints import Annotations, read_annotations
from posecli.detect.boxes import read_boxes
from posecli.errors import DataError, PosecliError, UsageError
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.predictions import read_results
from posecli.evaluate.scoring import score_keypoints
from posecli.keypoints import COCO17, describe_category
from posecli.sides import find_flip_pairs
from posecli.train.data import Source, read_people
from tests.test_eval_command import people

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def to_file(document: Any) -> Path:
        path = tmp_path / "a.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return to_file


def dataset() -> dict[str, Any]:
    """Six people in three images, each with one keypoint that is not labelled."""
    document = copy.deepcopy(dict(people(6, 3).dataset))
    for annotation in document["annotations"]:
        annotation["keypoints"][3:6] = [0, 0, 0]
        annotation["num_keypoints"] = 16
    return document


def each(part: str, **change: Any) -> Change:
    def do(document: dict[str, Any]) -> None:
        for number, entry in enumerate(document[part]):
            for key, value in change.items():
                entry[key] = value(number, entry) if callable(value) else value

    return do


def without(part: str, key: str) -> Change:
    return lambda document: [entry.pop(key) for entry in document[part]] and None


def renamed(new: Callable[[int], Any]) -> Change:
    def do(document: dict[str, Any]) -> None:
        each("images", id=lambda _, entry: new(entry["id"]))(document)
        each("annotations", image_id=lambda _, entry: new(entry["image_id"]))(document)

    return do


def unlabelled(value: Any) -> Change:
    return each("annotations", keypoints=lambda _, a: a["keypoints"][:3] + [value, value, 0] + a["keypoints"][6:])


def nested(document: dict[str, Any]) -> None:
    each("annotations", keypoints=lambda _, a: np.reshape(a["keypoints"], (-1, 3)).tolist())(document)


def category(**fields: Any) -> Change:
    return lambda document: document["categories"][0].update(fields)


def null_entries(document: dict[str, Any]) -> None:
    for part in ("images", "annotations", "categories"):
        document[part].append(None)


def mappings(document: dict[str, Any]) -> None:
    for part in ("images", "annotations"):
        document[part] = {str(entry["id"]): entry for entry in document[part]}


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


def figures(path: Path) -> dict[str, float]:
    """AP of the truth moved by some pixels."""
    truth = read_ground_truth(path, path.parent, needs_images=False)
    results = []
    for number, person in enumerate(truth.dataset["annotations"]):
        points = np.array(person["keypoints"], float).reshape(17, 3) + (4 + number, 3, 0)
        results.append({"image_id": person["image_id"], "keypoints": points.reshape(-1).tolist(), "score": 0.5})
    return score_keypoints(truth.dataset, results, truth.keypoint_set).values


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


# ---- categories ---------------------------------------------------------------------------------------


def with_hand() -> dict[str, Any]:
    document = dataset()
    document["categories"].insert(0, {"id": 2, "name": "hand", "keypoints": ["a", "b", "c"]})
    hand = {"id": 50, "image_id": 1, "category_id": 2, "bbox": [1, 1, 5, 5], "keypoints": [1, 1, 2] * 3}
    document["annotations"].insert(0, hand)
    return document


def test_the_category_is_told_and_can_be_chosen(write: Callable[[Any], Path]) -> None:
    path = write(with_hand())
    found = read_annotations(path)
    assert len(found.people) == 6 and any('"person" (id 1) taken beside "hand" (id 2)' in note for note in found.notes)
    for wanted in ("hand", "HAND", "2"):
        hands = read_annotations(path, wanted)
        assert [person["id"] for person in hands.people] == [50] and hands.keypoint_set.names == ("a", "b", "c")
    with pytest.raises(UsageError, match=r'--category "foot".*"hand" \(id 2\), "person" \(id 1\)'):
        read_annotations(path, "foot")
    document = with_hand()
    document["categories"][1]["name"] = "dancer"
    assert read_annotations(write(document)).category.name == "dancer"  # more annotations
    document["categories"][0]["name"] = "Person"
    assert read_annotations(write(document)).category.id == 2


def test_boxes_are_of_the_person_whatever_its_number(write: Callable[[Any], Path]) -> None:
    def boxes(categories: Any, ids: list[Any]) -> int:
        images = [{"id": 1, "file_name": "a.jpg"}]
        annotations = [{"image_id": 1, "category_id": i, "bbox": [n, 0, 9, 9]} for n, i in enumerate(ids)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        return len(read_person_boxes(write(document)).boxes)

    person, ball = {"id": 3, "name": "Person"}, {"id": 1, "name": "ball"}
    assert boxes([ball, person], [3, 3, 1]) == 2
    assert boxes([ball, {"id": 0, "name": "x", "keypoints": ["a"]}], [0, 1]) == 1
    assert boxes([{"id": 0, "name": "human"}], [0, 0]) == 2
    assert boxes([{"id": "p", "name": "person"}], ["p"]) == 1
    assert boxes(None, [0, 0]) == 2 and boxes(None, [7, 1, 1]) == 2
    for categories, ids, words in (
        ([ball, person], [1, 1], r"none of its 2 boxes is of category \"Person\" \(id 3\): 2 of \"ball\""),
        ([ball, {"id": 2, "name": "car"}], [1, 2], "no category is called person"),
        (None, [5, 6], "is of category 1, people: they are of 5, 6"),
    ):
        with pytest.raises(DataError, match=words):
            boxes(categories, ids)
    results = [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 5, 5], "score": 0.9}] * 3
    found = read_boxes(write(results))
    assert len(found.by_id[1]) == 3 and "boxes of category 0 taken" in found.notes[0]


def test_boxes_of_pictures_named_by_text(write: Callable[[Any], Path]) -> None:
    entries = [{"image_id": i, "bbox": [0, 0, 5, 5], "score": 0.9} for i in ("holiday", "b.jpg", "00012")]
    table = read_boxes(write(entries))
    assert [len(table.of(name)) for name in ("x/holiday.png", "b.jpg", "12.jpg", "other.jpg")] == [1, 1, 1, 0]


# ---- results ------------------------------------------------------------------------------------------


def test_results_keep_the_ids_of_the_file(write: Callable[[Any], Path], tmp_path: Path) -> None:
    document = dataset()
    renamed(lambda i: f"frame-{i}")(document)
    document["categories"][0]["id"] = "p"
    each("annotations", category_id="p")(document)
    path = write(document)
    truth = read_ground_truth(path, path.parent, needs_images=False)
    results = tmp_path / "r.json"
    items = [{"image_id": a["image_id"], "category_id": "p", "keypoints": a["keypoints"], "score": 1}
             for a in document["annotations"]]  # fmt: skip
    results.write_text(json.dumps(items))
    found = read_results(results, truth)
    assert score_keypoints(truth.dataset, found.results, COCO17).values["AP"] == 1
    assert [truth.own_result(item)["image_id"] for item in found.results] == [a["image_id"] for a in items]
    assert truth.own_result(found.results[0])["category_id"] == "p"


def test_results_by_text_are_matched_or_the_difference_is_seen(write: Callable[[Any], Path], tmp_path: Path) -> None:
    truth = read_ground_truth(write(dataset()), tmp_path, needs_images=False)
    results = tmp_path / "r.json"

    def read(image_id: Any) -> Any:
        item = {"image_id": image_id, "category_id": 1, "keypoints": [1, 1, 1] * 17, "score": 1}
        results.write_text(json.dumps([item]))
        return read_results(results, truth)

    assert 'first: "1" for 1' in read("1").remarks[0]
    with pytest.raises(DataError, match='not in the annotations: "1a"; there they are like 1'):
        read("1a")


@pytest.mark.filterwarnings("error")
def test_results_beyond_all_size_are_far_away(write: Callable[[Any], Path], tmp_path: Path) -> None:
    truth = read_ground_truth(write(dataset()), tmp_path, needs_images=False)
    results = tmp_path / "r.json"
    items = [{"image_id": 1, "keypoints": [1e308, -1e308, 1] * 17, "score": score} for score in (1e308, 0.5)]
    results.write_text(json.dumps(items))
    found = read_results(results, truth)
    assert np.isfinite(found.keypoints).all() and np.isfinite(found.scores).all()
    assert score_keypoints(truth.dataset, found.results, COCO17).values["AP"] == 0


# ---- left and right -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("LShoulder", "RShoulder"),
        ("shoulder_l", "shoulder_r"),
        ("shoulderLeft", "shoulderRight"),
        ("earL", "earR"),
        ("Hip.L", "Hip.R"),
        ("L-knee", "R-knee"),
        ("lank", "rank"),
        ("L Shoulder", "R Shoulder"),
        ("paw1LH", "paw1RH"),
        ("l_eye", "r_eye"),
        ("Left Eye", "Right Eye"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("lefteye", "righteye"),
        ("auge_links", "auge_rechts"),
        ("左目", "右目"),
        ("FL_paw", "FR_paw"),
        ("LSHOULDER", "RSHOULDER"),
        ("eye.L.001", "eye.R.001"),
        ("left_eye_right_corner", "right_eye_left_corner"),
        ("kp3_L", "kp3_R"),
    ],
)
def test_pairs_of_all_styles_of_names(left: str, right: str) -> None:
    assert find_flip_pairs(["nose", right, left]) == ((2, 1),)
    found, _ = describe_category({"keypoints": ["nose", left, right]})
    assert found.mirrors and found.flip_indices == (0, 2, 1) and (found.side(1), found.side(2)) == ("left", "right")


@pytest.mark.parametrize(
    "names",
    [["nail", "nair"], ["ball", "barr"], ["lip", "rip"], ["kp1", "kp2"], [f"kp_{c}" for c in "klmnopqrs"],
     ["leftovers", "rightful"], ["left_hand"], ["nose", "tail"]],
)  # fmt: skip
def test_no_pairs_where_there_are_none(names: list[str]) -> None:
    assert find_flip_pairs(names) == ()
    assert not describe_category({"keypoints": names})[0].mirrors


def test_a_side_without_its_partner_turns_mirroring_off() -> None:
    found, _ = describe_category({"keypoints": ["left_eye", "right_eye", "left_paw"]})
    assert found.flip_pairs == ((0, 1),) and not found.mirrors
    assert describe_category({"keypoints": ["nose"]})[0].mirrors


@pytest.mark.parametrize(
    ("given", "order", "told"),
    [
        ([[1, 2]], (0, 2, 1, 3), ""),
        ([["b", "c"]], (0, 2, 1, 3), ""),
        ([[3, 4]], (0, 1, 3, 2), ""),  # only from 1 on it fits
        ({"b": "c"}, (0, 2, 1, 3), ""),
        ([], (0, 1, 2, 3), ""),
        ([[1, 2], [2, 3]], None, "two pairs"),
        ([[1, 9]], None, "beyond"),
        ([["b", "z"]], None, "not two of the keypoints"),
        ("bc", None, "no list"),
    ],
)
def test_a_category_may_name_its_pairs(given: Any, order: tuple[int, ...] | None, told: str) -> None:
    found, notes = describe_category({"keypoints": ["a", "b", "c", "d"], "flip_pairs": given})
    assert found.mirrors == (order is not None)
    assert order is None or found.flip_indices == order
    assert any(told in note for note in notes) if told else not notes


def test_cocos_keypoints_by_other_names_have_cocos_sigmas() -> None:
    names = [name.replace("left_", "L").replace("right_", "R") for name in COCO17.names]
    found, notes = describe_category({"name": "person", "keypoints": names})
    assert found.sigmas == COCO17.sigmas and "COCO's sigmas" in notes[0]
    assert describe_category({"keypoints": [f"p{i}" for i in range(17)]})[0].sigmas is None


# ---- mutated files ------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([2**63, -(2**70), 10**400, 1e308]),
    st.floats(), st.text(max_size=3), st.sampled_from(["\ud800", "1", "640", "\0", "person"]),
    st.lists(st.integers(-1, 3), max_size=4), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, entry in items for place in places(entry, (*path, key))]


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    document = dataset()
    document["categories"][0] |= {"skeleton": [[1, 2]], "sigmas": list(COCO17.sigmas or ()), "flip_pairs": [[1, 2]]}
    for annotation in document["annotations"]:
        annotation["keypoint_weights"] = [1] * 17
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(document)))
        target = document
        try:
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = data.draw(VALUES)
        except (TypeError, IndexError, KeyError):
            continue
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    for read in (
        lambda: figures(path),
        lambda: read_people([Source(path, tmp_path)], missing_limit=1),
        lambda: read_boxes(path),
    ):
        try:
            read()
        except PosecliError as error:
            assert "\n" not in str(error)


def test_reading_does_not_change_what_is_plain(write: Callable[[Any], Path]) -> None:
    document = dataset()
    found: Annotations = read_annotations(write(document))
    for person, entry in zip(found.people, document["annotations"], strict=True):
        assert person == entry
    assert found.notes == ()
