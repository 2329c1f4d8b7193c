"""Detectors: boxes from files, the whole picture, and the embedded network against torchvision's own."""

import json
import urllib.error
import urllib.request
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import FCOS

from posecli.detect import DETECTORS, load_detector, torchvision_zoo
from posecli.detect.boxes import read_boxes
from posecli.detect.embedded import canvas_shape, letterbox, select
from posecli.detect.person import PersonNetwork, build_fcos
from posecli.detect.person_config import ARCHITECTURES, PersonConfig
from posecli.errors import DataError, MachineError, UsageError
from posecli.media.images import read_image
from posecli.types import Frame
from posecli.weights.files import find_weights, load_weights, save_weights, sha256
from tests.entry_points import posecli
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
    found, empty = detector([Frame(picture())] * 2, ["000000000139.jpg", "000000000140.jpg"])
    assert found.boxes[:, 0].tolist() == [1, 2] and len(empty) == 0
    with pytest.raises(DataError, match="no number"):
        detector([Frame(picture())], ["holiday.jpg"])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([{"image_id": 1, "bbox": [0, 0, -5, 5], "score": 1}], "not x, y, width, height"),
        ([{"image_id": 1, "bbox": [0, 0, 5], "score": 1}], "not x, y, width, height"),
        ([{"image_id": 1, "bbox": [0, 0, 5, 5], "score": float("nan")}], "entry 1: score nan is not within"),
        ([{"image_id": 1, "bbox": [0, float("inf"), 5, 5], "score": 1}], "not x, y, width, height"),
        ([{"image_id": 1, "bbox": [9, 9, 5, 5], "score": 1}, {"image_id": 1, "bbox": [9, 9, 5, -4]}], "entry 2"),
        ([{"image_id": 1, "bbox": [0, 0, 5, 5], "score": 37}], "not within 0 to 1"),
        ({"images": [{"id": 1}], "annotations": []}, "without a file_name"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 1, "image_id": 1}]}, "have no bbox"),
        ([{"bbox": [0, 0, 5, 5]}], "no image_id"),
        ([{"image_id": 1, "bbox": "abcd"}], "not x, y, width, height"),
        ({"images": []}, "neither a COCO dataset"),
        ({"images": [], "annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}]}, "does not list"),
        ("text", "neither"),
    ],
)
def test_broken_boxes_files_say_what_is_wrong(tmp_path: Path, document: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_boxes(boxes_file(tmp_path, document))


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{folder}/a.jpg"} for i, folder in enumerate(("one", "two"), 1)]
    annotations = [{"id": i, "image_id": i, "category_id": 1, "bbox": [i, 0, 9, 9]} for i in (1, 2)]
    detector = load_detector(f"boxes:{boxes_file(tmp_path, {'images': images, 'annotations': annotations})}")
    frame = Frame(picture())
    assert [found.boxes[0, 0] for found in detector([frame] * 2, ["photos/two/a.jpg", "one/a.jpg"])] == [2, 1]
    with pytest.raises(DataError, match="several pictures named"):
        detector([frame], ["a.jpg"])


def test_frames_of_a_video_are_found_by_their_number(tmp_path: Path) -> None:
    images = [{"id": i + 1, "file_name": f"clips/a.mp4#{i:06d}"} for i in range(2)]
    annotations = [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [3, 0, 9, 9]}]
    detector = load_detector(f"boxes:{boxes_file(tmp_path, {'images': images, 'annotations': annotations})}")
    frames = [Frame(picture(), index, Fraction(index, 25)) for index in range(3)]
    assert [len(found) for found in detector(frames[:2], ["x/a.mp4"] * 2)] == [0, 1]
    with pytest.raises(DataError, match="does not list"):
        detector(frames[2:], ["x/a.mp4"])
    numbers = load_detector(f"boxes:{boxes_file(tmp_path, [])}")
    with pytest.raises(DataError, match="frames of a video"):
        numbers(frames[:1], ["000000000139.mp4"])


def test_boxes_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outside = {"id": 5, "image_id": 7, "category_id": 1, "bbox": [500, 20, 30, 40]}
    detector = load_detector(f"boxes:{boxes_file(tmp_path, TRUTH | {'annotations': [*TRUTH['annotations'], outside]})}")
    assert "1 crowds" in caplog.text and "1 of another category" in caplog.text
    assert len(detector([Frame(picture())], ["a.jpg"])[0]) == 1
    assert "1 outside of the picture" in caplog.text


def test_a_broken_boxes_file_ends_the_run_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "a.jpg"
    cv2.imwrite(str(photo), picture())
    path = boxes_file(tmp_path, [{"image_id": 1, "bbox": [0, 0, -5, 5], "score": 1}])
    result = posecli(capfd, "run", photo, "--out", tmp_path / "out", "--detector", f"boxes:{path}")
    assert result.code == 1
    assert result.err.splitlines()[-1].endswith("entry 1: bbox [0, 0, -5, 5] is not x, y, width, height")


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


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def untrained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded detector with random weights that fire somewhere."""
    config = PersonConfig(request.param, input_size=(128, 128), threshold=0.4)
    torch.manual_seed(0)
    model = build_fcos(config)
    fire_somewhere(model)
    path = tmp_path_factory.mktemp("detector") / "person.safetensors"
    save_weights(path, model.state_dict(), {"kind": "detector", "config": vars(config)})
    return path


def fire_somewhere(model: FCOS) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    for scores, boxes in zip(model.head.scores, model.head.boxes, strict=True):
        scores.weight.data *= 20  # scores far apart
        scores.bias.data.fill_(-2)
        boxes.weight.data /= 50
        boxes.bias.data.fill_(1.5)


def test_embedded_network_equals_torchvisions_own_post_processing(untrained: Path) -> None:
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


@pytest.mark.parametrize(
    ("picture_shape", "canvas"),
    [
        ((720, 1280), (256, 416)),
        ((1280, 720), (416, 256)),
        ((480, 640), (320, 416)),
        ((500, 500), (416, 416)),
        ((100, 400), (192, 416)),
        ((1, 5000), (192, 416)),
        ((3, 2), (416, 320)),
    ],
)
def test_canvas_ends_soon_after_the_picture(picture_shape: tuple[int, int], canvas: tuple[int, int]) -> None:
    assert canvas_shape(picture_shape, (416, 416)) == canvas


def test_letterbox_keeps_the_aspect() -> None:
    canvas, scales = letterbox([picture(200, 100)], (64, 64))
    assert canvas.shape == (1, 64, 64, 3)
    np.testing.assert_allclose(scales[0], (0.32, 0.32))
    assert (canvas[0, 32:] == 114).all() and not (canvas[0, :32] == 114).all()


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_people_of_the_samples_are_the_same_in_every_runtime_and_batch(samples: Path, runtime: str) -> None:
    """Within a pixel and a hundredth of plain torch: the module as it is, one picture at a time."""
    names = sorted(path.name for path in samples.glob("*.jpg"))
    frames = [Frame(read_image(samples / name)) for name in names]
    tensors, header = load_weights(find_weights("person"))
    config = PersonConfig.from_json(header["config"])
    model = build_fcos(config)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    network = PersonNetwork(model, config).eval()
    detector = load_detector("person", device="cpu", runtime=runtime, threshold=0.3)
    together = detector(frames, names)
    assert sum(map(len, together)) >= 4
    for frame, name, found in zip(frames, names, together, strict=True):
        alone = detector([frame], [name])[0]
        np.testing.assert_array_equal(found.boxes, alone.boxes)
        np.testing.assert_array_equal(found.scores, alone.scores)
        canvas, scales = letterbox([frame.pixels], canvas_shape((frame.height, frame.width), config.input_size))
        with torch.inference_mode():
            boxes, scores = network(torch.from_numpy(canvas))
        plain = select(
            boxes[0].numpy(), scores[0].numpy(), scales[0], frame, detector.threshold, config.nms_iou, limit=100
        )
        assert len(found) == len(plain)
        np.testing.assert_allclose(found.boxes, plain.boxes, atol=1)
        np.testing.assert_allclose(found.scores, plain.scores, atol=0.01)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and empty folders where weights may lie: $POSECLI_WEIGHTS_DIR, and hub for torch.hub."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("POSECLI_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return tmp_path


OFFICIAL = [name for name in DETECTORS if name not in ("person", "boxes", "whole")]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_detector_without_its_weights_says_where_they_belong(offline: Path, name: str) -> None:
    with pytest.raises(MachineError, match=rf"put {name}\w*-\w+\.pth into {offline}, or give it with"):
        load_detector(name)


@pytest.mark.parametrize("command", ["run", "pull"])
def test_official_weights_missing_offline_is_exit_4_and_one_line(
    offline: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(offline / "a.jpg"), picture())
    name = "ssdlite320_mobilenet_v3_large"
    words = {"run": ["run", offline / "a.jpg", "--out", offline / "out", "--detector", name]}
    result = posecli(capfd, *words.get(command, ["weights", "pull", name]))
    assert result.code == 4
    last = result.err.splitlines()[-1]
    assert last.startswith(f"posecli: {name}: cannot fetch https://") and f"into {offline}" in last
    assert "Traceback" not in result.err and not result.out


def test_pull_of_a_name_that_is_not_official(capfd: pytest.CaptureFixture[str]) -> None:
    result = posecli(capfd, "weights", "pull", "yolo")
    assert result.code == 2 and "choose from fasterrcnn_resnet50_fpn_v2" in result.err


def test_pull_finds_weights_in_the_folder_of_the_environment(
    offline: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file of the official name is taken if its content has the SHA-256 that the name says."""
    file = offline / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    file.write_bytes(b"no weights")
    result = posecli(capfd, "weights", "pull", "ssdlite320_mobilenet_v3_large")
    assert result.code == 4 and "damaged" in result.err and str(file) in result.err
    monkeypatch.setattr(torchvision_zoo, "sha256", lambda _: "a79551df" + 56 * "0")
    result = posecli(capfd, "weights", "pull", "ssdlite320_mobilenet_v3_large")
    assert result.code == 0 and result.out.strip() == str(file)


@pytest.fixture(scope="module", params=["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def official(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An official detector's name, and a file with random weights of its shape."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("official") / "weights.pth"
    torch.save(get_model(request.param, weights=None, weights_backbone=None).state_dict(), path)
    return request.param, path


@pytest.mark.parametrize("shape", [(1, 1), (40, 160), (240, 320)])
def test_official_detector_runs_with_weights_from_a_file(official: tuple[str, Path], shape: tuple[int, int]) -> None:
    name, path = official
    detector = load_detector(name, device="cpu", weights=path, threshold=0.0)
    frames = [Frame(picture(shape[1], shape[0])), Frame(np.zeros((*shape, 3), np.uint8))]
    for found in detector(frames, ["x", "y"]):
        assert found.boxes.shape == (len(found), 4) and len(found) <= 100
        assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= (shape[1], shape[0])).all()
        assert (np.diff(found.scores) <= 0).all()
    assert detector.name == name and detector.weights_sha256 is not None


def test_run_takes_an_official_detector_with_weights_from_a_file(
    official: tuple[str, Path], tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, path = official
    cv2.imwrite(str(tmp_path / "a.jpg"), picture())
    arguments = ["--detector", name, "--detector-weights", path, "--weights", tiny_weights, "--device", "cpu"]
    result = posecli(capfd, "run", tmp_path / "a.jpg", "--out", tmp_path / "out", *arguments)
    assert result.code == 0, result.err
    models = json.loads((tmp_path / "out" / "run.json").read_text())["models"]
    assert models["detector"]["name"] == name and models["detector"]["sha256"] == sha256(path)


def test_a_file_that_is_not_the_weights_of_its_detector(official: tuple[str, Path], tmp_path: Path) -> None:
    name, path = official
    for content in (b"PK junk", b"", path.read_bytes()[:5000]):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(DataError, match=f"not the weights of {name}"):
            load_detector(name, device="cpu", weights=tmp_path / "x.pth")
    with pytest.raises(MachineError, match="no such weights file"):
        load_detector(name, device="cpu", weights=tmp_path / "missing.pth")


def test_official_detectors_are_all_known_to_torchvision() -> None:
    for name in OFFICIAL:
        assert get_model_weights(name).DEFAULT.url.endswith(".pth")


def test_every_detector_has_a_name_and_a_builder() -> None:
    assert {"person", "boxes", "whole", "fasterrcnn_resnet50_fpn_v2", "keypointrcnn_resnet50_fpn"} <= set(DETECTORS)
    assert len(OFFICIAL) == 7
