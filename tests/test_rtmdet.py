"""RTMDet-nano's parts of the person detector, and reading them from a graph of another program."""

import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import Tensor, nn

from posecli.backbones.cspnext import STRIDES, CSPNeXt, CSPNeXtPAFPN
from posecli.detect.person import PersonNetwork, locations
from posecli.detect.rtmdet import Features, Head
from posecli.errors import DataError

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from import_rtmdet import CONFIG, Maps, detector_of, read_rtmdet

SIZE = (64, 96)


class Exported(nn.Module):
    """A network as the file holds it: scores (N, A, 1), boxes (N, A, 4) from distances times strides."""

    def __init__(self, network: Maps) -> None:
        super().__init__()
        self.network = network
        self.centres, self.sizes = locations(SIZE, CONFIG.strides)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, distances = self.network(x)
        logits, distances = (
            torch.cat([m.permute(0, 2, 3, 1).reshape(1, -1, m.shape[1]) for m in maps], dim=1)
            for maps in (logits, distances)
        )
        distances = distances * self.sizes[:, None]
        boxes = torch.cat([self.centres - distances[..., :2], self.centres + distances[..., 2:]], dim=-1)
        return logits.sigmoid(), boxes


@pytest.fixture(scope="module")
def network() -> Maps:
    torch.manual_seed(2)
    network = Maps(Features(CONFIG.channels), Head(CONFIG.channels, CONFIG.convolutions)).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    return network


def save(module: nn.Module, path: Path) -> Path:
    example = torch.zeros(1, 3, *SIZE)
    model = openvino.convert_model(module, example_input=example, input=[1, 3, *SIZE])
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


@pytest.fixture(scope="module")
def file(network: Maps, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(Exported(network), tmp_path_factory.mktemp("graph") / "random.xml")


def test_detector_equals_the_file_on_pictures_of_rgb(file: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    normalised = ((picture - np.array(CONFIG.mean)) / CONFIG.std)[..., ::-1].transpose(0, 3, 1, 2)
    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    scores, boxes = compiled(np.ascontiguousarray(normalised, np.float32)).values()
    assert np.ptp(scores) > 0.1 and np.ptp(boxes) > 10
    with torch.no_grad():
        found_boxes, found_scores = detector_of(read_rtmdet(file))(torch.from_numpy(picture))
    np.testing.assert_allclose(found_scores.numpy(), scores[..., 0], atol=1e-4)
    np.testing.assert_allclose(found_boxes.numpy(), boxes, atol=1e-4 * np.abs(boxes).max())


def test_another_graph_is_refused(tmp_path: Path, network: Maps) -> None:
    with pytest.raises(DataError, match="no scores of one class"):
        read_rtmdet(save(nn.Conv2d(3, 5, 3, 8, 1), tmp_path / "other.xml"))
    deeper = Maps(Features(CONFIG.channels), Head(CONFIG.channels, CONFIG.convolutions + 1)).eval()
    with pytest.raises(DataError, match="RTMDet-nano"):
        read_rtmdet(save(Exported(deeper), tmp_path / "deeper.xml"))


@pytest.mark.parametrize(("widen", "deepen", "channels"), [(0.25, 0.33, (64, 128, 256)), (0.125, 1.0, (32, 64, 128))])
def test_width_depth_and_norms(widen: float, deepen: float, channels: tuple[int, ...]) -> None:
    body = CSPNeXt(widen, deepen, norm=True)
    neck = CSPNeXtPAFPN(body.channels, 24, deepen, norm=True)
    maps = body(torch.zeros(2, 3, 64, 32))
    assert [tuple(m.shape) for m in maps] == [(2, c, 64 // s, 32 // s) for c, s in zip(channels, STRIDES, strict=True)]
    assert [tuple(m.shape) for m in neck(maps)] == [(2, 24, 64 // s, 32 // s) for s in STRIDES]
    norms = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == sum(isinstance(m, nn.Conv2d) and m.bias is None for m in body.modules()) > 20
    plain = CSPNeXt(widen, deepen)
    assert all(module.bias is not None for module in plain.modules() if isinstance(module, nn.Conv2d))


def test_a_score_is_its_own_geometric_mean(network: Maps) -> None:
    detector = detector_of(network)
    assert isinstance(detector, PersonNetwork)
    with torch.no_grad():
        outputs = detector.head(list(detector.backbone(torch.zeros(1, 3, *SIZE)).values()))
        _, scores = detector(torch.full((1, *SIZE, 3), 114, dtype=torch.uint8))
    assert outputs["cls_logits"].shape == (1, 8 * 12 + 4 * 6 + 2 * 3, 1) and scores.shape == (1, 126)
    torch.testing.assert_close(outputs["cls_logits"], outputs["bbox_ctrness"])
