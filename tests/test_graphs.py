"""Graphs (ONNX, OpenVINO's IR) imported, kept and run: the same answers as the torch network that they were made of."""

import json
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino
import pytest
import torch
from torch import Tensor, nn

from posecli.errors import PosecliError
from posecli.keypoints import KEYPOINT_SETS
from posecli.pose.estimator import load_estimator
from posecli.pose.loading import load_network
from posecli.train.init import read_init
from tests.entry_points import Result, posecli
from tests.media_factory import picture

HEIGHT, WIDTH = 64, 32
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CPU = ("--detector", "whole", "--device", "cpu")


class Tiny(nn.Module):
    """A network of SimCC's form for any input size: means of 8 × 4 cells → logits (N, K, 64) and (N, K, 128)."""

    def __init__(self, keypoints: int = 17, bins: tuple[int, int] = (64, 128), turned: bool = False) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.keypoints, self.turned = keypoints, turned
        self.x, self.y = (nn.Linear(96, keypoints * count) for count in bins)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        cells = nn.functional.adaptive_avg_pool2d(pixels, (8, 4)).flatten(1)
        x, y = (layer(cells).unflatten(1, (self.keypoints, -1)) for layer in (self.x, self.y))
        return (y, x) if self.turned else (x, y)


def ir(
    path: Path,
    network: nn.Module,
    sizes: tuple[int, ...] = (-1, 3, HEIGHT, WIDTH),
    names: tuple[str, ...] = ("simcc_x", "simcc_y"),
) -> Path:
    """The network as OpenVINO's IR: an .xml beside its .bin."""
    for suffix, data in ir_bytes(network, sizes, names).items():
        path.with_suffix(suffix).write_bytes(data)
    return path


def tiny_ir(path: Path) -> Path:
    for suffix, data in tiny_ir_bytes().items():
        path.with_suffix(suffix).write_bytes(data)
    return path


@cache
def tiny_ir_bytes() -> dict[str, bytes]:
    """Of the network that most tests use."""
    return ir_bytes(Tiny(), (-1, 3, HEIGHT, WIDTH), ("simcc_x", "simcc_y"))


def ir_bytes(network: nn.Module, sizes: tuple[int, ...], names: tuple[str, ...]) -> dict[str, bytes]:
    example = torch.zeros(1, 3, HEIGHT, WIDTH)
    graph = openvino.convert_model(network.eval(), example_input=example, input=list(sizes))
    for output, name in zip(graph.outputs, names, strict=False):
        output.get_tensor().set_names({name})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}


def onnx(path: Path, network: nn.Module) -> Path:
    pytest.importorskip("onnx", reason="torch.onnx.export needs the package onnx")
    example = torch.zeros(1, 3, HEIGHT, WIDTH)
    outputs = ["simcc_x", "simcc_y"]
    axes = {name: {0: "batch"} for name in ("input", *outputs)}
    torch.onnx.export(
        network.eval(), (example,), str(path), input_names=["input"], output_names=outputs, dynamic_axes=axes,
        dynamo=False,
    )  # fmt: skip
    return path


def imported(capfd: pytest.CaptureFixture[str], source: Path, *options: object) -> Path:
    target = source.with_name("kept.onnx")
    result = posecli(capfd, "weights", "import", source, "--out", target, *options)
    assert result.code == 0, result.err
    return source.with_name("kept.graph.json")


def crops() -> np.ndarray:
    return np.stack([picture(WIDTH, HEIGHT, seed) for seed in range(3)])


def torchs_answer(network: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """The logits for crops() in RGB, normalised as MMPose does."""
    pixels = (crops() - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    with torch.no_grad():
        x, y = network(torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2))
    return (y.numpy(), x.numpy()) if getattr(network, "turned", False) else (x.numpy(), y.numpy())


def assert_the_same(weights: Path, network: nn.Module) -> None:
    runner = load_estimator(str(weights), device="cpu").runner
    assert (runner.runtime, runner.device) == ("openvino", "cpu")
    for found, wanted in zip(runner(crops()).logits, torchs_answer(network), strict=True):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def zipped(path: Path, *files: Path, folder: str = "20230831/rtmpose_onnx/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, folder + file.name)
        archive.writestr(f"{folder}pipeline.json", "{}")
        archive.writestr(f"__MACOSX/{folder}._end2end.onnx", "x")
    return path


def test_an_ir_answers_as_its_network_in_torch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tiny_ir(tmp_path / "a.xml")
    header_file = imported(capfd, source, "--licence", "Apache-2.0", "--source", "https://example.org/a")
    assert_the_same(header_file, Tiny())
    assert (tmp_path / "kept.xml").read_bytes() == source.read_bytes()
    assert (tmp_path / "kept.bin").read_bytes() == source.with_suffix(".bin").read_bytes()
    header = json.loads(posecli(capfd, "weights", "show", header_file).out)
    assert header["kind"] == "pose" and header["licence"] == "Apache-2.0"
    assert header["source"] == "https://example.org/a" and len(header["files"][".bin"]) == 64
    config = load_estimator(str(tmp_path / "kept.xml"), device="cpu").config
    assert config.input_size == (HEIGHT, WIDTH) and config.split_ratio == 2 and config.temperature == 10
    assert config.keypoints == KEYPOINT_SETS["coco17"]
    assert config.preprocessing.mean == MEAN and config.preprocessing.channels == "RGB"


@pytest.mark.parametrize("names", [("simcc_y", "simcc_x"), ("first", "second")])
def test_the_outputs_are_told_apart_by_name_or_length(
    names: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = Tiny(26, turned=True)
    header = imported(capfd, ir(tmp_path / "a.xml", network, names=names))
    assert_the_same(header, network)
    assert load_estimator(str(header), device="cpu").config.keypoints == KEYPOINT_SETS["halpe26"]


def test_an_ir_in_a_zip_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tiny_ir(tmp_path / "end2end.xml")
    archive = zipped(tmp_path / "a.zip", source, source.with_suffix(".bin"))
    assert_the_same(imported(capfd, archive), Tiny())


def test_onnx_in_a_zip_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = onnx(tmp_path / "end2end.onnx", Tiny())
    assert_the_same(imported(capfd, zipped(tmp_path / "rtmpose-m.zip", source)), Tiny())
    assert (tmp_path / "kept.onnx").read_bytes() == source.read_bytes()


def test_options_say_what_a_graph_cannot(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = ir(tmp_path / "a.xml", Tiny(), sizes=(-1, 3, -1, -1))
    failed = posecli(capfd, "weights", "import", source, "--out", tmp_path / "b")
    assert failed.code and "give --input-size HEIGHTxWIDTH" in failed.err and failed.err.count("\n") == 1
    options = ("--input-size", f"{HEIGHT}x{WIDTH}", "--keypoints", "ap10k", "--sigma", 5, "--temperature", 2)
    header = imported(capfd, source, *options)
    assert_the_same(header, Tiny())
    config = load_estimator(str(header), device="cpu").config
    assert config.keypoints == KEYPOINT_SETS["ap10k"] and config.sigma == (5, 5) and config.temperature == 2


def test_a_graph_runs_and_is_evaluated_by_its_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSECLI_WEIGHTS_DIR", str(tmp_path / "weights"))
    source = tiny_ir(tmp_path / "a.xml")
    assert posecli(capfd, "weights", "import", source, "--name", "mine").code == 0
    assert "mine" in posecli(capfd, "weights", "list").out
    again = posecli(capfd, "weights", "import", source, "--name", "mine")
    assert again.code and "there already" in again.err
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), picture(120, 90, 1))
    result = posecli(capfd, "run", photo, "--out", tmp_path / "out", "--weights", "mine", *CPU)
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert len(document["annotations"][0]["keypoints"]) == 3 * 17
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 120, "height": 90}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(KEYPOINT_SETS["coco17"].names), "skeleton": []}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 100, 80], "area": 8000, "iscrowd": 0,
             "keypoints": [50, 40, 2] * 17, "num_keypoints": 17}
        ],
    }  # fmt: skip
    (tmp_path / "ann.json").write_text(json.dumps(truth))
    out = tmp_path / "report"
    result = posecli(
        capfd, "eval", "mine", "--ann", tmp_path / "ann.json", "--images", tmp_path, "--boxes", "gt", "--out", out,
        "--device", "cpu",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert any(out.iterdir())


def no_bin(path: Path) -> Path:
    source = tiny_ir(path / "a.xml")
    source.with_suffix(".bin").unlink()
    return source


def cut(path: Path) -> Path:
    source = tiny_ir(path / "a.xml")
    source.write_bytes(source.read_bytes()[:2000])
    return source


def cut_bin(path: Path) -> Path:
    source = tiny_ir(path / "a.xml")
    weights = source.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:500])
    return source


def no_ir(path: Path) -> Path:
    source = tiny_ir(path / "a.xml")
    source.write_bytes(b"<!DOCTYPE html><html></html>")
    return source


def not_finite(path: Path) -> Path:
    network = Tiny()
    nn.init.constant_(network.x.weight, float("nan"))
    return ir(path / "a.xml", network)


def text(data: bytes, name: str = "a.onnx") -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        (path / name).write_bytes(data)
        return path / name

    return write


def archive(*members: tuple[str, bytes]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        with zipfile.ZipFile(path / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
            for name, data in members:
                opened.writestr(name, data)
        return path / "a.zip"

    return write


BROKEN: dict[str, tuple[Callable[[Path], Path], tuple[object, ...], str]] = {
    "no .bin": (no_bin, (), "a.bin: no such file"),
    "no file": (lambda path: path / "a.onnx", (), "cannot be read"),
    "no zip file": (lambda path: path / "a.zip", (), "cannot be read"),
    "cut off": (cut, (), "no graph that OpenVINO can read"),
    "weights cut off": (cut_bin, (), "no graph that OpenVINO can read"),
    "not finite": (not_finite, (), "not finite"),
    "empty": (text(b""), (), "an empty file"),
    "pointer": (text(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), (), "git lfs pull"),
    "web page": (text(b"<!DOCTYPE html><html></html>"), (), "a web page"),
    "web page as .xml": (no_ir, (), "a web page"),
    "noise": (text(bytes(range(256)) * 40), (), "no graph that OpenVINO can read"),
    "elsewhere": (text(b"\x08\x08\x0a\x08location\x12\x0b/etc/passwd"), (), "in another file"),
    "member leads out": (archive(("../end2end.onnx", b"x")), (), "leads out of the archive"),
    "bomb": (archive(("end2end.onnx", bytes(9_000_000))), (), "would be unpacked"),
    "two graphs": (archive(("a/end2end.onnx", b"x"), ("b/end2end.onnx", b"y")), (), "2 graphs"),
    "no .bin in the zip file": (archive(("a/end2end.xml", b"<?xml")), (), "no member 'a/end2end.bin'"),
    "one output": (lambda path: ir(path / "a.xml", nn.Flatten()), (), "its outputs are 'simcc_x' 1×6144, not"),
    "other bins": (lambda path: ir(path / "a.xml", Tiny(bins=(64, 64))), (), "1×17×64 and 'simcc_y' 1×17×64, not"),
    "other channels": (
        lambda path: ir(path / "a.xml", nn.Identity(), sizes=(-1, 4, HEIGHT, WIDTH)), (), "not one of N×3"),
    "other size": (lambda path: tiny_ir(path / "a.xml"), ("--input-size", "256x192"), "is 64x32, not 256x192"),
    "other ratio": (lambda path: tiny_ir(path / "a.xml"), ("--split-ratio", 3), "split ratio 3 does not give"),
    "other keypoints": (lambda path: tiny_ir(path / "a.xml"), ("--keypoints", "halpe26"), "halpe26 26"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_graph_is_one_line_and_writes_nothing(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, options, told = BROKEN[name]
    source = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = posecli(capfd, "weights", "import", source, "--out", tmp_path / "kept", *options)
    assert_one_line(result, told)
    assert sorted(tmp_path.iterdir()) == before


def assert_one_line(result: Result, told: str) -> None:
    assert result.code and result.err.count("\n") == 1 and told in result.err, result.err


def test_what_needs_tensors_refuses_a_graph(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    header = imported(capfd, tiny_ir(tmp_path / "a.xml"))
    with pytest.raises(PosecliError, match="training and export need the checkpoint"):
        load_network(header)
    for given in (header, tmp_path / "kept.xml"):
        with pytest.raises(PosecliError, match="training and export need the checkpoint"):
            read_init(str(given), "mobilenet_v2")
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), picture(60, 40, 1))
    run = ("run", photo, "--out", tmp_path / "out", "--weights", header)
    assert_one_line(posecli(capfd, *run, *CPU, "--runtime", "torch"), "which only OpenVINO runs")
    assert_one_line(posecli(capfd, *run[:-1], tmp_path / "a.xml", *CPU), "was not imported: posecli weights import")


def drop(header: dict[str, Any]) -> None:
    del header["files"]


def other_kind(header: dict[str, Any]) -> None:
    header["kind"] = "detector"


def other_size(header: dict[str, Any]) -> None:
    header["config"]["input_size"] = [128, 64]


def other_ratio(header: dict[str, Any]) -> None:
    header["config"]["split_ratio"] = 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop, "files is None"),
        (other_kind, "weights of 'detector'"),
        (other_size, "its input is 64x32, not 128x64"),
        (other_ratio, "the configuration beside it is of another graph"),
        (lambda header: header.update(format=2), "layout 2"),
        (lambda header: header.update(files={"/../x.onnx": "a"}), "not those of a graph"),
    ],
)
def test_a_changed_header_is_one_line(
    change: Callable[[dict[str, Any]], None], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = imported(capfd, tiny_ir(tmp_path / "a.xml"))
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))
    with pytest.raises(PosecliError) as caught:
        load_estimator(str(path), device="cpu")
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_changed_graph_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = imported(capfd, tiny_ir(tmp_path / "a.xml"))
    weights = tmp_path / "kept.bin"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    with pytest.raises(PosecliError, match="damaged, or not the file that kept"):
        load_estimator(str(path), device="cpu")
    weights.unlink()
    with pytest.raises(PosecliError, match=r"kept\.bin: cannot be read"):
        load_estimator(str(path), device="cpu")
    path.write_text("[")
    with pytest.raises(PosecliError, match="not the header of a graph"):
        load_estimator(str(path), device="cpu")
