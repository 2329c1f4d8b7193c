"""Random changes of COCO files: read, or refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.annotations.coco_keypoints import Annotations, read_annotations
from posecli.detect.boxes import read_boxes
from posecli.errors import PosecliError
from posecli.keypoints import COCO17
from posecli.train.data import Source, read_people
from tests.annotations_factory import dataset, figures, write

__all__ = ["write"]  # fixtures


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([2**63, -(2**70), 10**400, 1e308]),
    st.floats(), st.text(max_size=3), st.sampled_from(["\ud800", "1", "640", "\0", "person"]),
    st.lists(st.integers(-1, 3), max_size=4), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, entry in items for place in places(entry, (*path, key))]


def mutate(document: Any, data: st.DataObject, most: int = 3) -> None:
    """Replace one to `most` values of the document."""
    for _ in range(data.draw(st.integers(1, most))):
        place = data.draw(st.sampled_from(places(document)))
        target = document
        try:
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = data.draw(VALUES)
        except (TypeError, IndexError, KeyError):
            continue


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    document = dataset()
    document["categories"][0] |= {"skeleton": [[1, 2]], "sigmas": list(COCO17.sigmas or ()), "flip_pairs": [[1, 2]]}
    for annotation in document["annotations"]:
        annotation["keypoint_weights"] = [1] * 17
    mutate(document, data)
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
