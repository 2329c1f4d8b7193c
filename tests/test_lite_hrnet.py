"""Lite-HRNet as a backbone, and reading it from an OpenVINO IR."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from posecli.backbones.lite_hrnet import LiteHRNet
from posecli.errors import DataError
from posecli.pose.config import PoseConfig
from posecli.pose.network import BoxHead, SimCC, for_inference

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from import_lite_hrnet import HeatmapNetwork, read_ir, simcc_of

SIZE = (64, 64)


def config(**values: object) -> PoseConfig:
    return PoseConfig(backbone="lite_hrnet", deconv_channels=(), input_size=SIZE, **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def network() -> HeatmapNetwork:
    torch.manual_seed(3)
    network = HeatmapNetwork(17).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture(scope="module")
def ir(network: HeatmapNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ir") / "random.xml"
    model = openvino.convert_model(network, example_input=torch.zeros(1, 3, *SIZE), input=[1, 3, *SIZE])
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def test_sizes() -> None:
    fine, coarse = LiteHRNet()(torch.zeros(2, 3, 96, 64))
    assert fine.shape == (2, 40, 24, 16) and coarse.shape == (2, 320, 3, 2)
    assert config().map_size == (16, 16)


def test_it_offers_no_levels_for_laterals() -> None:
    with pytest.raises(DataError, match="laterals"):
        SimCC(PoseConfig(backbone="lite_hrnet", deconv_channels=(8,), laterals=True, input_size=SIZE))


def test_outputs_of_all_heads() -> None:
    outputs = SimCC(config(person_score=True, box_head=True)).eval()(torch.zeros(2, 3, *SIZE))
    assert [tuple(o.shape) for o in outputs] == [(2, 17, 128), (2, 17, 128), (2,), (2, 4)]


def test_ir_is_read_exactly(network: HeatmapNetwork, ir: Path) -> None:
    read, size = read_ir(ir)
    assert size == SIZE
    crops = np.random.default_rng(0).normal(size=(1, 3, *SIZE)).astype(np.float32)
    compiled = openvino.Core().compile_model(str(ir), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        ours = read(torch.from_numpy(crops)).numpy()
    theirs = compiled(crops)[0]
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_another_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.xml"
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 17, 3, 4, 1))
    openvino.save_model(
        openvino.convert_model(other, example_input=torch.zeros(1, 3, *SIZE), input=[1, 3, *SIZE]), path
    )
    with pytest.raises(DataError, match="Lite-HRNet"):
        read_ir(path)


def test_classifiers_find_the_heatmaps_peaks(network: HeatmapNetwork) -> None:
    model = simcc_of(network, config())
    maps = torch.zeros(1, 17, 16, 16)
    maps[0, :, 5, 9] = 1.0
    x, y = model.fc_x(maps.flatten(2)), model.fc_y(maps.flatten(2))
    # A cell of 4 pixels holds 8 bins; its centre is between two of them.
    assert abs(int(x[0, 0].argmax()) - (9 * 8 + 3.5)) < 4.5 and abs(int(y[0, 0].argmax()) - (5 * 8 + 3.5)) < 4.5


@pytest.mark.parametrize("size", [(64, 64), (128, 96)])
def test_the_form_for_inference_has_the_same_outputs_and_leaves_the_network_alone(size: tuple[int, int]) -> None:
    torch.manual_seed(5)
    network = SimCC(replace(config(person_score=True, box_head=True), input_size=size)).eval()
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.1)
        elif name.startswith("backbone"):
            parameter.data *= 0.7  # random sums of branches grow
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    faster, crops = for_inference(network), torch.randn(3, 3, *size)
    with torch.inference_mode():
        expected, found = network(crops), faster(crops)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert len(expected) == 4
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape and (one - other).abs().max() < 1e-4 * one.abs().max()
        assert one.std() > 0
    counts = [sum(isinstance(m, torch.nn.ChannelShuffle) for m in n.modules()) for n in (network, faster)]
    assert counts == [49, 0]


def test_other_backbones_have_one_form() -> None:
    network = SimCC(PoseConfig(backbone="mobilenet_v2", input_size=SIZE))
    assert for_inference(network) is network


@pytest.mark.parametrize("cells", [(8, 6), (4, 3), (2, 2), (4, 4), (5, 7), (16, 12)])
def test_the_box_heads_grid_is_adaptive_pooling(cells: tuple[int, int]) -> None:
    head, features = BoxHead(4).eval(), torch.randn(2, 4, *cells)
    expected = torch.nn.functional.adaptive_avg_pool2d(features, head.GRID)
    torch.testing.assert_close(head._grid(features), expected)
