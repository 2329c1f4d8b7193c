"""What the tests share: tiny media, and a tiny pose model with random weights."""

import contextlib
import os
import signal
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC, initialise_head
from posecli.runtime.openvino_package import openvino_package
from posecli.weights.files import save_weights
from tests.alone import several_processes, turn
from tests.media_factory import picture
from tests.warm import Warm, the_warm_one

# Started in the background, a shell's job ignores Ctrl-C, and what it starts does too; here it is sent on purpose.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Without its usage statistics: they are sent by forks of this process, which would hold its locks.
with contextlib.suppress(ImportError):  # the tests for GPUs do without it
    openvino_package()

# Of several processes each has a share of the cores.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1" if several_processes() else "2")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.timeout(3600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not several_processes():
        return (yield)
    # The folder above those of the processes of one test run.
    folder = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    with turn(folder, "alone" in item.keywords):
        return (yield)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; tests that need it are skipped where it is not."""
    places = [os.environ.get("POSECLI_SHARED"), Path(__file__).parents[2] / "shared" / "data"]
    for place in places:
        if place and Path(place).is_dir():
            return Path(place)
    pytest.skip("no shared data: set POSECLI_SHARED")


@pytest.fixture(scope="session")
def warm() -> Warm:
    """Processes of the command line that need no second to start."""
    return the_warm_one()


@pytest.fixture(scope="session")
def samples() -> Path:
    return Path(__file__).parents[1] / "samples"


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pose model with random weights, small and quick."""
    config = PoseConfig(deconv_channels=(8,), input_size=(64, 32), sigma=(1.5, 1.5))
    torch.manual_seed(3)
    network = SimCC(config)
    initialise_head(network, config)
    # Batch norms that have seen pictures, and loud classifiers: the output then depends on the input.
    network.train()
    pictures = np.stack([picture(32, 64, seed) for seed in range(16)])
    with torch.no_grad():
        for _ in range(30):
            network((torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 116) / 58)
        for layer in (network.fc_x, network.fc_y):
            layer.weight.mul_(20)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, network.state_dict(), {"kind": "pose", "config": config.to_json()})
    return path
