"""--precision and the choice of a runtime: what "auto" is on which machine, and what bfloat16 changes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posecli.cli.options import PRECISION_NAMES
from posecli.errors import MachineError, UsageError
from posecli.runtime import RUNTIMES, ModuleSpec, compile_network
from posecli.runtime.choice import fastest, measure
from posecli.runtime.network import CompiledNetwork
from posecli.runtime.precision import PRECISIONS, has_bfloat16, resolve_precision
from tests.entry_points import posecli
from tests.test_runtime import Small, pixels, same, spec_of

AT_HOME = "posecli.runtime.precision.has_bfloat16"


@pytest.mark.parametrize(
    ("name", "device", "native", "measured", "expected"),
    [
        ("auto", "cpu", True, True, "bfloat16"),
        ("auto", "cpu", True, False, "float32"),
        ("auto", "cpu", False, True, "float32"),
        ("auto", "cuda", False, False, "float16"),
        ("fp32", "cpu", True, True, "float32"),
        ("fp32", "cuda:1", True, True, "float32"),
        ("bf16", "cpu", True, False, "bfloat16"),
        ("bf16", "cuda", False, False, "bfloat16"),
    ],
)
def test_what_a_precision_is(
    name: str, device: str, native: bool, measured: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AT_HOME, lambda: native)
    assert resolve_precision(name, device, bfloat16_measured=measured) == expected


def test_precisions_that_do_not_exist_here_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("auto", *PRECISIONS) == PRECISION_NAMES
    with pytest.raises(UsageError, match="auto, fp32, bf16"):
        resolve_precision("fp8", "cpu", bfloat16_measured=True)
    monkeypatch.setattr(AT_HOME, lambda: False)
    for runtime in RUNTIMES:
        with pytest.raises(MachineError, match="no bfloat16 instructions of this CPU") as caught:
            compile_network(spec_of(Small()), device="cpu", runtime=runtime, precision="bf16")
        assert len(str(caught.value).splitlines()) == 1


def test_without_native_bfloat16_the_command_line_says_so(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(AT_HOME, lambda: False)
    line = ("run", "samples/astronaut.jpg", "--weights", tiny_weights, "--precision", "bf16", "--out", tmp_path)
    found = posecli(capfd, *line)
    assert found.code == 4 and found.err.count("\n") == 1 and "use fp32" in found.err


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bfloat16_is_near_float32(runtime: str) -> None:
    if not has_bfloat16():
        pytest.skip("this CPU has no bfloat16 instructions")
    module, many = Small(), pixels((64, 32), 6)
    networks = {
        name: compile_network(spec_of(module), device="cpu", runtime=runtime, precision=name) for name in PRECISIONS
    }
    assert {name: network.precision for name, network in networks.items()} == PRECISIONS
    full, half = networks["fp32"](many), networks["bf16"](many)
    for a, b in zip(full, half, strict=True):
        assert b.dtype == np.float32 and not np.array_equal(a, b)
        # bfloat16 has 8 bits of mantissa.
        np.testing.assert_allclose(a, b, atol=0.03 * float(np.abs(a).max()))
    alone = tuple(output[2:3] for output in half)
    assert same(alone, networks["bf16"](many[2:3]))


def test_files_of_both_precisions_are_cached_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that was cached in bfloat16 is not used where float32 is asked for."""
    if not has_bfloat16():
        pytest.skip("this CPU has no bfloat16 instructions")
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path))
    module, many = Small(), pixels((64, 32))
    first, half, again = (
        compile_network(spec_of(module, "k" * 64), device="cpu", runtime="openvino", precision=name)(many)
        for name in ("fp32", "bf16", "fp32")
    )
    assert same(first, again) and not same(first, half)


class Clock:
    """Time that passes only in networks of a given speed."""

    def __init__(self) -> None:
        self.now = 0.0

    def network(self, name: str, seconds: float) -> Callable[[], CompiledNetwork]:
        """Makes a network that takes so many seconds an item."""

        def run(items: np.ndarray) -> tuple[np.ndarray, ...]:
            self.now += seconds * len(items)
            return (np.zeros((len(items), 1), np.float32),)

        return lambda: CompiledNetwork(run, name, "cpu", "float32")


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the measurement, and an empty cache."""
    found = Clock()
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("posecli.runtime.choice.time.perf_counter", lambda: found.now)
    return found


SPEC = ModuleSpec(Small, "k" * 64, cpu_batch=4, gpu_batch=8, sizes=((64, 32),))


def not_again() -> CompiledNetwork:
    raise AssertionError("compiled although the choice is cached")


@pytest.mark.parametrize(
    ("torch", "chosen"), [(0.5, "torch"), (0.95, "openvino"), (1.0, "openvino"), (3.0, "openvino")]
)
def test_the_faster_runtime_is_chosen_once(clock: Clock, torch: float, chosen: str) -> None:
    """OpenVINO, unless torch is faster by more than the noise; the choice is kept, for this network and precision."""
    compilers = {"torch": clock.network("torch", torch), "openvino": clock.network("openvino", 1.0)}
    assert fastest(SPEC, "float32", compilers) == chosen
    assert fastest(SPEC, "float32", {"torch": not_again, "openvino": not_again}) == chosen
    with pytest.raises(AssertionError, match="compiled"):
        fastest(SPEC, "bfloat16", {"torch": not_again, "openvino": not_again})
    with pytest.raises(AssertionError, match="compiled"):
        fastest(replace(SPEC, key="l" * 64), "float32", {"torch": not_again, "openvino": not_again})


def test_networks_that_cannot_be_measured_run_in_openvino(clock: Clock) -> None:
    compilers = {"torch": not_again, "openvino": not_again}
    assert fastest(replace(SPEC, key=None), "float32", compilers) == "openvino"
    assert fastest(replace(SPEC, sizes=()), "float32", compilers) == "openvino"


def test_a_network_of_any_size_is_compared_at_a_usual_one(clock: Clock) -> None:
    compilers = {"torch": clock.network("torch", 0.5), "openvino": clock.network("openvino", 1.0)}
    assert fastest(replace(SPEC, sizes=(), compared_at=(96, 64)), "float32", compilers) == "torch"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"runtime": "abacus"}', b'{"runtime": 3}'])
def test_a_damaged_choice_is_measured_again(clock: Clock, tmp_path: Path, content: bytes) -> None:
    compilers = {"torch": clock.network("torch", 0.5), "openvino": clock.network("openvino", 1.0)}
    fastest(SPEC, "float32", compilers)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(content)
    assert fastest(SPEC, "float32", compilers) == "torch"
    assert json.loads(file.read_bytes())["runtime"] == "torch"


def test_without_a_cache_the_choice_is_made_all_the_same(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path / "file"))
    compilers = {"torch": clock.network("torch", 0.5), "openvino": clock.network("openvino", 1.0)}
    assert fastest(SPEC, "float32", compilers) == "torch"


def test_measure_gives_seconds_for_one_item(clock: Clock) -> None:
    networks = {"one": clock.network("one", 0.25)(), "other": clock.network("other", 4.0)()}
    assert measure(networks, (64, 32), 3) == pytest.approx({"one": 0.25, "other": 4.0})
