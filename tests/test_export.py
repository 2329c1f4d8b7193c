"""Exported networks: what stands in the files, that runtimes agree with torch, decoding in the graph, errors."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray

from posecli.cli.export import FORMAT_NAMES
from posecli.detect.person import PersonNetwork, load_fcos
from posecli.errors import DataError, UsageError
from posecli.export import FORMATS, export_weights, formats
from posecli.export.decoding import Decoder
from posecli.pose import codec
from posecli.pose.codec_torch import AxisDecoder
from posecli.pose.config import AttentionSizes, PoseConfig, Preprocessing
from posecli.pose.estimator import load_estimator
from posecli.pose.foreign import Given
from posecli.pose.graphs import import_graph
from posecli.pose.loading import load_network
from posecli.pose.network import PixelNetwork, SimCC, initialise_head
from posecli.types import Detections, Frame
from posecli.weights.files import find_weights, save_weights, sha256
from tests.entry_points import posecli
from tests.media_factory import picture
from tests.weights_factory import model_file

Arrays = Mapping[str, NDArray[np.float32]]
# A tenth of the modules of a usual backbone: OpenVINO's conversion takes its time for each of them.
NARROW = PoseConfig(backbone="cspnext", widths=(8, 16, 32, 64, 128), blocks=(1, 1, 1, 1))
SMALL = replace(NARROW, deconv_channels=(8,), input_size=(64, 32), sigma=(1.5, 1.5))
ATTENTION = replace(
    NARROW,
    head="rtmcc",
    attention=AttentionSizes(hidden=32, keys=16, expanded=64, neck_blocks=1),
    deconv_channels=(),
    input_size=(64, 64),
    temperature=10.0,
)
BGR = Preprocessing(channels="BGR")
CONFIGS = {
    "laterals": replace(SMALL, backbone="mobilenet_v2", widths=(), blocks=(), laterals=True, preprocessing=BGR),
    "boxes": replace(SMALL, person_score=True, box_head=True),
    "rtmcc": ATTENTION,
    "rtmw": replace(ATTENTION, head="rtmw"),
}


def with_onnxruntime(file: Path, pixels: NDArray[np.generic]) -> Arrays:
    session = pytest.importorskip("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: pixels}), strict=True))


def with_openvino(file: Path, pixels: NDArray[np.generic]) -> Arrays:
    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({"input": pixels})
    # A tensor of an ONNX file also has the name of the layer before it, a path.
    names = [name for output in compiled.outputs for name in output.get_names() if name.isidentifier()]
    return {name: answer[name] for name in names}


def with_opencv(file: Path, pixels: NDArray[np.generic]) -> Arrays:
    network = cv2.dnn.readNetFromONNX(str(file))
    names = ("boxes", "scores") if file.stem == "detector" else ("simcc_x", "simcc_y")
    network.setInput(pixels)
    return dict(zip(names, network.forward(names), strict=True))


RUNTIMES: dict[str, Callable[[Path, NDArray[np.generic]], Arrays]] = {
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
    "opencv": with_opencv,
}


def saved(config: PoseConfig, path: Path) -> Path:
    torch.manual_seed(0)
    network = SimCC(config)
    initialise_head(network, config)
    # Batch norms of these pixels' statistics, and loud classifiers: the output then depends on the input.
    pictures = torch.from_numpy(normalised(levels(config.input_size, 8), config))
    pixels = torch.cat([pictures, torch.randn(24, *pictures.shape[1:])])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(pixels)
        outputs = network.eval()(pixels)
        for layer, logits in zip(("fc_x", "fc_y"), outputs, strict=False):
            for parameter in getattr(network.head or network, layer).parameters():
                parameter.mul_(10 / logits.abs().max())
            assert (logits[0] - logits[1:8]).abs().max() > 0.02 * logits.abs().max(), "it answers alike to all"
    header = {"kind": "pose", "config": config.to_json(), "licence": "CC0-1.0", "source": "random, für Tests"}
    save_weights(path, network.state_dict(), header)
    return path


def detector_file(path: Path) -> Path:
    tensors, header = model_file("detector")
    save_weights(path, tensors, header)
    return path


def levels(size: tuple[int, int], count: int = 2) -> NDArray[np.uint8]:
    return np.stack([picture(size[1], size[0], seed) for seed in range(count)])


def normalised(crops: NDArray[np.uint8], config: PoseConfig) -> NDArray[np.float32]:
    """Crops (N, H, W, 3) RGB as a plain network takes them."""
    order = slice(None, None, -1 if config.preprocessing.channels == "BGR" else 1)
    values = (crops[..., order] - np.array(config.preprocessing.mean)) / config.preprocessing.std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def close(found: Arrays, expected: Arrays) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-3 * max(1.0, np.abs(values).max()))


SLOW = ("boxes", "rtmw")  # ten seconds each: two are enough for every run


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CONFIGS])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(CONFIGS[request.param], tmp_path_factory.mktemp("model") / f"{request.param}.safetensors")


def logits_of(weights: Path, crops: NDArray[np.uint8]) -> Arrays:
    network, config = load_network(weights)
    with torch.no_grad():
        x, y, *_ = PixelNetwork(network, config).eval()(torch.from_numpy(crops))
    return {"simcc_x": x.numpy(), "simcc_y": y.numpy()}


def test_runtimes_agree_with_torch_on_plain_logits(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    _, config = load_network(model)
    crops = levels(config.input_size)
    export_weights(model, tmp_path / "a.onnx", "onnx", dynamic_batch=True)
    export_weights(model, tmp_path / "a.xml", "openvino", dynamic_batch=True)
    for count in (1, 2):
        expected, pixels = logits_of(model, crops[:count]), normalised(crops[:count], config)
        for run in RUNTIMES.values():
            close(run(tmp_path / "a.onnx", pixels), expected)
        close(with_openvino(tmp_path / "a.xml", pixels), expected)


@pytest.mark.parametrize("to", FORMATS)
def test_levels_in_and_keypoints_out(to: str, tmp_path: Path) -> None:
    if to == "onnx":
        pytest.importorskip("onnx")
    config = replace(CONFIGS["boxes"], std_scale=1.5)
    weights, target = saved(config, tmp_path / "a.safetensors"), tmp_path / f"b{FORMATS[to].suffix}"
    done = export_weights(weights, target, to, dynamic_batch=True, uint8=True, decode=True)
    assert list(done.shapes) == ["input", "keypoints", "scores", "std", "person_log_odds"]
    assert done.shapes["input"] == (-1, 64, 32, 3) and done.shapes["std"] == (-1, 17, 2)
    crops = levels(config.input_size, 3)
    network, _ = load_network(weights)
    with torch.no_grad():
        x, y, odds, _ = PixelNetwork(network, config)(torch.from_numpy(crops))
    axes = [
        codec.decode(axis.numpy(), sigma, "parabola", config.temperature)
        for axis, sigma in zip((x, y), config.sigma, strict=True)
    ]
    expected = {
        "keypoints": np.stack([axis.bins for axis in axes], axis=-1) / config.split_ratio,
        "scores": np.minimum(axes[0].scores, axes[1].scores),
        "std": np.stack([axis.std for axis in axes], axis=-1) / config.split_ratio * config.std_scale,
        "person_log_odds": odds.numpy(),
    }
    for name in ("openvino", "onnxruntime") if to == "onnx" else ("openvino",):
        close(RUNTIMES[name](target, crops), expected)


def test_one_crop_of_levels_and_logits(tmp_path: Path) -> None:
    weights = saved(CONFIGS["laterals"], tmp_path / "a.safetensors")
    done = export_weights(weights, tmp_path / "a.xml", "openvino", uint8=True)
    assert done.shapes == {"input": (1, 64, 32, 3), "simcc_x": (1, 17, 64), "simcc_y": (1, 17, 128)}
    crops = levels((64, 32), 1)
    close(with_openvino(tmp_path / "a.xml", crops), logits_of(weights, crops))


@pytest.mark.parametrize("uint8", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_detector(uint8: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    weights = detector_file(tmp_path / "a.safetensors")
    model, config = load_fcos(weights)
    for to, form in FORMATS.items():
        export_weights(weights, tmp_path / f"detector{form.suffix}", to, uint8=uint8)
    images = levels(config.input_size, 1)
    with torch.no_grad():
        boxes, scores = PersonNetwork(model, config).eval()(torch.from_numpy(images))
    expected = {"boxes": boxes.numpy(), "scores": scores.numpy()}
    floats = ((images - np.array(config.mean)) / config.std).transpose(0, 3, 1, 2).astype(np.float32)
    pixels = images if uint8 else np.ascontiguousarray(floats)
    for name, run in RUNTIMES.items():
        if not (uint8 and name == "opencv"):
            close(run(tmp_path / "detector.onnx", pixels), expected)
    close(with_openvino(tmp_path / "detector.xml", pixels), expected)


@pytest.mark.parametrize(("bins", "sigma", "temperature"), [(384, 6.0, 1.0), (128, 1.5, 10.0), (40, 5.66, 0.5)])
def test_the_decoder_equals_the_codec(bins: int, sigma: float, temperature: float) -> None:
    random = np.random.default_rng(0)
    means = random.uniform(-2, bins + 2, (50, 20, 1))  # at the borders and beyond too
    logits = -((np.arange(bins) - means) ** 2) / (2 * sigma**2)
    logits = (logits.clip(-30) + 0.01 * random.standard_normal(logits.shape)).astype(np.float32) / temperature
    expected = codec.decode(logits, sigma, "parabola", temperature)
    bins_found, std, scores = (v.numpy() for v in AxisDecoder(bins, sigma, temperature)(torch.from_numpy(logits)))
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    near = np.abs(bins_found - expected.bins) < 1e-2
    assert near.mean() > 0.999  # else a vertex at the edge of its window, kept by one of them only
    np.testing.assert_allclose(std[near], expected.std[near], atol=1e-2)


def test_the_decoder_equals_the_estimator() -> None:
    config = replace(SMALL, std_scale=2.0)
    x, y = (-((torch.arange(n) - torch.rand(3, 17, 1) * n) ** 2) / 4.5 for n in config.bins)
    keypoints, _, std = Decoder(config)(x, y)
    expected = [codec.decode(axis.numpy(), 1.5) for axis in (x, y)]
    np.testing.assert_allclose(keypoints, np.stack([axis.bins for axis in expected], -1) / 2, atol=1e-3)
    np.testing.assert_allclose(std, np.stack([axis.std for axis in expected], -1), atol=1e-3)


def test_metadata_stands_in_the_files(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    config = CONFIGS["laterals"]
    weights = saved(config, tmp_path / "a.safetensors")
    for to, form in FORMATS.items():
        export_weights(weights, tmp_path / f"a{form.suffix}", to)
    found = {prop.key: prop.value for prop in onnx.load(tmp_path / "a.onnx").metadata_props}
    in_ir = openvino.Core().read_model(tmp_path / "a.xml").get_rt_info("posecli")
    document = json.loads(found["posecli"])
    assert json.loads(in_ir.astype(str)) == document
    assert PoseConfig.from_json(document["config"]) == config
    assert document["keypoints"] == list(config.keypoints.names)
    assert document["licence"] == "CC0-1.0" and document["source"] == "random, für Tests"
    assert document["weights"] == {"file": "a.safetensors", "sha256": sha256(weights)}
    assert document["input"] == {"name": "input", "layout": "NCHW", "dtype": "float32", "height": 64, "width": 32}
    assert document["preprocessing"]["channels"] == "BGR"
    for file in ("a.onnx", "a.xml"):
        assert str(tmp_path).encode() not in (tmp_path / file).read_bytes()
        assert os.fsencode(Path(__file__).parents[1]) not in (tmp_path / file).read_bytes()


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_is_imported_with_its_own_configuration(tmp_path: Path, to: str) -> None:
    if to == "onnx":
        pytest.importorskip("onnx")
    config = replace(CONFIGS["laterals"], temperature=2.0, std_scale=1.5)
    weights, file = saved(config, tmp_path / "a.safetensors"), tmp_path / f"b{FORMATS[to].suffix}"
    export_weights(weights, file, to)
    header, found = import_graph(file, tmp_path / "c", Given())
    same = ("input_size", "split_ratio", "sigma", "temperature", "std_scale", "keypoints", "preprocessing")
    assert [getattr(found, name) for name in same] == [getattr(config, name) for name in same]
    frame = Frame(picture(90, 120, 3))
    boxes = [Detections(np.array([[5, 5, 60, 110]], np.float32), np.ones(1, np.float32))]
    (one,), (other,) = (load_estimator(str(file), device="cpu")([frame], boxes) for file in (weights, header))
    np.testing.assert_allclose(one.keypoints, other.keypoints, atol=0.05)
    np.testing.assert_allclose(one.std, other.std, atol=0.05)
    given = import_graph(file, tmp_path / "d", Given(keypoints="ap10k", sigma=(3.0, 3.0)))[1]
    assert (given.keypoints.name, given.sigma, given.temperature) == ("ap10k", (3.0, 3.0), 2.0)


def test_other_exports_are_refused_in_one_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = saved(SMALL, tmp_path / "a.safetensors")
    for option, part in (("--uint8", "its input is"), ("--decode", "its outputs are")):
        file = tmp_path / f"{option[2:]}.xml"
        export_weights(weights, file, "openvino", uint8=option == "--uint8", decode=option == "--decode")
        result = posecli(capfd, "weights", "import", file, "--out", tmp_path / "new")
        assert result.code == 1 and len(result.err.splitlines()) == 1 and part in result.err
    detector = detector_file(tmp_path / "d.safetensors")
    export_weights(detector, tmp_path / "d.xml", "openvino")
    result = posecli(capfd, "weights", "import", tmp_path / "d.xml", "--out", tmp_path / "new")
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert not list(tmp_path.glob("new*"))


def test_the_command_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = saved(SMALL, tmp_path / "a.safetensors")
    target = tmp_path / "new" / "a.xml"
    arguments = ("export", weights, "--to", "openvino", "--out", target)
    first = posecli(capfd, *arguments)
    assert first.code == 0 and "simcc_x: float32 1x17x64, differs from torch by" in first.out
    assert sorted(file.name for file in target.parent.iterdir()) == ["a.bin", "a.xml"]
    kept = target.read_bytes()
    again = posecli(capfd, *arguments)
    assert again.code == 2 and "--overwrite" in again.err and target.read_bytes() == kept
    assert posecli(capfd, *arguments, "--overwrite").code == 0
    assert sorted(file.name for file in target.parent.iterdir()) == ["a.bin", "a.xml"]


def test_what_is_refused(tmp_path: Path) -> None:
    weights = saved(SMALL, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"ends in \.xml"):
        export_weights(weights, tmp_path / "a.onnx", "openvino")
    (tmp_path / "own.xml").symlink_to(weights)
    os.link(weights, tmp_path / "other.bin")
    before = weights.read_bytes()
    for name in ("own.xml", "other.xml"):
        with pytest.raises(UsageError, match="would replace the weights"):
            export_weights(weights, tmp_path / name, "openvino", overwrite=True)
    (tmp_path / "folder.xml").mkdir()
    with pytest.raises(UsageError, match="a folder"):
        export_weights(weights, tmp_path / "folder.xml", "openvino", overwrite=True)
    with pytest.raises(UsageError, match="a detector"):
        export_weights(detector_file(tmp_path / "d.safetensors"), tmp_path / "d.xml", "openvino", decode=True)
    assert weights.read_bytes() == before and not list(tmp_path.glob("*.part"))


def test_without_the_onnx_package(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = saved(SMALL, tmp_path / "a.safetensors")
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    result = posecli(capfd, "export", weights, "--to", "onnx", "--out", tmp_path / "a.onnx")
    assert result.code == 4 and len(result.err.splitlines()) == 1 and "posecli[onnx]" in result.err


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, other = saved(SMALL, tmp_path / "a.safetensors"), replace(SMALL, preprocessing=Preprocessing("BGR"))
    write = formats.FORMATS["openvino"].write

    def with_other_preprocessing(graph, *arguments) -> None:  # type: ignore[no-untyped-def]
        graph.module.network = PixelNetwork(graph.module.network.network, other)
        write(graph, *arguments)

    monkeypatch.setitem(
        formats.FORMATS, "openvino", replace(formats.FORMATS["openvino"], write=with_other_preprocessing)
    )
    (tmp_path / "a.xml").write_text("kept")
    with pytest.raises(DataError, match=r"differs from torch's by .* nothing was written"):
        export_weights(weights, tmp_path / "a.xml", "openvino", uint8=True, overwrite=True)
    assert (tmp_path / "a.xml").read_text() == "kept"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "a.xml"]


def test_the_names_of_the_help() -> None:
    assert tuple(FORMATS) == FORMAT_NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pose", "rtmpose"])
def test_exports_in_rtmlibs_own_class(tmp_path: Path, samples: Path, name: str) -> None:
    """The embedded model and an RTMPose give the keypoints of posecli's argmax decoder."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    reason = "rtmlib is not in the test extra: it brings opencv-contrib-python, which overwrites opencv-python's files"
    rtmlib = pytest.importorskip("rtmlib", reason=reason)
    larger = replace(ATTENTION, input_size=(256, 192))
    weights = find_weights("pose") if name == "pose" else saved(larger, tmp_path / "rtmpose.safetensors")
    export_weights(weights, tmp_path / "pose.onnx", "onnx")
    crops = levels((256, 192), 1)
    plain = normalised(crops, load_network(weights)[1])
    for run in RUNTIMES.values():
        close(run(tmp_path / "pose.onnx", plain), logits_of(weights, crops))
    photo = sorted(samples.rglob("*.jpg"))[0]
    image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    # Crops are then enlarged: posecli halves images before it reduces them further, rtmlib does not.
    image = cv2.resize(image, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    boxes = np.array([[0, 0, width, height], [width / 4, height / 8, width * 0.8, height * 0.9]], np.float32)
    frame = Frame(image, 0, None)
    estimator = load_estimator(str(weights), device="cpu", runtime="torch", decoder="argmax")
    (poses,) = estimator([frame], [Detections(boxes, np.ones(2, np.float32))])
    assert np.ptp(poses.keypoints, axis=(0, 1)).min() > 10
    for backend in ("onnxruntime", "opencv", "openvino"):
        model = rtmlib.RTMPose(str(tmp_path / "pose.onnx"), model_input_size=(192, 256), backend=backend)
        keypoints, _ = model(image, boxes)
        distance = np.linalg.norm(keypoints - poses.keypoints, axis=-1)
        assert distance.max() < 1, backend
