"""CSPNeXt and the heads with a gated attention unit: sizes, headers, other input sizes."""

from dataclasses import replace

import pytest
import torch

from posecli.errors import DataError
from posecli.pose.config import AttentionSizes, PoseConfig
from posecli.pose.network import SimCC, initialise_head, resample_classifiers

CHANNELS, BLOCKS = (64, 128, 256, 512, 1024), (3, 6, 6, 3)
SMALL = PoseConfig(
    backbone="cspnext",
    widths=(8, 16, 32, 64, 128),
    blocks=(1, 1, 1, 1),
    head="rtmcc",
    attention=AttentionSizes(hidden=32, keys=16, expanded=64, neck_blocks=1),
    deconv_channels=(),
    input_size=(96, 64),
    temperature=10.0,
    sigma=(1.5, 1.5),
)


def parameters(config: PoseConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SimCC(config).parameters())


# Published: 3.34, 5.47, 13.59 and 27.66 million.
@pytest.mark.parametrize(
    ("widen", "deepen", "count"),
    [(0.375, 0.167, 3_337_007), (0.5, 0.33, 5_473_251), (0.75, 0.67, 13_587_611), (1, 1, 27_660_339)],
)
def test_rtmpose_has_the_published_number_of_parameters(widen: float, deepen: float, count: int) -> None:
    widths = tuple(int(channels * widen) for channels in CHANNELS)
    blocks = tuple(max(1, round(number * deepen)) for number in BLOCKS)
    config = PoseConfig(backbone="cspnext", widths=widths, blocks=blocks, head="rtmcc", deconv_channels=())
    assert parameters(config) == count


@pytest.mark.parametrize("head", ["rtmcc", "rtmw"])
def test_a_header_brings_back_the_same_network(head: str) -> None:
    config = replace(SMALL, head=head, person_score=True)
    assert PoseConfig.from_json(config.to_json()) == config
    network = SimCC(config).eval()
    x, y, log_odds = network(torch.rand(2, 3, 96, 64))
    assert x.shape == (2, 17, 128) and y.shape == (2, 17, 192) and log_odds.shape == (2,)


def test_a_header_without_the_new_keys_is_of_simcc_and_stays_as_it_was() -> None:
    written = PoseConfig().to_json()
    assert not {"head", "attention", "widths", "blocks"} & set(written)
    assert PoseConfig.from_json(written) == PoseConfig()


@pytest.mark.parametrize("head", ["rtmcc", "rtmw"])
def test_each_token_sees_the_others_and_no_other_crop(head: str) -> None:
    torch.manual_seed(0)
    network = SimCC(replace(SMALL, head=head)).eval()
    crops = torch.rand(3, 3, 96, 64)
    with torch.no_grad():
        together = network(crops)
        alone = [network(crops[i : i + 1]) for i in range(3)]
        for axis in range(2):
            apart = torch.cat([outputs[axis] for outputs in alone])
            torch.testing.assert_close(together[axis], apart, rtol=1e-4, atol=1e-5)
        attention = network.get_submodule("head.attention")
        tokens = torch.rand(1, 5, 32)
        moved = tokens.clone()
        moved[0, 4] += 1
        assert (attention(tokens) - attention(moved))[0, 0].abs().max() > 1e-6


@pytest.mark.parametrize("head", ["rtmcc", "rtmw"])
def test_another_input_size_takes_the_classifiers_along(head: str) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, head=head)
    larger = replace(config, input_size=(192, 128))
    network = SimCC(config).eval()
    initialise_head(network, config)
    other = SimCC(larger).eval()
    other.load_state_dict(resample_classifiers(network.state_dict(), config, larger))
    flat = torch.full((1, 3, 96, 64), 0.3), torch.full((1, 3, 192, 128), 0.3)
    with torch.no_grad():
        x, large_x = network(flat[0])[0], other(flat[1])[0]
    assert large_x.shape[-1] == 2 * x.shape[-1]
    # Each row of the smaller one lies half-way between two of the larger one's.
    small, large = (model.get_parameter("head.fc_x.weight") for model in (network, other))
    torch.testing.assert_close(
        (large[2:-2:2] + large[3:-1:2]) / 2, 0.75 * small[1:-1] + 0.125 * (small[:-2] + small[2:])
    )


def test_a_backbone_or_head_that_does_not_fit_is_told() -> None:
    for wrong, told in (
        ({"head": "rtmx"}, "choose from simcc"),
        ({"backbone": "lite_hrnet", "widths": (), "blocks": ()}, "features at 1/32"),
        ({"backbone": "resnet18"}, "one size only"),
        ({"widths": (8, 16)}, "widths are five"),
        ({"deconv_channels": (8,)}, "no transposed convolutions"),
    ):
        with pytest.raises(DataError, match=told):
            SimCC(replace(SMALL, **wrong))  # type: ignore[arg-type]
