"""examples/cpp: built, and run on a photo. Its people are those of posecli's functions on the same exported files."""

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from posecli.cli.main import cli
from posecli.detect.embedded import letterbox, select
from posecli.geometry import transform
from posecli.pose.codec import decode
from posecli.pose.crops import cut_crops
from posecli.types import Frame

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "samples" / "balance_two_people.jpg"
MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
TOOLS = ("cmake", "g++", "make")

pytestmark = [
    pytest.mark.cpp,
    pytest.mark.skipif(any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("build")
    made = subprocess.run(
        ["cmake", "-S", ROOT / "examples" / "cpp", "-B", build], capture_output=True, text=True, check=False
    )
    if made.returncode != 0 and "OpenCVConfig.cmake" in made.stderr:
        pytest.skip("needs OpenCV's C++ files (libopencv-dev)")
    assert made.returncode == 0, made.stderr
    made = subprocess.run(["cmake", "--build", build], capture_output=True, text=True, check=False)
    assert made.returncode == 0 and "warning" not in made.stdout + made.stderr, made.stdout + made.stderr
    return build / "poses"


@pytest.fixture(scope="module")
def exported(program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("onnx")
    files = {name: tmp_path_factory.mktemp("networks") / f"{name}.onnx" for name in ("person", "pose")}
    for name, path in files.items():
        cli(["export", name, "--to", "onnx", "--out", str(path)], standalone_mode=False)
    return files


def answers(path: Path, pixels: np.ndarray, names: tuple[str, str]) -> list[np.ndarray]:
    """The outputs of a network for RGB levels (1, H, W, 3)."""
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    planes = ((pixels.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2)
    return list(session.run(list(names), {"input": np.ascontiguousarray(planes)}))


def test_the_program_finds_the_people_that_python_finds(
    program: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    run = subprocess.run([program, exported["person"], exported["pose"], PHOTO, out], capture_output=True, check=True)
    people = [json.loads(line) for line in run.stdout.splitlines()]
    frame = Frame(cv2.cvtColor(cv2.imread(str(PHOTO)), cv2.COLOR_BGR2RGB))
    assert cv2.imread(str(out)).shape == frame.pixels.shape

    images, scales = letterbox([frame.pixels], (448, 448))
    boxes, scores = answers(exported["person"], images, ("boxes", "scores"))
    expected = select(boxes[0], scores[0], scales[0], frame, 0.5, 0.5, 100)
    assert len(expected) == len(people) == 2
    crops, matrices = cut_crops([frame.pixels], [expected.boxes], (256, 192), 1.25)
    for row, person in enumerate(people):
        x, y, width, height = person["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], expected.boxes[row], atol=1)
        assert abs(person["score"] - expected.scores[row]) < 0.02
        logits = answers(exported["pose"], crops[row : row + 1], ("simcc_x", "simcc_y"))
        axes = [decode(axis[0], 6.0, "parabola") for axis in logits]
        in_crop = np.stack([axis.bins for axis in axes], axis=-1) / 2
        keypoints = transform(np.linalg.inv(matrices[row]), in_crop)
        found = np.array(person["keypoints"]).reshape(17, 3)
        sure = np.minimum(axes[0].scores, axes[1].scores) > 0.5
        assert sure.sum() >= 10
        assert np.abs(found[sure, :2] - keypoints[sure]).max() < 1
        np.testing.assert_allclose(found[sure, 2], np.minimum(axes[0].scores, axes[1].scores)[sure], atol=0.05)


def test_what_it_cannot_read_is_one_line(program: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    run = subprocess.run([program, *exported.values(), tmp_path / "a.jpg"], capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stderr.strip().splitlines()[-1].endswith("not a picture that OpenCV can read")
    assert subprocess.run([program], capture_output=True, check=False).returncode == 2
