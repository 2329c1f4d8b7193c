"""The prediction path on a torch device against the one in numpy and OpenCV: decoding, selection, poses of pictures."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.detect import load_detector
from posecli.device.nms import suppress
from posecli.errors import DataError
from posecli.geometry import iou, nms
from posecli.pose import codec, codec_torch, runner
from posecli.pose.codec_torch import AxisDecoder
from posecli.pose.estimator import Estimator, load_estimator
from posecli.predict import Predictor
from posecli.runtime.fixed_batch import CapturedFunction
from posecli.types import Detections, Frame, Poses
from tests.entry_points import posecli as command
from tests.media_factory import picture

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def logits(seed: int, shape: tuple[int, int] = (40, 5), bins: int = 96, sigma: float = 3.0) -> np.ndarray:
    """Peaks at all places, near the borders too, some with a second one; and noise."""
    random = np.random.default_rng(seed)
    centres = random.uniform(-2, bins + 1, (*shape, 2, 1))
    heights = random.uniform(3, 9, (*shape, 2, 1)) * [[1], [0.7]]
    peaks = np.maximum(heights - (np.arange(bins) - centres) ** 2 / (2 * sigma**2), -4).max(axis=2)
    return (peaks + random.normal(0, 0.15, peaks.shape)).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("decoder", sorted(codec.DECODERS))
def test_decoding_in_torch_is_that_in_numpy(device: str, decoder: str) -> None:
    values, sigmas = logits(1), np.random.default_rng(2).uniform(0.4, 9, (40, 5)).astype(np.float32)
    expected = codec.decode(values, 3.0, decoder, 0.8, sigmas)
    axis = AxisDecoder(96, 3.0, 0.8, decoder).to(device)
    found = [v.cpu().numpy() for v in axis(torch.from_numpy(values).to(device), torch.from_numpy(sigmas).to(device))]
    np.testing.assert_allclose(found[0], expected.bins, atol=0.01)
    np.testing.assert_allclose(found[1], expected.std, atol=0.01)
    np.testing.assert_allclose(found[2], expected.scores, atol=1e-5)


def test_both_codecs_have_the_same_decoders() -> None:
    assert set(codec.DECODERS) == set(codec_torch.DECODERS)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 2.5])
def test_merging_mirrored_logits_in_torch_is_that_in_numpy(ratio: float) -> None:
    own, other = (logits(3), logits(4)), (logits(5), logits(6))
    order = (0, 2, 1, 4, 3)
    expected = codec.merge_flipped(own, other, order, ratio)
    tensors = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in (own, other)]
    for a, b in zip(expected, codec_torch.merge_flipped(*tensors, torch.tensor(order), ratio), strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.3, 0.5, 0.7]))
@settings(max_examples=60, deadline=None)
def test_suppression_in_torch_is_that_in_numpy(seed: int, count: int, threshold: float) -> None:
    random = np.random.default_rng(seed)
    centres = np.round(random.uniform(0, 60, (count, 2)))
    half = np.round(random.uniform(2, 25, (count, 2)))
    boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
    expected = nms(boxes, np.arange(count, 0, -1, np.float32), threshold)
    padded = torch.zeros((2, count + 3, 4))
    padded[0, :count] = torch.from_numpy(boxes)
    usable = torch.zeros((2, count + 3), dtype=torch.bool)
    usable[0, :count] = True
    kept, settled = suppress(padded, usable, threshold)
    assert settled.all() and not kept[1].any()
    assert kept[0].nonzero()[:, 0].tolist() == sorted(expected.tolist())


def test_a_chain_of_boxes_that_is_too_long_is_not_settled() -> None:
    left = np.arange(0, 200, 3.0)
    boxes = torch.tensor(np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1), dtype=torch.float32)[None]
    assert iou(boxes[0, 0], boxes[0, 1]) > 0.5
    _, settled = suppress(boxes, torch.ones(1, len(left), dtype=torch.bool), 0.5)
    assert not settled.any()


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def both(device: str, weights: str | Path, **options: object) -> tuple[Estimator, Estimator]:
    """The estimator in numpy on the CPU, and the one that is resident on a device, in float32."""
    on_cpu = load_estimator(str(weights), device="cpu", runtime="torch", **options)  # type: ignore[arg-type]
    return on_cpu, load_estimator(str(weights), device=device, resident=True, **options)  # type: ignore[arg-type]


def people(seed: int, count: int, frame: Frame) -> Detections:
    random = np.random.default_rng(seed)
    corner = random.uniform(-0.1, 0.7, (count, 2)) * (frame.width, frame.height)
    size = random.uniform(0.05, 0.9, (count, 2)) * (frame.width, frame.height)
    scores = np.sort(random.uniform(0.2, 0.9, count))[::-1].astype(np.float32)
    return Detections(np.concatenate([corner, corner + size], axis=1).astype(np.float32), scores)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("decoder", ["auto", "dark", "parabola"])
def test_poses_of_given_boxes_are_the_cpus(device: str, tiny_weights: Path, decoder: str, flip: bool) -> None:
    frames = [Frame(picture(240 + i, 180 + 40 * i, i)) for i in range(4)]
    boxes = [people(i, count, frame) for i, (count, frame) in enumerate(zip((3, 0, 5, 1), frames, strict=True))]
    estimators = both(device, tiny_weights, decoder=decoder, flip=flip)
    expected, found = (estimator(frames, boxes) for estimator in estimators)
    for a, b, given_boxes in zip(expected, found, boxes, strict=True):
        assert len(a) == len(b) == len(given_boxes)
        size = (given_boxes.boxes[:, 2:] - given_boxes.boxes[:, :2]).max(axis=1)
        apart = np.linalg.norm(a.keypoints - b.keypoints, axis=-1) / size[:, None]
        # Random weights have flat distributions, whose highest bin a level of one pixel can move.
        assert np.quantile(apart, 0.9) < 0.01 if len(apart) else True
        np.testing.assert_allclose(a.scores, b.scores, atol=0.02)


def photo(path: Path) -> np.ndarray:
    """By OpenCV alone, so that a machine without av runs these tests."""
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def embedded(device: str, name: str, **options: object) -> tuple[Predictor, Predictor]:
    pairs = both(device, name, **options)
    detectors = (load_detector(device="cpu"), load_detector(device=device, resident=True))
    first, second = (Predictor(d, e) for d, e in zip(detectors, pairs, strict=True))
    return first, second


def same_people(a: Poses, b: Poses, pixels: float) -> None:
    assert len(a) == len(b)
    order = iou(a.boxes, b.boxes).argmax(axis=1)
    b = b.rows(order)
    seen = a.scores > 0.3
    assert np.abs(a.keypoints - b.keypoints).max(axis=-1)[seen].max(initial=0) < pixels
    np.testing.assert_allclose(a.boxes, b.boxes, atol=pixels)
    np.testing.assert_allclose(a.person_scores, b.person_scores, atol=0.01)


@pytest.mark.parametrize("name", ["pose", "pose-fast"])
def test_the_samples_have_the_same_people(device: str, name: str, samples: Path) -> None:
    """Within a pixel of photos of 500 to 1000 pixels: detection, verification, refined boxes."""
    photos = [photo(path) for path in sorted(samples.glob("*.jpg"))]
    on_cpu, resident = embedded(device, name)
    expected, found = on_cpu(photos), resident(photos)
    assert sum(map(len, expected)) >= 4
    for a, b in zip(expected, found, strict=True):
        same_people(a, b, 1.0)


def test_a_person_is_the_same_whatever_the_batch(device: str, samples: Path) -> None:
    photos = [photo(path) for path in sorted(samples.glob("*.jpg"))]
    _, resident = embedded(device, "pose-fast")
    together = resident(photos)
    for pixels, poses in zip(photos[::-1], together[::-1], strict=True):
        alone = resident(pixels)
        for name in ("keypoints", "std", "scores", "boxes", "box_scores", "person_scores"):
            assert getattr(alone, name).tobytes() == getattr(poses, name).tobytes(), name


def test_wide_pictures_are_searched_in_windows(device: str, samples: Path) -> None:
    one = photo(samples / "astronaut.jpg")
    wide = np.concatenate([one[:, ::-1], one, one * 0, one[:, ::-1], one], axis=1)
    on_cpu, resident = embedded(device, "pose-fast")
    a, b = on_cpu(wide), resident(wide)
    assert len(a) >= 3
    same_people(a, b, 1.0)


def test_damaged_weights_are_refused(device: str, tiny_weights: Path) -> None:
    _, resident = both(device, tiny_weights)
    assert resident.runner.resident is not None
    with pytest.raises(DataError, match="not finite"):
        broken = resident.runner.resident
        network = broken._network
        broken._network = lambda crops: tuple(output * torch.inf for output in network(crops))
        frame = Frame(picture())
        resident([frame], [people(1, 2, frame)])


def test_an_error_of_the_device_fails_the_input_concerned(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its line says what failed; the other photo of the same batch is finished."""
    for name, pixels in (("a.png", picture(60, 80)), ("b.png", np.full((80, 60, 3), 250, np.uint8))):
        cv2.imwrite(str(tmp_path / name), pixels)
    called = CapturedFunction.__call__

    def fails_on_white(self: CapturedFunction, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        if (inputs[0] == 250).float().mean() > 0.05:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return called(self, inputs)

    monkeypatch.setattr(CapturedFunction, "__call__", fails_on_white)
    monkeypatch.setattr(runner, "is_gpu", lambda device: True)  # the path of a GPU, on the CPU
    options = ["--detector", "whole", "--weights", tiny_weights, "--device", "cpu", "--precision", "fp32"]
    finished = command(capfd, "run", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out", *options)
    assert finished.code == 1
    (line,) = [line for line in finished.err.splitlines() if "out of memory" in line and "b.png" in line]
    assert "use --device cpu" in line and "Traceback" not in finished.err
    assert list((tmp_path / "out").rglob("a.png")) and not list((tmp_path / "out").rglob("b.png"))
