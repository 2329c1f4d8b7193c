"""What is captured in CUDA graphs copies nothing from the CPU and waits for nothing, by fake tensors of a GPU."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from posecli.detect import resident as detector
from posecli.detect.person import PersonNetwork, build_fcos, locations, locations_on
from posecli.detect.resident import ResidentDetector
from posecli.pose import resident as pose_model
from posecli.pose.codec import DECODERS
from posecli.pose.config import PoseConfig
from posecli.pose.network import PixelNetwork, SimCC, for_inference
from posecli.pose.resident import Decoding, ResidentPose
from posecli.runtime.network import ModuleSpec
from posecli.runtime.prepare import Prepared
from tests.weights_factory import PERSON

GPU = torch.device("cuda", 0)


class Watch(TorchDispatchMode):
    """Refuses operations that copy between CPU and GPU; fake tensors refuse those whose result the CPU waits for."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            devices = {v.device.type for v in (*args, result) if isinstance(v, Tensor) and v.ndim}
            assert len(devices) <= 1, f"{function}: {devices}"
        return result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Tensors without data, all on the GPU from the beginning; modules as they are, since they cannot be moved."""

    def as_it_is(module: nn.Module, device: torch.device, precision: str) -> Prepared:
        return lambda pixels: tuple(output.float() for output in module.eval()(pixels))

    for owner in (pose_model, detector):
        monkeypatch.setattr(owner, "prepare", as_it_is)
    for cached in (locations, locations_on):
        cached.cache_clear()
    with FakeTensorMode() as mode, torch.device(GPU):
        yield mode
    # Else tests after these would be given fake tensors.
    for cached in (locations, locations_on):
        cached.cache_clear()


def spec_of(module: nn.Module) -> ModuleSpec:
    return ModuleSpec(lambda: module, None, cpu_batch=4, gpu_batch=4)


@pytest.mark.parametrize("decoder", sorted(DECODERS))
@pytest.mark.parametrize("backbone", ["lite_hrnet", "resnet18"])
def test_a_graph_of_the_pose_model_stays_on_the_gpu(fake: FakeTensorMode, backbone: str, decoder: str) -> None:
    lite = backbone == "lite_hrnet"
    config = PoseConfig(
        backbone=backbone, deconv_channels=() if lite else (8,), input_size=(64, 64), sigma=(3, 3),
        person_score=lite, box_head=lite,
    )  # fmt: skip
    network = SimCC(config)
    module = PixelNetwork(network if lite else for_inference(network), config)
    resident = ResidentPose(spec_of(module), config, "cuda:0", "float16")
    crops, sigmas = torch.zeros((4, 64, 64, 3), dtype=torch.uint8, device=GPU), torch.ones((4, 17), device=GPU)
    for mirrored in (False, True):
        batch = resident._batch(Decoding(decoder, 2.0), mirrored)
        with Watch(), torch.no_grad():
            found = batch._function(crops, sigmas)
        assert found.device == GPU and found.shape == (4, 17 * 5 + 1 + (5 if lite else 0))


def test_a_graph_of_the_detector_stays_on_the_gpu(fake: FakeTensorMode) -> None:
    module = PersonNetwork(build_fcos(PERSON), PERSON)
    resident = ResidentDetector(spec_of(module), PERSON, "cuda:0", "float16", 100)
    images, numbers = torch.zeros((4, 192, 192, 3), dtype=torch.uint8, device=GPU), torch.ones((4, 5), device=GPU)
    with torch.no_grad():
        resident._step(images, numbers)  # as before a capture
        with Watch():
            found = resident._step(images, numbers)
    assert found.device == GPU and found.shape[0] == 4 and found.shape[1] % 6 == 1


def test_the_watch_sees_copies(fake: FakeTensorMode) -> None:
    numbers = torch.ones((4, 5), device=GPU)
    with Watch():
        numbers.repeat(1, 2)
        with pytest.raises(AssertionError, match="cpu"):
            torch.ones(3, device="cpu").to(GPU)
