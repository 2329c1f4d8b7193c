"""Weights files that are broken, unreadable or of another kind: one line each, in all commands."""

import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posecli.errors import DataError, MachineError
from posecli.train.init import build_model, read_init
from posecli.weights.files import find_weights, load_weights
from posecli.weights.fingerprints import overlap
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture
from tests.weights_factory import POSE, model_file, one_line, png, raw_file, with_config, with_document


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
    photo.write_bytes(png(picture(32, 64)))
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


def _dataset() -> dict[str, Any]:
    names = POSE.to_json()["keypoints"]["names"]
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 40], "area": 800, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 64}],
        "annotations": [{**person, "keypoints": [10, 20, 2] * 17, "num_keypoints": 17}],
        "categories": [{"id": 1, "name": "person", "keypoints": names, "skeleton": []}],
    }
