"""Runtimes: the same numbers whatever the cache holds, whoever shares a batch, and in each of them."""

import json
import os
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from posecli.errors import MachineError, UsageError
from posecli.predict import load_predictor
from posecli.runtime import RUNTIMES, ModuleSpec, compile_network, openvino_runtime
from posecli.runtime.cache import bound_cache, cache_folder
from posecli.runtime.network import FloatArrays
from posecli.runtime.openvino_requests import BATCHES_AFTER, BatchedRequests, Requests, numpy_function
from tests.entry_points import posecli
from tests.media_factory import picture


class Small(nn.Module):
    """A few layers of the networks' kinds, any size of pixels → (N, 8, bins), (N,)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(),
            nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(),
            nn.ConvTranspose2d(32, 8, 4, 2, 1, bias=False),
        )
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -1, 1)  # type: ignore[arg-type]
                nn.init.uniform_(layer.running_var, 0.5, 20)  # type: ignore[arg-type]
        self.classifier = nn.Linear(8, 40)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.layers((x.permute(0, 3, 1, 2).float() - 116) / 58)
        means = maps.mean(dim=2).transpose(1, 2)
        return self.classifier(means).softmax(dim=-1), means.mean(dim=(1, 2))


def pixels(size: tuple[int, int], count: int = 3, first: int = 0) -> np.ndarray:
    return np.stack([picture(size[1], size[0], seed) for seed in range(first, first + count)])


def spec_of(module: nn.Module, key: str | None = None) -> ModuleSpec:
    return ModuleSpec(lambda: module, key, cpu_batch=4, gpu_batch=8)


def answers(module: nn.Module, runtime: str = "openvino", key: str | None = None) -> FloatArrays:
    return compile_network(spec_of(module, key), device="cpu", runtime=runtime)(pixels((64, 32)))


def same(first: FloatArrays, second: FloatArrays) -> bool:
    return len(first) == len(second) and all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def test_the_cache_does_not_change_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first run converts, a second one reads: the same bytes, also where nothing can be kept."""
    module = Small()
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path / "cache"))
    cold = answers(module, key="k" * 64)
    assert (next((tmp_path / "cache").iterdir()) / "model.xml").is_file()
    monkeypatch.setattr(openvino_runtime, "_convert", lambda *_: pytest.fail("converted although it is kept"))
    assert same(cold, answers(module, key="k" * 64))
    monkeypatch.undo()
    assert same(cold, answers(module))
    (tmp_path / "file").touch()
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path / "file"))
    assert same(cold, answers(module, key="k" * 64))


@pytest.mark.parametrize("damage", ["emptied", "cut", "changed"])
def test_damaged_files_in_the_cache_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    module = Small()
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path))
    good = answers(module, key="k")
    (model,), (compiled,) = cache_folder().glob("*/model.xml"), cache_folder().glob("*/compiled-*.blob")
    for files in ([compiled], [compiled, model]):
        for file in files:
            data = file.read_bytes()
            changed = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:] if file is compiled else b"<net/>"
            file.write_bytes({"emptied": b"", "cut": data[: len(data) // 2], "changed": changed}[damage])
        assert same(good, answers(module, key="k"))
        # New ones are there, and good.
        assert model.stat().st_size > 1000 and compiled.read_bytes()[:32] == sha256(compiled.read_bytes()[32:]).digest()


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path))
    for age, name in enumerate(("a", "b", "c")):
        folder = tmp_path / f"openvino-2026.1-0.1.0-{name}-64x32"
        folder.mkdir()
        (folder / "model.bin").write_bytes(bytes(100))
        os.utime(folder, (1e9 - age, 1e9 - age))
    (tmp_path / "notes.txt").write_bytes(bytes(1000))
    bound_cache(200)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt", "openvino-2026.1-0.1.0-a-64x32", "openvino-2026.1-0.1.0-b-64x32",
    ]  # fmt: skip
    bound_cache(10)
    assert [path.name for path in tmp_path.glob("openvino*")] == ["openvino-2026.1-0.1.0-a-64x32"]


def test_a_network_is_not_built_where_it_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path))
    good = answers(Small(), key="k")
    spec = ModuleSpec(lambda: pytest.fail("built although it is cached"), "k", cpu_batch=4, gpu_batch=8)
    assert same(good, compile_network(spec, device="cpu")(pixels((64, 32))))


def test_no_place_for_a_converted_model_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(MachineError, match="no place") as caught:
        answers(Small(), key="k")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_doctor_prepares_the_embedded_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path))
    monkeypatch.setattr("posecli.cli.doctor._PICTURES", ((192, 448),))
    out = posecli(capfd, "doctor", "--warm-up", "--json").out
    subjects = {finding["subject"]: finding for finding in json.loads(out)}
    assert {"prepared pose", "prepared pose-fast", "prepared person"} <= set(subjects)
    assert str(tmp_path) in subjects["cache"]["text"] and " 0 MB" not in subjects["cache"]["text"]
    # At 448x448 the detector's runtimes are compared.
    assert sorted(path.name.rsplit("-", 1)[1] for path in tmp_path.glob("openvino-*")) == [
        "128x96",
        "192x448",
        "256x192",
        "448x448",
    ]
    monkeypatch.setattr(openvino_runtime, "_convert", lambda *_: pytest.fail("converted although it is kept"))
    load_predictor("pose-fast", device="cpu")(np.zeros((96, 240, 3), np.uint8))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_results_do_not_depend_on_who_shares_a_batch(runtime: str) -> None:
    run = compile_network(spec_of(Small()), device="cpu", runtime=runtime)
    for size in ((64, 32), (32, 96)):
        many = pixels(size, 6)
        together = run(many)
        assert all(output.dtype == np.float32 and len(output) == 6 for output in together)
        for row in (0, 4, 5):
            assert same(tuple(output[row : row + 1] for output in together), run(many[row : row + 1]))
        assert same(tuple(output[::-1] for output in together), run(many[::-1]))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_threads_share_a_network(runtime: str) -> None:
    run = compile_network(spec_of(Small()), device="cpu", runtime=runtime)
    batches = [pixels((64, 32), 5, first) for first in range(12)]
    expected = [run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(run, batches * 3))
    assert all(same(a, b) for a, b in zip(expected * 3, found, strict=True))


class Scripted:
    """A compiled network whose requests sum their pixels, and fail to start or to end at some turn.

    most: of its requests that were begun and not waited for.
    """

    def __init__(self, fails: str = "", turn: int = 0) -> None:
        self.fails, self.turn = fails, turn
        self.asked = self.begun = self.most = self.made = 0

    def get_property(self, name: str) -> int:
        return 2

    def create_infer_request(self) -> "ScriptedRequest":
        self.made += 1
        return ScriptedRequest(self)


class ScriptedRequest:
    def __init__(self, network: Scripted) -> None:
        self._network = network

    def start_async(self, inputs: dict[int, np.ndarray], share_inputs: bool) -> None:
        network = self._network
        network.asked += 1
        self._fails = network.asked == network.turn and network.fails == "wait"
        if network.asked == network.turn and network.fails == "start_async":
            raise RuntimeError("out of memory")
        network.begun += 1
        network.most = max(network.most, network.begun)
        self._pixels, self._running = inputs[0], True

    def wait(self) -> None:
        self._network.begun -= self._running
        self._running = False
        if self._fails:
            raise RuntimeError("out of memory")

    @property
    def output_tensors(self) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(data=self._pixels.sum(axis=(1, 2, 3)))]


@pytest.mark.parametrize("fails", ["start_async", "wait"])
@pytest.mark.parametrize("turn", [1, 2, 3, 20, 30])
def test_a_request_that_fails_is_an_error_when_all_others_have_ended(fails: str, turn: int) -> None:
    network = Scripted(fails, turn)
    requests, given = Requests(network), pixels((8, 4), 30)
    run = numpy_function(lambda *size: requests)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(given)
    assert network.begun == 0
    (found,) = run(given)
    np.testing.assert_array_equal(found, given.sum(axis=(1, 2, 3)))


def test_few_requests_wait_at_once_and_are_used_again() -> None:
    network = Scripted()
    requests, given = Requests(network, 2), pixels((8, 4), 61)
    for _ in range(2):
        (found,) = requests(given)
        np.testing.assert_array_equal(found, given.sum(axis=(1, 2, 3)))
    assert network.most == network.made == 8 and network.asked == 2 * 31


class BatchMean(nn.Module):
    """Not a function of each item alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.float() + x.float().mean(dim=0, keepdim=True)).mean(dim=(1, 2))


def batched(
    module: nn.Module, cache: Path, monkeypatch: pytest.MonkeyPatch, items: int
) -> tuple[FloatArrays, list[int]]:
    """Outputs of more items than batches for all cores have, and the items of each request."""
    asked: list[int] = []
    start = Requests._started

    def noted(self: Requests, part: np.ndarray) -> object:
        asked.append(len(part))
        return start(self, part)

    monkeypatch.setenv("POSECLI_CACHE", str(cache))
    spec = ModuleSpec(lambda: module, "b" * 64, cpu_batch=4, gpu_batch=8, openvino_batch=items)
    network = compile_network(spec, device="cpu", runtime="openvino")
    given = pixels((64, 32), 3 * (2 * (os.cpu_count() or 1) + 1) - 1)
    network(given[:1])  # compiles
    with monkeypatch.context() as patch:
        patch.setattr(Requests, "_started", noted)
        return network(given), asked


def test_batches_give_the_bits_of_single_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Small()
    single, asked = batched(module, tmp_path / "single", monkeypatch, 1)
    assert set(asked) == {1}
    whole, asked = batched(module, tmp_path, monkeypatch, 3)
    assert same(single, whole)
    assert sorted(set(asked)) == [1, 3] and asked.count(1) == 2 and sum(asked) == len(whole[0])
    assert len([*tmp_path.glob("*/batch3-*.blob")]) == 1


def test_batches_that_change_results_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):  # compared, then known
        (found,), asked = batched(BatchMean(), tmp_path, monkeypatch, 2)
        np.testing.assert_allclose(found, 2 * pixels((64, 32), len(found)).mean(axis=(1, 2)), rtol=1e-5)
        assert set(asked) == {1}
    assert [*tmp_path.glob("*/batch2-*.different")] and not [*tmp_path.glob("*/batch2-*.blob")]


def test_batches_are_made_once_and_only_where_many_items_come() -> None:
    made = threading.Event()
    network = Scripted()
    single, many = Requests(Scripted()), Requests(network, 4)
    makers = iter([many])

    def make() -> Requests:
        made.set()
        return next(makers)

    requests, given = BatchedRequests(single, make, 4), pixels((8, 4), 40)
    for _ in range(100):  # too few for two batches at once
        requests(given[:7])
    assert not made.is_set()
    for _ in range(BATCHES_AFTER // 40):
        requests(given)
    assert made.wait(10)
    until = time.monotonic() + 10
    while not network.asked and time.monotonic() < until:
        (found,) = requests(given[:10])
        np.testing.assert_array_equal(found, given[:10].sum(axis=(1, 2, 3)))
    assert network.asked == 2


def test_a_failure_to_make_batches_is_none() -> None:
    def make() -> Requests:
        raise RuntimeError("no memory")

    requests = BatchedRequests(Requests(Scripted()), make, 4)
    requests.prepare()
    assert requests(pixels((8, 4), 40))[0].shape == (40,)


def test_runtimes_agree_on_every_output() -> None:
    module = Small()
    first, second = (answers(module, runtime) for runtime in ("torch", "openvino"))
    assert [a.shape for a in first] == [b.shape for b in second] and len(first) == 2
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * float(np.abs(a).max()))


def test_a_module_with_one_output_gives_one_array() -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().mean(dim=(1, 2))

    for runtime in RUNTIMES:
        (means,) = answers(Mean(), runtime)
        np.testing.assert_allclose(means, pixels((64, 32)).mean(axis=(1, 2)), rtol=1e-5)


def test_unknown_runtimes_and_devices_are_one_line() -> None:
    with pytest.raises(UsageError, match="auto, torch, openvino"):
        answers(nn.Identity(), "tensorflow")
    with pytest.raises(UsageError, match="runs on the CPU"):
        openvino_runtime.compile_openvino(spec_of(nn.Identity()), "cuda", "float32")
    assert compile_network(spec_of(nn.Identity()), device="cpu").runtime == "openvino"


@pytest.mark.gpu
def test_on_a_gpu_auto_means_torch_in_half_precision() -> None:
    run = compile_network(spec_of(Small()), precision="auto")
    assert (run.runtime, run.precision) == ("torch", "float16") and run.device.startswith("cuda")
    many = pixels((64, 32), 11)
    together = run(many)
    assert same(tuple(output[9:] for output in together), run(many[9:]))


_MANY_THREADS = """
import sys
import numpy as np, openvino
from openvino import opset13 as ops
from posecli.runtime.openvino_requests import Requests
pixels = ops.parameter([1, 4, 4, 3], openvino.Type.u8)
model = openvino.Model([ops.convert(pixels, "f32")], [pixels])
settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": 4, "NUM_STREAMS": 4}
requests = Requests(openvino.Core().compile_model(model, "CPU", settings))
sys.setswitchinterval(1e-6)
given = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
(found,) = requests(given)
assert (found == given).all()
"""


@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_use_openvino_first_do_not_wait_forever(attempt: int) -> None:
    """OpenVINO's bindings release Python's lock in an initialiser: the first two threads could wait for each other."""
    subprocess.run([sys.executable, "-c", _MANY_THREADS], check=True, timeout=60)
