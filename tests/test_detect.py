"""Detectors: boxes from files, the whole picture, and the embedded network against torchvision's own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from posecli.detect import DETECTORS, load_detector
from posecli.detect.boxes import read_boxes
from posecli.detect.embedded import letterbox
from posecli.detect.person import PersonConfig, build_fcos
from posecli.errors import DataError, MachineError, UsageError
from posecli.types import Frame
from posecli.weights.files import save_weights
from tests.media_factory import picture

TRUTH = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "sub/b.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5]},
        {"id": 4, "image_id": 7, "category_id": 1, "bbox": [1, 1, 0, 5]},
    ],
}


def boxes_file(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(document))
    return path


def test_boxes_of_a_ground_truth_are_found_by_file_name(tmp_path: Path) -> None:
    path = boxes_file(tmp_path, TRUTH)
    detector = load_detector(f"boxes:{path}")
    frame = Frame(picture())
    first, second = detector([frame, frame], ["photos/a.jpg", "other/b.jpg"])
    assert first.boxes.tolist() == [[10, 20, 40, 60]] and first.scores.tolist() == [1]
    assert len(second) == 0
    with pytest.raises(DataError, match="does not list"):
        detector([frame], ["unknown.jpg"])
    assert dict(read_boxes(path).skipped) == {"crowds": 1, "of another category": 1, "without a size": 1}


def test_boxes_of_a_detections_list_are_found_by_number_and_sorted(tmp_path: Path) -> None:
    entries = [
        {"image_id": 139, "category_id": 1, "bbox": [i, 0, 10, 10], "score": s} for i, s in enumerate([0.2, 0.9, 0.5])
    ]
    detector = load_detector(f"boxes:{boxes_file(tmp_path, entries)}", threshold=0.3, max_people=5)
    found, nobody = detector([Frame(picture())] * 2, ["000000000139.jpg", "000000000140.jpg"])
    assert found.boxes[:, 0].tolist() == [1, 2] and len(nobody) == 0
    with pytest.raises(DataError, match="no number"):
        detector([Frame(picture())], ["holiday.jpg"])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([{"image_id": 1, "bbox": [0, 0, -5, 5], "score": 1}], "not x, y, width, height"),
        ([{"image_id": 1, "bbox": [0, 0, 5], "score": 1}], "not x, y, width, height"),
        ([{"image_id": 1, "bbox": [0, 0, 5, 5], "score": float("nan")}], "not JSON|not a number"),
        ([{"bbox": [0, 0, 5, 5]}], "no image_id"),
        ([{"image_id": 1, "bbox": "abcd"}], "not a number"),
        ({"images": []}, "neither a COCO dataset"),
        ({"images": [], "annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}]}, "does not list"),
        ("text", "neither"),
    ],
)
def test_broken_boxes_files_say_what_is_wrong(tmp_path: Path, document: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_boxes(boxes_file(tmp_path, document))


def test_unknown_names_and_files() -> None:
    with pytest.raises(UsageError, match="choose from person"):
        load_detector("yolo")
    with pytest.raises(UsageError, match="boxes:FILE"):
        load_detector("boxes")
    with pytest.raises(UsageError, match="No such file"):
        load_detector("boxes:nowhere.json")


def test_whole_is_one_person_as_large_as_the_picture() -> None:
    found = load_detector("whole")([Frame(picture(50, 30))], ["x"])[0]
    assert found.boxes.tolist() == [[0, 0, 50, 30]]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded detector's network with random weights that fire somewhere."""
    config = PersonConfig(input_size=(128, 128), threshold=0.4)
    torch.manual_seed(0)
    model = build_fcos(config)
    with torch.no_grad():
        model.head.classification_head.cls_logits.bias.fill_(-0.5)
        model.head.regression_head.bbox_reg.bias.fill_(1.5)  # boxes of some size
        for name, parameter in model.head.named_parameters():
            if "cls_logits.weight" in name:
                parameter.normal_(0, 0.2)
    path = tmp_path_factory.mktemp("detector") / "person.safetensors"
    save_weights(path, model.state_dict(), {"kind": "detector", "config": vars(config)})
    return path


def test_embedded_network_equals_torchvisions_own_post_processing(untrained: Path) -> None:
    from posecli.weights.files import load_weights

    tensors, header = load_weights(untrained)
    config = PersonConfig.from_json(header["config"])
    model = build_fcos(config)
    model.load_state_dict(tensors)
    model.eval()
    frame = Frame(picture(128, 128, 4))
    with torch.inference_mode():
        output = model([torch.from_numpy(frame.pixels).permute(2, 0, 1).float() / 255])[0]
    assert len(output["boxes"]) > 3
    for runtime in ("torch", "openvino"):
        found = load_detector("person", device="cpu", runtime=runtime, weights=untrained)([frame], ["x"])[0]
        assert len(found) == len(output["boxes"])
        np.testing.assert_allclose(found.scores, output["scores"], atol=0.01)
        np.testing.assert_allclose(found.boxes, output["boxes"], atol=1)


@pytest.mark.parametrize("shape", [(1, 1), (8, 5), (100, 400), (400, 90), (1000, 20)])
def test_any_shape_and_any_batch(untrained: Path, shape: tuple[int, int]) -> None:
    detector = load_detector("person", device="cpu", runtime="torch", weights=untrained, threshold=0.0)
    odd, black = Frame(picture(shape[1], shape[0])), Frame(np.zeros((*shape, 3), np.uint8))
    together = detector([odd, black], ["a", "b"])
    alone = detector([odd], ["a"])[0]
    np.testing.assert_array_equal(together[0].boxes, alone.boxes)
    for found in together:
        assert (
            (found.boxes >= 0).all() and (found.boxes[:, 2] <= shape[1]).all() and (found.boxes[:, 3] <= shape[0]).all()
        )
        assert (np.diff(found.scores) <= 0).all()


def test_letterbox_keeps_the_aspect() -> None:
    canvas, scales = letterbox([picture(200, 100)], (64, 64))
    assert canvas.shape == (1, 64, 64, 3)
    np.testing.assert_allclose(scales[0], (0.32, 0.32))
    assert (canvas[0, 32:] == 114).all() and not (canvas[0, :32] == 114).all()


def test_official_detector_without_its_weights_says_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.error
    import urllib.request

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("POSECLI_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with pytest.raises(MachineError, match=r"put ssdlite320_mobilenet_v3_large_coco-\w+\.pth into"):
        load_detector("ssdlite320_mobilenet_v3_large")


def test_official_detector_runs_with_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    path = tmp_path / "ssd.pth"
    torch.save(get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None).state_dict(), path)
    detector = load_detector("ssdlite320_mobilenet_v3_large", device="cpu", weights=path)
    assert detector([Frame(picture())], ["x"])[0].boxes.shape[1] == 4
    path.write_bytes(b"PK junk")
    with pytest.raises(DataError, match="not the weights"):
        load_detector("ssdlite320_mobilenet_v3_large", device="cpu", weights=path)


def test_every_detector_has_a_name_and_a_builder() -> None:
    assert {"person", "boxes", "whole", "fasterrcnn_resnet50_fpn_v2", "keypointrcnn_resnet50_fpn"} <= set(DETECTORS)
