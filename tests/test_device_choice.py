"""Choice of the device: a GPU only where it computes, and why it does not."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch

from posecli.errors import MachineError, UsageError
from posecli.runtime import device as choice
from posecli.runtime import probe
from posecli.runtime.device import resolve_device
from posecli.runtime.probe import gpu_problem
from tests.entry_points import posecli


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found out about the machine is not kept from one test to the next."""
    for cached in (gpu_problem, choice._warn_once):
        cached.cache_clear()
    yield
    for cached in (gpu_problem, choice._warn_once):
        cached.cache_clear()


def machine(
    monkeypatch: pytest.MonkeyPatch, *, available: bool = True, warning: str = "", computes: Callable[[], bool] = bool
) -> None:
    """A machine with NVIDIA's driver and one GPU, which answers so."""

    def is_available() -> bool:
        if warning:
            warnings.warn(warning, stacklevel=1)
        return available

    monkeypatch.setattr(choice, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(probe, "_computes", lambda device: computes())


def full() -> bool:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB.")


def broken() -> bool:
    raise RuntimeError("CUDA error: no kernel image is available for execution\nCompile with TORCH_USE_CUDA_DSA")


@pytest.mark.parametrize(
    ("computes", "words"),
    [(full, "memory is full"), (broken, "no kernel image"), (lambda: False, "wrong values")],
)
def test_a_gpu_that_does_not_compute_is_not_used(
    computes: Callable[[], bool], words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, computes=computes)
    with caplog.at_level(logging.WARNING):
        assert [resolve_device("auto") for _ in range(3)] == ["cpu"] * 3
    assert len(caplog.records) == 1 and words in caplog.text
    for name in ("cuda", "cuda:0"):
        with pytest.raises(MachineError, match=f"--device {name}: .*{words}.*use --device cpu") as caught:
            resolve_device(name)
        assert len(str(caught.value).splitlines()) == 1


def test_a_driver_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, available=False, warning="The NVIDIA driver on your system is too old (found version 11040).")
    assert resolve_device("auto") == "cpu"
    with pytest.raises(MachineError, match="driver on your system is too old"):
        resolve_device("cuda")


def test_a_gpu_that_computes_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, computes=lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda" and resolve_device("cuda:0") == "cuda:0"
    with pytest.raises(MachineError, match="this machine has 1 GPU"):
        resolve_device("cuda:1")


def test_without_a_driver_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    for name in ("gpu", "cuda:x", "tpu"):
        with pytest.raises(UsageError, match="auto, cpu, cuda or cuda:N"):
            resolve_device(name)


def test_the_computation_of_the_probe_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_NEEDED_BYTES", 1000)
    assert probe._computes(torch.device("cpu"))


def test_doctor_says_why(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    class Properties:
        name, total_memory = "Test GPU", 8 * 2**30

    machine(monkeypatch, computes=full)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Properties)
    findings = json.loads(posecli(capfd, "doctor", "--json").out)
    (gpu,) = [finding for finding in findings if finding["subject"] == "gpu"]
    assert gpu["state"] == "note" and "Test GPU, 8 GiB; not usable: its memory is full" in gpu["text"]


@pytest.mark.gpu
def test_the_gpu_here_computes() -> None:
    assert gpu_problem("cuda") is None and resolve_device("auto") == "cuda"
