"""torch's checkpoints read without running anything in them: 40 hostile files and the honest ones."""

import io
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posecli.errors import DataError, MachineError
from posecli.weights.checkpoint import open_checkpoint, state_dict
from tests.entry_points import posecli

MARK = "ran.txt"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


class Call:
    """Pickled as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.made = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.made


SHELL = Call(os.system, f"touch {MARK}")


def saved(contents: Any, zipped: bool = True) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(contents, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def zipped(data: bytes, **others: bytes) -> bytes:
    """A zip file as torch's, around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in others.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def tensor_call(size: tuple[int, ...], strides: tuple[int, ...], count: int, offset: int = 0) -> bytes:
    """A state dict of one float tensor in a storage of so many values, in pickle's text form."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n" + b"I%d\n" % count + b"tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I%d\n" % offset + numbers(size) + numbers(strides)
    return b"(Vw\n" + call + b"I00\n}tRd."


def many_members(count: int, size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        for number in range(count):
            archive.writestr(f"archive/data/{number}", bytes(size))
    return buffer.getvalue()


def overlapping() -> bytes:
    """A zip file whose two members are the same bytes."""
    data = bytearray(zipped(tensor_call((1000,), (1,), 1000), **{"archive/data/0": bytes(4000)}))
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = bytes(data[start:end])
    second = entry.replace(b"archive/data/0", b"archive/data/1").replace(b"data.pkl", b"data.pkm")
    directory = entry + second
    tail = bytearray(data[end:])
    tail[8:16] = struct.pack("<HHI", 4, 4, len(directory))
    return bytes(data[:start]) + directory + bytes(tail)


def nested(depth: int) -> bytes:
    return opcodes(b"(" * depth, b"t" * depth)


GOOD = saved({"state_dict": {"w": torch.ones(3)}})
OLD = saved({"state_dict": {"w": torch.ones(300)}}, zipped=False)
HOSTILE: dict[str, bytes | Callable[[], bytes]] = {
    # Calls, in every way that a pickle can say them.
    "reduce os.system": pickle.dumps(SHELL),
    "reduce os.system, torch's zip": zipped(pickle.dumps(SHELL, 2)),
    "reduce os.system, torch's older format": MAGIC + pickle.dumps(SHELL, 2),
    "reduce before the magic number": pickle.dumps(SHELL, 2) + MAGIC,
    "reduce among the facts of the machine": MAGIC[:-1].rpartition(b"\x80")[0] + pickle.dumps(SHELL, 2),
    "global in text form": zipped(b"cos\nsystem\n(V" + f"touch {MARK}\n".encode() + b"tR."),
    "inst": zipped(b"(V" + f"touch {MARK}\n".encode() + b"ios\nsystem\n."),
    "obj": zipped(b"(cos\nsystem\nV" + f"touch {MARK}\n".encode() + b"o."),
    "newobj": zipped(opcodes(b"cos\nsystem\n(V", f"touch {MARK}\n".encode(), b"t\x81")),
    "newobj with keywords": zipped(b"\x80\x04cos\nsystem\n)}\x92."),
    "stack global": zipped(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0d" + f"touch {MARK}".encode() + b"\x85R."),
    "eval": zipped(pickle.dumps(Call(eval, f"open('{MARK}', 'w')"), 2)),
    "exec of a module": zipped(b"crunpy\n_run_code\n(Vopen('ran.txt','w')\n}tR."),
    "build with a state that is set": zipped(pickle.dumps(Call(list, state={"__class__": SHELL}), 2)),
    "getattr chain": zipped(pickle.dumps(Call(getattr, Call(__import__, "os"), "system"), 2)),
    "extension code": zipped(opcodes(b"\x82\x01")),
    "persistent id in text form": zipped(b"Pposix.system\n."),
    "torch.load within": zipped(b"ctorch.serialization\nload\n(Vran.txt\ntR."),
    "a record as the state dict": zipped(b"}Vstate_dict\ncos\nsystem\n(V" + f"touch {MARK}\n".encode() + b"tRs."),
    "calls among the names of tensors": zipped(b"}cos\nsystem\n(Vtrue\ntRI1\ns."),
    # Too much.
    "a tuple a million deep": lambda: zipped(nested(1_000_000)),
    "a tuple a million deep as a key": lambda: zipped(b"}" + nested(1_000_000)[2:-1] + b"Ns."),
    "lists that double thirty times": zipped(opcodes(b"]q\x00", b"(h\x00h\x00lq\x00" * 30)),
    "a memo at two thousand million": zipped(opcodes(b"]r\xff\xff\xff\x7f")),
    "bytes of an exabyte": zipped(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x."),
    "text of 4 GB": zipped(b"\x80\x02X\xff\xff\xff\xffx."),
    "a number of two thousand million digits": zipped(b"\x80\x02\x8b\xff\xff\xff\x7f\x00."),
    "a tensor larger than its storage": zipped(tensor_call((10**9, 10**9), (0, 0), 1), **{"archive/data/0": bytes(4)}),
    "a tensor outside of its storage": zipped(tensor_call((4,), (1,), 8, 6), **{"archive/data/0": bytes(32)}),
    "a tensor with negative strides": zipped(tensor_call((4,), (-1,), 8, 4), **{"archive/data/0": bytes(32)}),
    "a storage larger than the file": zipped(tensor_call((10**12,), (1,), 10**12), **{"archive/data/0": bytes(32)}),
    "a storage without a file": zipped(tensor_call((4,), (1,), 4)),
    "a member of zeros": lambda: many_members(1, 50_000_000),
    "members that share bytes": overlapping,
    "a deflated pickle of zeros": lambda: many_members(3, 5_000_000),
    # Names of members, and damage.
    "a member outside": zipped(pickle.dumps({}), **{"../../ran.txt": b"x"}),
    "a member at the root": zipped(pickle.dumps({}), **{"/tmp/ran.txt": b"x"}),
    "a member of another drive": zipped(pickle.dumps({}), **{"C:/ran.txt": b"x"}),
    "a storage by a path": zipped(tensor_call((4,), (1,), 4).replace(b"V0\n", b"V../../etc/passwd\n")),
    "a TorchScript program": zipped(pickle.dumps({}), **{"archive/code/__torch__.py": b"import os"}),
    "cut off zip": GOOD[: len(GOOD) // 2],
    "cut off older format": OLD[:-40],
    "a flipped bit": GOOD.replace(struct.pack("<f", 1) * 3, struct.pack("<f", 2) * 3),
    "a pickle that does not end": zipped(b"\x80\x02]q\x00"),
    "an empty stack": zipped(b"\x80\x020000."),
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "web page": b"\n<!DOCTYPE html><html><title>404 Not Found</title></html>",
    "gzip": b"\x1f\x8b" + bytes(40),
    "noise": np.random.RandomState(0).bytes(4000),
    "empty": b"",
}
_EVENTS: list[str] = []
_WATCHED = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename", "os.mkdir", "subprocess.")


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    # A first import writes the module's compiled form.
    if event in ("open", "os.rename") and "__pycache__" in str(arguments[0]):
        return
    writes = False
    if event == "open" and not isinstance(arguments[0], int):  # a descriptor was opened by its path before
        mode, flags = arguments[1:]
        writes = bool(set(mode) & set("wxa+")) if mode is not None else bool(flags & (os.O_WRONLY | os.O_RDWR))
    if writes or event.startswith(_WATCHED) or event.startswith(("socket.connect", "socket.bind", "pickle.find_class")):
        _EVENTS.append(f"{event} {arguments}")


@pytest.fixture(scope="module", autouse=True)
def audit() -> Iterator[None]:
    """Python tells of every call that could do harm; such a listener cannot be taken off again."""
    sys.addaudithook(_listen)
    yield
    _EVENTS.clear()


def read(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    with open_checkpoint(path) as checkpoint:
        tensors, _ = state_dict(checkpoint)
        return {name: checkpoint.load(tensor) for name, tensor in tensors.items()}


def test_there_are_forty_of_them() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_runs_and_writes_nothing_and_gives_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = HOSTILE[name]
    Path("evil.pth").write_bytes(content() if callable(content) else content)
    _EVENTS.clear()
    with pytest.raises(DataError) as refused:
        read(tmp_path / "evil.pth")
    assert not _EVENTS
    assert list(tmp_path.iterdir()) == [tmp_path / "evil.pth"]
    message = str(refused.value)
    assert "evil.pth" in message and "\n" not in message and len(message) < 400 and message.isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_importing_a_hostile_file_is_one_line_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = HOSTILE[name]
    Path("evil.pth").write_bytes(content() if callable(content) else content)
    _EVENTS.clear()
    result = posecli(capfd, "weights", "import", "evil.pth", "--out", "good.safetensors")
    assert result.code and not result.out and result.err.count("\n") == 1 and "evil.pth" in result.err
    assert not _EVENTS
    assert list(tmp_path.iterdir()) == [tmp_path / "evil.pth"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_a_training_checkpoint_is_read_whatever_its_meta_holds(zipped: bool, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 3)).sum().backward()
    optimizer.step()
    state = OrderedDict((f"module.{name}", tensor) for name, tensor in model.state_dict().items())
    meta = {"epoch": np.float64(3), "when": np.arange(5), "random": np.random.RandomState(0), "cfg": "model = {}"}
    hub = {"log_scalars": {"loss": Call(OrderedDict, [("a", 1)])}}
    contents = {"meta": meta, "message_hub": hub, "optimizer": optimizer.state_dict(), "state_dict": state}
    path = tmp_path / "epoch_1.pth"
    path.write_bytes(saved(contents, zipped))
    with open_checkpoint(path) as checkpoint:
        tensors, beside = state_dict(checkpoint)
        assert tensors.keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert torch.equal(checkpoint.load(tensors[name]), tensor), name
    assert beside["meta"]["cfg"] == "model = {}" and beside["meta"]["epoch"].name.endswith("multiarray.scalar")
    assert set(beside) == {"meta", "message_hub", "optimizer"}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_views_dtypes_and_parameters_keep_their_values(zipped: bool, tmp_path: Path) -> None:
    whole = torch.rand(6, 4)
    kept = {
        "transposed": whole.t(),
        "part": whole[1:3, 2:],
        "half": torch.rand(3).half(),
        "brain": torch.rand(4)[1:].bfloat16(),
        "count": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.rand(2, 2)),
        "none": torch.zeros(0, 3),
    }
    path = tmp_path / "plain.pth"
    path.write_bytes(saved(kept, zipped))
    found = read(path)
    assert found.keys() == kept.keys()
    for name, tensor in kept.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor.detach()), name


def test_a_missing_file_and_a_folder_are_the_machines_fault(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(MachineError, match="cannot be read"):
            read(path)


def test_a_single_tensor_or_number_is_no_model(tmp_path: Path) -> None:
    for contents, told in ((torch.ones(2), "a single tensor"), (3, "a int"), ({"a": 1}, "a dictionary of 1 values")):
        path = tmp_path / "x.pth"
        path.write_bytes(saved(contents))
        with pytest.raises(DataError, match=told):
            read(path)
