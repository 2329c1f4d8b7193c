"""Weights files that are not what they should be: one line each, wherever they are given."""

import json
import math
import os
import random
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.detect import load_detector
from posecli.detect.person import PersonConfig, build_fcos
from posecli.errors import DataError, MachineError, PosecliError
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import load_network
from posecli.pose.network import SimCC
from posecli.train.init import build_model, read_init
from posecli.weights.files import HEADER_KEY, find_weights, load_weights, save_weights
from posecli.weights.fingerprints import overlap
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture

POSE = PoseConfig(backbone="resnet18", deconv_channels=(), input_size=(64, 32), sigma=(1.5, 1.5))
PERSON = PersonConfig(channels=32, convolutions=1, input_size=(192, 192))


@cache
def model_file(kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a small model."""
    torch.manual_seed(1)
    if kind == "pose":
        return SimCC(POSE).state_dict(), {"kind": "pose", "config": POSE.to_json()}
    return build_fcos(PERSON).state_dict(), {"kind": "detector", "config": vars(PERSON)}


def raw_file(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def with_document(path: Path, document: Any) -> Path:
    """A safetensors file without tensors under posecli's key."""
    text = document if isinstance(document, str) else json.dumps(document)
    return raw_file(path, json.dumps({"__metadata__": {HEADER_KEY: text}}).encode())


def with_config(path: Path, kind: str = "pose", **changes: Any) -> Path:
    """A whole file, but for some values of its configuration; None leaves a key out."""
    tensors, header = model_file(kind)
    config = {key: value for key, value in {**header["config"], **changes}.items() if value is not ...}
    save_weights(path, tensors, {**header, "config": config})
    return path


def one_line(error: PosecliError) -> str:
    text = str(error)
    assert len(text.splitlines()) == 1 and len(text) < 600, text
    assert text.isprintable(), text
    return text


WRONG_POSE: dict[str, dict[str, Any]] = {
    "missing": {"sigma": ...},
    "null": {"temperature": None},
    "unknown": {"depth": 3},
    "unknown, hostile": {"a\n\x1b[31m": 3},
    "bool for a number": {"split_ratio": True},
    "number for a bool": {"laterals": 1},
    "text for a number": {"std_scale": "1.0"},
    "NaN": {"temperature": math.nan},
    "infinite": {"std_scale": math.inf},
    "a number of 400 digits": {"split_ratio": 10**400},
    "huge": {"input_size": [10**9, 10**9]},
    "huge, a multiple of 32": {"input_size": [32 * 10**7, 32 * 10**7]},
    "large classifiers": {"input_size": [4096, 4096]},
    "negative": {"input_size": [-64, 32]},
    "one side": {"input_size": [64]},
    "a fraction": {"input_size": [64.5, 32]},
    "zero": {"sigma": [0, 1]},
    "backbone a list": {"backbone": ["resnet18"]},
    "backbone unknown": {"backbone": "../../x"},
    "many convolutions": {"deconv_channels": [1] * 1000},
    "wide convolutions": {"deconv_channels": [10**8]},
    "other convolutions": {"deconv_channels": [8, 8]},
    "nested": {"deconv_channels": [[8]]},
    "keypoints a list": {"keypoints": [1]},
    "keypoints null": {"keypoints": None},
    "preprocessing empty": {"preprocessing": {}},
    "box head without person score": {"box_head": True},
}


@pytest.mark.parametrize("wrong", WRONG_POSE.values(), ids=WRONG_POSE)
def test_a_wrong_pose_configuration_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = with_config(tmp_path / "x.safetensors", **wrong)
    with pytest.raises(DataError) as caught:
        load_network(path)
    assert str(path) in one_line(caught.value)


@pytest.mark.parametrize(
    "keypoints",
    [
        {"names": []},
        {"names": ["nose"] * 17},
        {"names": [1] * 17},
        {"names": "nose"},
        {"skeleton": [[0, 17]]},
        {"skeleton": [[0, -1]]},
        {"skeleton": [[1]]},
        {"skeleton": [["a", "b"]]},
        {"flip_pairs": [[1, 2], [2, 3]]},
        {"flip_pairs": [[1, 1], [1, 2]]},
        {"sigmas": [0.1]},
        {"sigmas": [0] * 17},
        {"sigmas": [math.nan] * 17},
        {"name": 5},
        {"colour": "red"},
    ],
)
def test_wrong_keypoints_are_one_line(tmp_path: Path, keypoints: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        load_network(with_config(tmp_path / "x.safetensors", keypoints={**POSE.to_json()["keypoints"], **keypoints}))
    one_line(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"std": [0, 1, 1]}, {"channels": "GBR"}, {"mean": [1]}, {"padding": -1}, {"more": 1}]
)
def test_wrong_preprocessing_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    values = {**POSE.to_json()["preprocessing"], **wrong}
    with pytest.raises(DataError) as caught:
        load_network(with_config(tmp_path / "x.safetensors", preprocessing=values))
    one_line(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_size": [10**9, 10**9]},
        {"input_size": 416},
        {"input_size": [0, 0]},
        {"input_size": [True, True]},
        {"channels": 10**9},
        {"channels": 33},
        {"channels": "32"},
        {"convolutions": 10**6},
        {"convolutions": -1},
        {"convolutions": 2},
        {"threshold": math.nan},
        {"threshold": 7},
        {"proposal": None},
        {"nms_iou": []},
        {"mean": [1, 2]},
        {"std": [0, 0, 0]},
        {"classes": 80},
    ],
)
def test_a_wrong_detector_configuration_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = with_config(tmp_path / "x.safetensors", "detector", **wrong)
    with pytest.raises(DataError) as caught:
        load_detector("person", weights=path, device="cpu", runtime="torch")
    assert str(path) in one_line(caught.value)


def test_names_of_older_files_are_read_as_today_s(tmp_path: Path) -> None:
    config = PoseConfig(
        backbone="resnet18", deconv_channels=(), input_size=(64, 32), sigma=(1, 1), person_score=True, box_head=True
    )
    torch.manual_seed(1)
    tensors = SimCC(config).state_dict()
    old = {"backbone.": "trunk.", "person_score.": "presence.", "box_head.": "extent."}
    names = {
        name: next((o + name.removeprefix(n) for n, o in old.items() if name.startswith(n)), name) for name in tensors
    }
    values = config.to_json()
    values["presence"], values["extent"] = values.pop("person_score"), values.pop("box_head")
    path = tmp_path / "old.safetensors"
    save_weights(path, {names[name]: tensor for name, tensor in tensors.items()}, {"kind": "pose", "config": values})
    network, found = load_network(path)
    assert found == config and sum(old != new for old, new in names.items()) > 60
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())
    save_weights(path, tensors, {"kind": "pose", "config": {**values, "box_head": True}})
    with pytest.raises(DataError, match="unknown key 'extent'"):
        load_network(path)


def test_older_headers_without_later_keys_are_read(tmp_path: Path) -> None:
    _, config = load_network(with_config(tmp_path / "x.safetensors", laterals=..., person_score=..., box_head=...))
    assert config == POSE
    detector = with_config(tmp_path / "y.safetensors", "detector", proposal=...)
    assert load_detector("person", weights=detector, device="cpu", runtime="torch").threshold == PERSON.threshold


def _change(tensors: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    name = "final.weight" if "final.weight" in tensors else "head.scores.0.weight"
    tensor = tensors[name]
    changes: dict[str, dict[str, torch.Tensor]] = {
        "shape": {name: tensor.flatten()},
        "integers": {name: tensor.to(torch.int8)},
        "booleans": {name: tensor > 0},
        "complex": {name: tensor.to(torch.complex64)},
        "nan": {name: tensor * math.nan},
        "huge": {name: tensor.abs() * 1e30 + 1e30},
        "extra": {"x\ny": torch.zeros(1)},
    }
    if kind == "missing":
        return {key: value for key, value in tensors.items() if key != name}
    return {**tensors, **changes.get(kind, {})}


@pytest.mark.parametrize("change", ["shape", "integers", "booleans", "complex", "nan", "huge", "extra", "missing"])
@pytest.mark.parametrize("kind", ["pose", "detector"])
def test_tensors_that_do_not_fit_are_one_line(tmp_path: Path, kind: str, change: str) -> None:
    tensors, header = model_file(kind)
    path = tmp_path / "x.safetensors"
    save_weights(path, _change(tensors, change), header)
    with pytest.raises(DataError) as caught:
        if kind == "pose":
            load_network(path)
        else:
            load_detector("person", weights=path, device="cpu", runtime="torch")
    assert str(path) in one_line(caught.value)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    tensors, header = model_file("pose")
    save_weights(
        tmp_path / "h.safetensors", {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}, header
    )
    network, _ = load_network(tmp_path / "h.safetensors")
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_weights_that_answer_without_numbers_give_no_poses(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], tiny_weights: Path
) -> None:
    tensors, header = load_weights(tiny_weights)
    loud = {name: tensor * 1e12 if name.startswith("deconv.0") else tensor for name, tensor in tensors.items()}
    loud |= {name: loud[name] * 1e12 for name in ("final.weight", "fc_x.weight")}
    loud |= {name: tensor * 0 + 1e-12 for name, tensor in loud.items() if name == "deconv.1.running_var"}
    save_weights(tmp_path / "loud.safetensors", loud, header)
    (tmp_path / "a.png").write_bytes(_png(picture(32, 64)))
    run = ("run", tmp_path / "a.png", "-o", tmp_path / "out", "--weights", tmp_path / "loud.safetensors", *QUICK)
    result = posecli(capfd, *run)
    assert result.code == 1 and "its weights are damaged" in result.err and "unexpected" not in result.err


def _fifo(path: Path) -> None:
    os.mkfifo(path)


BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.touch(),
    "zero bytes": lambda path: path.write_bytes(bytes(5000)),
    "three bytes": lambda path: path.write_bytes(b"abc"),
    "huge header length": lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}" * 100),
    "header longer than the file": lambda path: path.write_bytes(struct.pack("<Q", 10**7) + b"{}" * 100),
    "header no JSON": lambda path: raw_file(path, b"{" * 100),
    "header deep": lambda path: raw_file(path, b"[" * 100_000 + b"]" * 100_000),
    "header a list": lambda path: raw_file(path, b"[1]"),
    "header not text": lambda path: raw_file(path, b"\xff\xfe\xfd"),
    "metadata a list": lambda path: raw_file(path, b'{"__metadata__": [1]}'),
    "no header of ours": lambda path: raw_file(path, b'{"__metadata__": {"format": "pt"}}'),
    "ours a number": lambda path: raw_file(path, b'{"__metadata__": {"posecli": 5}}'),
    "ours no JSON": lambda path: with_document(path, "{'format': 1}"),
    "ours a list": lambda path: with_document(path, [1]),
    "ours null": lambda path: with_document(path, None),
    "ours deep": lambda path: with_document(path, "[" * 100_000 + "]" * 100_000),
    "ours of another layout": lambda path: with_document(path, {"format": 2}),
    "ours true": lambda path: with_document(path, {"format": True}),
    "ours with a hostile kind": lambda path: with_document(path, {"format": 1, "kind": "a\n\x1b[2J"}),
    "ours with a list for a kind": lambda path: with_document(path, {"format": 1, "kind": ["pose"]}),
    "ours without config": lambda path: with_document(path, {"format": 1, "kind": "pose"}),
    "ours with a text as config": lambda path: with_document(path, {"format": 1, "kind": "pose", "config": "x"}),
    "cut off": lambda path: (with_config(path), os.truncate(path, path.stat().st_size // 2)),
    "cut off in the header": lambda path: (with_config(path), os.truncate(path, 500)),
    "a pickle": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)),
    "LFS": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": _fifo,
    "missing": lambda path: None,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
}  # fmt: skip


@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_everywhere(
    tmp_path: Path, breaks: Callable[[Path], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    breaks(path)
    photo = tmp_path / "a.png"
    photo.write_bytes(_png(picture(32, 64)))
    annotations = tmp_path / "ann.json"
    annotations.write_text(json.dumps(_dataset()))
    out = tmp_path / "out"
    train = (
        "--ann",
        annotations,
        "--images",
        tmp_path,
        "--name",
        "r",
        "--runs",
        tmp_path / "runs",
        "--stages",
        "64x32:8",
    )
    for command in (
        ("run", photo, "-o", out, "--weights", path, *QUICK),
        ("run", photo, "-o", out, "--detector-weights", path, "--device", "cpu", "--runtime", "torch"),
        ("eval", path, "--ann", annotations, "--images", tmp_path, "-o", out, "--device", "cpu"),
        ("train", *train, "--init", path, "--device", "cpu"),
        ("weights", "show", path),
    ):
        result = posecli(capfd, *command)
        if command[0] == "weights" and result.code == 0:
            json.loads(result.out)  # whose layout is ours, whatever it says
            continue
        assert result.code in (1, 2, 4), (command, result)
        assert "unexpected" not in result.err and "Traceback" not in result.err, (command, result.err)
        last = result.err.strip().splitlines()[-1]
        assert path.name in last and last.isprintable() and len(last) < 600, (command, result.err)


def test_names_that_no_file_can_have_are_one_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in (
        "x" * 300 + ".safetensors",
        "a/" * 3000,
        "~nobody-here/x.safetensors",
        "\udcff.safetensors",
        "nothing",
    ):
        result = posecli(capfd, "weights", "show", name)
        assert result.code == 4 and len(result.err.strip().splitlines()) == 1, result
        assert "unexpected" not in result.err


def test_an_unreadable_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_config(tmp_path / "x.safetensors")

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MachineError, match=r"cannot be read.*Permission denied"):
        load_weights(path)


def test_a_file_of_another_suffix_in_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="PyTorch pickle"):
        load_weights(find_weights("model.pth"))


@pytest.mark.parametrize(
    "state",
    [[], [1, 2], 5, {}, {"state_dict": {"a": torch.zeros(1)}}, {1: torch.zeros(1)}, {"a": 5}, torch.zeros(3)],
    ids=str,
)
def test_a_torch_file_that_is_no_backbone_is_one_line(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(DataError) as caught:
        read_init(str(tmp_path / "x.pth"), "resnet18")
    one_line(caught.value)


def test_backbone_tensors_of_other_kinds_are_refused(tmp_path: Path) -> None:
    prefix = "backbone."
    state = {name.removeprefix(prefix): t for name, t in model_file("pose")[0].items() if name.startswith(prefix)}
    for change in (lambda t: t.to(torch.complex64), lambda t: (t * 9).to(torch.int32), lambda t: t * math.nan):
        torch.save({**state, "conv1.weight": change(state["conv1.weight"])}, tmp_path / "x.pth")
        with pytest.raises(DataError, match=r"conv1\.weight"):
            build_model(POSE, read_init(str(tmp_path / "x.pth"), "resnet18"))


@pytest.mark.parametrize(
    "known", [{}, {"names": 5, "contents": ""}, {"names": "%%", "contents": ""}, {"names": "YWI=", "contents": ""}]
)
def test_broken_fingerprints_are_one_line(known: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="fingerprints"):
        overlap(known, [Path("a.jpg")])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, -1, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, part in parts for found in _places(part, (*place, key)))]


def _put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copied = list(value) if isinstance(value, list) else dict(value)
    copied[place[0]] = _put(value[place[0]], place[1:], new)
    return copied


@cache
def whole_bytes(kind: str) -> tuple[bytes, int]:
    """A whole file, and where its tensors begin."""
    path = Path(f"{os.environ.get('TMPDIR', '/tmp')}/posecli-{os.getpid()}-{kind}.safetensors")
    save_weights(path, *model_file(kind))
    content = path.read_bytes()
    path.unlink()
    return content, 8 + struct.unpack("<Q", content[:8])[0]


def read_it(path: Path, kind: str) -> None:
    try:
        if kind == "pose":
            load_network(path)
        else:
            load_detector("person", weights=path, device="cpu", runtime="torch")
    except PosecliError as error:
        one_line(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["pose", "detector"]), chance=st.integers(0, 10**9), value=VALUES)
def test_any_value_in_the_header_is_one_line_or_fits(tmp_path: Path, kind: str, chance: int, value: Any) -> None:
    content, start = whole_bytes(kind)
    described = json.loads(content[8:start])
    header = json.loads(described["__metadata__"][HEADER_KEY])
    places = _places(header)
    changed = _put(header, random.Random(chance).choice(places), value)
    described["__metadata__"][HEADER_KEY] = json.dumps(changed)
    read_it(raw_file(tmp_path / "x.safetensors", json.dumps(described).encode(), content[start:]), kind)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["pose", "detector"]), chance=st.integers(0, 10**9), how=st.integers(0, 3))
def test_any_change_of_bytes_is_one_line_or_fits(tmp_path: Path, kind: str, chance: int, how: int) -> None:
    content, start = whole_bytes(kind)
    choose = random.Random(chance)
    data = bytearray(content)
    if how == 0:
        del data[choose.randrange(len(data)) :]
    elif how == 1:
        data[:8] = choose.randbytes(8)
    else:
        for _ in range(choose.randrange(1, 6)):
            data[choose.randrange(start if how == 2 else len(data))] ^= 1 << choose.randrange(8)
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    read_it(path, kind)


def _png(pixels: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", pixels)[1].tobytes()


def _dataset() -> dict[str, Any]:
    names = POSE.to_json()["keypoints"]["names"]
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 40], "area": 800, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 64}],
        "annotations": [{**person, "keypoints": [10, 20, 2] * 17, "num_keypoints": 17}],
        "categories": [{"id": 1, "name": "person", "keypoints": names, "skeleton": []}],
    }
