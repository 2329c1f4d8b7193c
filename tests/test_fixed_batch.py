"""Batches of one size on a torch device: padding, smaller ones where memory is short, errors, prepared networks."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from posecli.errors import MachineError
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import load_estimator
from posecli.pose.network import SimCC
from posecli.runtime.fixed_batch import CapturedFunction, FixedBatch
from posecli.runtime.lanes import gpu_errors, working
from posecli.runtime.prepare import fold_norms, prepare
from posecli.types import Detections, Frame
from tests.media_factory import picture

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def rows(device: torch.device, count: int = 11) -> Tensor:
    return torch.arange(count * 3, dtype=torch.float32, device=device).view(count, 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 4, 11])
def test_every_call_has_the_same_size(device: str, count: int) -> None:
    sizes = []

    def doubled(values: Tensor) -> Tensor:
        sizes.append(len(values))
        return values * 2

    batch, given = FixedBatch(doubled, 4), rows(torch.device(device), count)
    for _ in range(2):
        with working(torch.device(device)) as lane:
            found = batch(lambda first, last: (given[first:last],), count, lane)
        np.testing.assert_array_equal(found, given.cpu().numpy() * 2)
    assert set(sizes) == {4}


@pytest.mark.parametrize("device", DEVICES)
def test_out_of_memory_halves_the_batch(device: str, caplog: pytest.LogCaptureFixture) -> None:
    sizes = []

    def greedy(values: Tensor) -> Tensor:
        sizes.append(len(values))
        if len(values) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return values + 1

    batch, given = FixedBatch(greedy, 16), rows(torch.device(device))
    with caplog.at_level(logging.WARNING), working(torch.device(device)) as lane:
        found = batch(lambda first, last: (given[first:last],), 11, lane)
    np.testing.assert_array_equal(found, given.cpu().numpy() + 1)
    assert batch.size == 2 and list(dict.fromkeys(sizes)) == [16, 8, 4, 2]
    assert [record.getMessage() for record in caplog.records][-1].startswith(
        "out of memory on the device: batches of 2"
    )


def test_out_of_memory_while_inputs_are_made_halves_too() -> None:
    def inputs(first: int, last: int) -> tuple[Tensor, ...]:
        if last - first > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (rows(torch.device("cpu"))[first:last],)

    batch = FixedBatch(lambda values: values, 20)
    with working(torch.device("cpu")) as lane:
        np.testing.assert_array_equal(batch(inputs, 11, lane), rows(torch.device("cpu")).numpy())
    assert batch.size == 5


def test_no_memory_for_a_single_row_is_one_line() -> None:
    def greedy(values: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n20.00 GiB.")

    cpu = torch.device("cpu")
    with pytest.raises(MachineError, match="cpu: out of memory") as caught, working(cpu) as lane:
        FixedBatch(greedy, 4)(lambda first, last: (rows(cpu)[first:last],), 11, lane)
    assert len(str(caught.value).splitlines()) == 1
    with working(cpu):  # the lane is free again
        pass


def test_errors_of_a_gpu_are_one_line_others_are_not_hidden() -> None:
    cuda = torch.device("cuda", 1)
    for text in (
        "CUDA error: an illegal memory access\nCompile with TORCH_USE_CUDA_DSA",
        "cuDNN error: NOT_INITIALIZED",
    ):
        with pytest.raises(MachineError, match=r"cuda:1 failed: (CUDA|cuDNN) error") as caught, gpu_errors(cuda):
            raise RuntimeError(text)
        assert len(str(caught.value).splitlines()) == 1 and "posecli doctor" in str(caught.value)
    for device, text in ((cuda, "shapes differ"), (torch.device("cpu"), "CUDA error")):
        with pytest.raises(RuntimeError, match=text), gpu_errors(device):
            raise RuntimeError(text)


def test_a_lost_device_fails_the_call_in_one_line(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = load_estimator(str(tiny_weights), device="cpu", resident=True)
    frame = Frame(picture())
    boxes = [Detections(np.array([[2, 3, 30, 50]], np.float32), np.ones(1, np.float32))]
    assert len(estimator([frame], boxes)[0]) == 1

    def lost(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CapturedFunction, "__call__", lost)
    with pytest.raises(MachineError, match="out of memory"):
        estimator([frame], boxes)


def outputs(module: nn.Module, pixels: Tensor) -> list[Tensor]:
    found = module(pixels)
    return [found] if isinstance(found, Tensor) else list(found)


def busy(module: nn.Module) -> nn.Module:
    """Batch norms with statistics that are not the identity's."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.running_var, layer.weight):
                assert values is not None
                values.data.uniform_(0.5, 1.5, generator=generator)
            layer.running_mean.normal_(0, 0.2, generator=generator)  # type: ignore[union-attr]
    return module.eval()


@pytest.mark.parametrize("laterals", [False, True])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v2"])
def test_folded_norms_change_rounding_errors_only(backbone: str, laterals: bool) -> None:
    torch.manual_seed(0)
    config = PoseConfig(backbone=backbone, deconv_channels=(16, 16), input_size=(64, 64), laterals=laterals)
    network = busy(SimCC(config))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = outputs(network, pixels)
        folded = fold_norms(network)
        for a, b in zip(expected, outputs(folded, pixels), strict=True):
            assert (a - b).abs().max() <= 1e-4 * a.abs().max()
    left = sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert left == (2 if laterals else 0)


def test_a_convolution_with_two_norms_is_left() -> None:
    shared = nn.Conv2d(3, 3, 1)
    two = nn.ModuleList([nn.Sequential(shared, nn.BatchNorm2d(3)) for _ in range(2)])
    fold_norms(two.eval())
    assert all(isinstance(branch[1], nn.BatchNorm2d) for branch in two)  # type: ignore[index]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("precision", "share"), [("float32", 1e-4), ("bfloat16", 0.06), ("float16", 0.02)])
def test_lower_precisions_are_near(device: str, precision: str, share: float) -> None:
    torch.manual_seed(0)
    module = busy(torchvision.models.resnet18(weights=None))
    pixels = torch.randn(2, 3, 64, 64)
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.inference_mode():
        (expected,) = outputs(module, pixels)
        (found,) = prepare(module, torch.device(device), precision)(pixels.to(device))
    assert found.dtype == torch.float32
    assert (expected - found.cpu()).abs().max() <= share * expected.abs().max()
    assert all(torch.equal(weights[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.gpu
def test_a_graph_is_replayed_with_new_inputs() -> None:
    device = torch.device("cuda")
    with working(device) as lane:
        captured = CapturedFunction(lambda values: values.square().sum(dim=1, keepdim=True), (rows(device),))
        assert captured._graph is not None
        for factor in (1, 3):
            found = captured((rows(device) * factor,)).clone()
            lane.synchronise()
            assert torch.allclose(found, (rows(device) * factor).square().sum(dim=1, keepdim=True))
