"""The formulas of `pose/codec.py` in torch: for exported graphs, and for decoding on a GPU.

The windows of codec.py's parabola are masks over all bins here: a graph then needs no gather, which some runtimes lack.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class AxisDecoder(nn.Module):
    """One axis: logits (N, K, B) → positions, standard deviations (both in bins) and scores, each (N, K).

    decoder: of DECODERS.
    """

    index: Tensor

    def __init__(self, bins: int, sigma: float, temperature: float, decoder: str = "parabola") -> None:
        super().__init__()
        self.sigma, self.temperature, self.position = sigma, temperature, DECODERS[decoder]
        self.radius = max(1, round(1.5 * sigma))
        self.register_buffer("index", torch.arange(bins, dtype=torch.float32), persistent=False)

    def forward(self, logits: Tensor, oks_sigma_bins: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See codec.decode. oks_sigma_bins: (N, K), for the decoder "oks"."""
        log_p = torch.log_softmax(logits * self.temperature, dim=-1)
        top = log_p.amax(dim=-1, keepdim=True)
        position = self.position(self, log_p, oks_sigma_bins)
        score = (top.exp() * (self.sigma * math.sqrt(2 * math.pi))).clamp(max=1.0)
        return position[..., 0], self._deviation(log_p, position), score[..., 0]

    def parabola(self, log_p: Tensor) -> Tensor:
        """The parabola's vertex (N, K, 1), see codec.decode_parabola."""
        values, peak = log_p - log_p.amax(dim=-1, keepdim=True), log_p.argmax(dim=-1, keepdim=True).to(log_p.dtype)
        # Distances relative to the radius: sums of their powers then fit into float32.
        t = (self.index - peak) / self.radius
        inside = (t.abs() <= 1 + 0.25 / self.radius).to(values.dtype)
        weights = torch.exp(0.5 * values) * inside
        powers = [weights, weights * t, weights * t * t]
        m0, m1, m2 = (power.sum(dim=-1, keepdim=True) for power in powers)
        m3, m4 = ((powers[2] * factor).sum(dim=-1, keepdim=True) for factor in (t, t * t))
        v0, v1, v2 = ((power * values).sum(dim=-1, keepdim=True) for power in powers)
        determinant = m4 * (m2 * m0 - m1 * m1) - m3 * (m3 * m0 - m1 * m2) + m2 * (m3 * m1 - m2 * m2)
        a = v2 * (m2 * m0 - m1 * m1) - m3 * (v1 * m0 - m1 * v0) + m2 * (v1 * m1 - m2 * v0)
        b = m4 * (v1 * m0 - v0 * m1) - v2 * (m3 * m0 - m1 * m2) + m2 * (m3 * v0 - v1 * m2)
        usable = (determinant > 1e-9 / self.radius**6) & (a < 0)
        offset = torch.where(usable, -b / (2 * torch.where(usable, a, torch.full_like(a, -1.0))), torch.zeros_like(a))
        offset = torch.where(offset.abs() <= 1, offset, torch.zeros_like(a))
        return peak + offset * self.radius

    def _deviation(self, log_p: Tensor, position: Tensor) -> Tensor:
        """√(variance - σ²) of the distribution within ±4σ of the position, at least half a bin: (N, K)."""
        reach = math.ceil(4 * self.sigma)
        centre = position.round().clamp(0, log_p.shape[-1] - 1)
        p = log_p.exp() * ((self.index - centre).abs() <= reach + 0.25).to(log_p.dtype)
        distance = self.index - position
        variance = (p * distance * distance).sum(dim=-1) / p.sum(dim=-1).clamp(min=1e-12)
        return (variance - self.sigma**2).clamp(min=0.25).sqrt()


def _argmax(axis: AxisDecoder, log_p: Tensor, oks_sigma_bins: Tensor | None) -> Tensor:
    return log_p.argmax(dim=-1, keepdim=True).to(log_p.dtype)


def _parabola(axis: AxisDecoder, log_p: Tensor, oks_sigma_bins: Tensor | None) -> Tensor:
    return axis.parabola(log_p)


def _dark(axis: AxisDecoder, log_p: Tensor, oks_sigma_bins: Tensor | None) -> Tensor:
    """See codec.decode_dark."""
    bins, sigma = log_p.shape[-1], axis.sigma
    otherwise = axis.parabola(log_p)
    if bins < 5:
        return otherwise
    reach = max(2, math.ceil(2 * sigma))
    near = torch.arange(-reach, reach + 1, device=log_p.device)
    kernel = torch.exp(-(near**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    peak = log_p.argmax(dim=-1, keepdim=True)
    window = peak.clamp(2, bins - 3) + torch.arange(-reach - 2, reach + 3, device=log_p.device)
    inside = (window >= 0) & (window < bins)
    p = log_p.gather(-1, window.clamp(0, bins - 1)).exp() * inside
    curve = (p.unfold(-1, 2 * reach + 1, 1) * kernel).sum(dim=-1).clamp(min=1e-30).log()  # (N, K, 5)
    before2, before, at, after, after2 = (curve[..., i : i + 1] for i in range(5))
    first, second = 0.5 * (after - before), 0.25 * (after2 - 2 * at + before2)
    downwards = second < -1e-9
    step = -first / torch.where(downwards, second, -torch.ones_like(second))
    usable = downwards & (step.abs() <= max(2.0, sigma)) & (peak >= reach + 2) & (peak < bins - reach - 2)
    return torch.where(usable, peak + step, otherwise)


def _oks(axis: AxisDecoder, log_p: Tensor, oks_sigma_bins: Tensor | None) -> Tensor:
    """See codec.decode_oks."""
    assert oks_sigma_bins is not None
    bins = log_p.shape[-1]
    frequency = (2 * math.pi / (2 * bins)) * torch.arange(bins + 1, device=log_p.device, dtype=log_p.dtype)
    response = torch.exp(-0.5 * (frequency * oks_sigma_bins[..., None]) ** 2)
    # Twice the bins avoid circular wrap-around.
    spectrum = torch.fft.rfft(log_p.exp(), n=2 * bins, dim=-1)
    blurred = torch.fft.irfft(spectrum * response, n=2 * bins, dim=-1)[..., :bins]
    peak = blurred.argmax(dim=-1, keepdim=True)
    middle = peak.clamp(1, bins - 2)
    around = blurred.gather(-1, middle + torch.arange(-1, 2, device=log_p.device)).clamp(min=1e-30).log()
    before, at, after = (around[..., i : i + 1] for i in range(3))
    curvature = before - 2 * at + after
    downwards = curvature < -1e-12
    step = 0.5 * (before - after) / torch.where(downwards, curvature, -torch.ones_like(curvature))
    return torch.where(downwards, middle + step.clamp(-1, 1), peak.to(log_p.dtype))


# The decoders of codec.DECODERS: an axis, log-probabilities (N, K, B), OKS's σ in bins (N, K) → positions (N, K, 1).
DECODERS: dict[str, Callable[[AxisDecoder, Tensor, Tensor | None], Tensor]] = {
    "argmax": _argmax,
    "dark": _dark,
    "oks": _oks,
    "parabola": _parabola,
}


def merge_flipped(
    logits: tuple[Tensor, Tensor], flipped: tuple[Tensor, Tensor], flip_indices: Tensor, split_ratio: float
) -> tuple[Tensor, Tensor]:
    """See codec.merge_flipped. flip_indices: (K,) on the logits' device."""
    x, y = logits
    flipped_x, flipped_y = (values.index_select(1, flip_indices) for values in flipped)
    bins = x.shape[-1]
    source = (torch.arange(bins, device=x.device) + (split_ratio - 1)).clamp(max=bins - 1)
    low = source.floor()
    backwards, part = flipped_x.flip(-1), (source - low).to(x.dtype)
    index = low.long()
    shifted = backwards.index_select(-1, index) * (1 - part)
    shifted = shifted + backwards.index_select(-1, (index + 1).clamp(max=bins - 1)) * part
    return (x + shifted) / 2, (y + flipped_y) / 2
