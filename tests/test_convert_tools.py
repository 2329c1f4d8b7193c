"""The tools' own checks of what `posecli convert` writes; each is skipped by name where the tool is not installed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from posecli.convert.dataset import AnnotationSet, Report
from posecli.convert.formats import FORMATS
from posecli.convert.options import WriteOptions
from tests.convert_factory import photo_sets, video_sets
from tests.media_factory import picture, write_photo

ROUNDS = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def check(interface: Any, document: Any) -> None:
    for task in document:
        for prediction in task.get("predictions", []):
            assert interface.validate_prediction(prediction, return_errors=True) == []


@given(data=photo_sets(inside=False))
@ROUNDS
def test_label_studio_takes_the_predictions(data: AnnotationSet, tmp_path: Path) -> None:
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    path, options = tmp_path / "t.json", WriteOptions(label_as="predictions")
    FORMATS["label-studio"].write(data, path, options, Report())
    interface = sdk.LabelInterface(path.with_suffix(".label_config.xml").read_text())
    interface.validate()
    check(interface, json.loads(path.read_text()))


@given(data=video_sets(inside=False))
@ROUNDS
def test_label_studio_takes_tracks(data: AnnotationSet, tmp_path: Path) -> None:
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    path, options = tmp_path / "t.json", WriteOptions(label_as="predictions", video_tasks=True)
    FORMATS["label-studio"].write(data, path, options, Report())
    interface = sdk.LabelInterface(path.with_suffix(".label_config.xml").read_text())
    interface.validate()
    check(interface, json.loads(path.read_text()))


@given(data=photo_sets(inside=False).filter(lambda data: data.pictures))
@ROUNDS
def test_ultralytics_reads_every_label(data: AnnotationSet, tmp_path_factory: pytest.TempPathFactory) -> None:
    tool = pytest.importorskip("ultralytics.data.utils", reason="ultralytics is not installed")
    tmp_path = tmp_path_factory.mktemp("yolo")
    for photo in data.pictures:
        write_photo(tmp_path / "in" / photo.name, picture(16, 12))
    FORMATS["yolo-pose"].write(data, tmp_path / "out", WriteOptions(images=tmp_path / "in"), Report())
    found = tool.check_det_dataset(str(tmp_path / "out" / "data.yaml"), autodownload=False)
    assert found["kpt_shape"] == [len(data.keypoint_set), 3] and found["names"] == {0: data.label}
    assert found["kpt_names"] == {0: list(data.keypoint_set.names)}
    images = sorted(str(path) for path in Path(found["train"]).rglob("*.jpg"))
    assert len(images) == len(data.pictures)
    for image, labels in zip(images, tool.img2label_paths(images), strict=True):
        rows = [line for line in Path(labels).read_text().splitlines() if line]
        (_, boxes, _, _, keypoints, missing, _, _, corrupt, message) = tool.verify_image_label(
            (image, labels, "", True, 1, len(data.keypoint_set), 3, False)
        )
        assert not (missing or corrupt) and len(boxes) == len(keypoints) == len(set(rows)), message
