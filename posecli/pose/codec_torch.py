"""The codec of `codec.py` in torch, for logits that are on a device; the two agree in a test."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from posecli.errors import UsageError


def decode_argmax(log_p: Tensor, sigma: float, tolerance: Tensor | None) -> Tensor:
    """The highest bin; see codec.decode_argmax."""
    return log_p.argmax(dim=-1).float()


def decode_parabola(log_p: Tensor, sigma: float, tolerance: Tensor | None) -> Tensor:
    """Vertex of a weighted parabola through log p around the peak; see codec.decode_parabola."""
    radius = max(1, round(1.5 * sigma))
    peak = log_p.argmax(dim=-1)
    t, window = _window(log_p, peak, radius)
    weights = torch.exp(0.5 * (window - window.amax(dim=-1, keepdim=True)).double())
    values = torch.where(window.isfinite(), window, 0.0).double()
    m0, m1, m2, m3, m4 = ((weights * t**i).sum(-1) for i in range(5))
    v0, v1, v2 = ((weights * values * t**i).sum(-1) for i in range(3))
    determinant = m4 * (m2 * m0 - m1 * m1) - m3 * (m3 * m0 - m1 * m2) + m2 * (m3 * m1 - m2 * m2)
    a = v2 * (m2 * m0 - m1 * m1) - m3 * (v1 * m0 - m1 * v0) + m2 * (v1 * m1 - m2 * v0)
    b = m4 * (v1 * m0 - v0 * m1) - v2 * (m3 * m0 - m1 * m2) + m2 * (m3 * v0 - v1 * m2)
    opens_down = (determinant > 1e-9) & (a < 0)
    offset = torch.where(opens_down, -b / (2 * torch.where(opens_down, a, -1.0)), 0.0)
    return (peak + torch.where(offset.abs() <= radius, offset, 0.0)).float()


def decode_dark(log_p: Tensor, sigma: float, tolerance: Tensor | None) -> Tensor:
    """DARK's step on the blurred distribution's logarithm; see codec.decode_dark."""
    bins = log_p.shape[-1]
    if bins < 5:
        return decode_parabola(log_p, sigma, tolerance)
    reach = max(2, math.ceil(2 * sigma))
    grid = torch.arange(-reach, reach + 1, device=log_p.device)
    kernel = torch.exp(-(grid.float() ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    peak = log_p.argmax(dim=-1)
    _, window = _window(log_p, peak.clamp(2, bins - 3), reach + 2)
    blurred = window.exp().unfold(-1, 2 * reach + 1, 1) @ kernel
    curve = blurred.clamp_min(1e-30).log()
    first = 0.5 * (curve[..., 3] - curve[..., 1])
    second = 0.25 * (curve[..., 4] - 2 * curve[..., 2] + curve[..., 0])
    downwards = second < -1e-9
    step = torch.where(downwards, -first / torch.where(downwards, second, -1.0), torch.inf)
    usable = downwards & (step.abs() <= max(2.0, sigma)) & (peak >= reach + 2) & (peak < bins - reach - 2)
    return torch.where(usable, peak + torch.where(usable, step, 0.0), decode_parabola(log_p, sigma, tolerance))


def decode_oks(log_p: Tensor, sigma: float, tolerance: Tensor | None) -> Tensor:
    """The position with the highest expected OKS; see codec.decode_oks."""
    if tolerance is None:
        raise UsageError("decoder 'oks': these keypoints have no OKS sigmas; choose another")
    bins = log_p.shape[-1]
    frequency = 2 * math.pi * torch.fft.rfftfreq(2 * bins, device=log_p.device, dtype=torch.float64)
    response = torch.exp(-0.5 * (frequency * tolerance.double()[..., None]) ** 2)
    spectrum = torch.fft.rfft(log_p.double().exp(), 2 * bins)
    blurred = torch.fft.irfft(spectrum * response, 2 * bins)[..., :bins]
    peak = blurred.argmax(dim=-1)
    middle = peak.clamp(1, bins - 2)
    around = blurred.gather(-1, middle[..., None] + torch.arange(-1, 2, device=log_p.device))
    before, at, after = around.clamp_min(1e-30).log().unbind(-1)
    curvature = before - 2 * at + after
    downwards = curvature < -1e-12
    step = 0.5 * (before - after) / torch.where(downwards, curvature, -1.0)
    return torch.where(downwards, middle + step.clamp(-1, 1), peak).float()


DECODERS: dict[str, Callable[[Tensor, float, Tensor | None], Tensor]] = {
    "argmax": decode_argmax,
    "dark": decode_dark,
    "oks": decode_oks,
    "parabola": decode_parabola,
}


def decode(
    logits: Tensor,
    sigma: float,
    decoder: str = "parabola",
    temperature: float = 1.0,
    tolerance: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, standard deviations (both in bins) and scores (...) of logits (..., B); see codec.decode."""
    if decoder not in DECODERS:
        raise UsageError(f"decoder {decoder!r}: choose from {', '.join(DECODERS)}")
    log_p = torch.log_softmax(logits.float() * temperature, dim=-1)
    position = DECODERS[decoder](log_p, sigma, tolerance)
    scores = (log_p.amax(dim=-1).exp() * (sigma * math.sqrt(2 * math.pi))).clamp_max(1.0)
    centre = position.round().long().clamp(0, log_p.shape[-1] - 1)
    t, window = _window(log_p, centre, math.ceil(4 * sigma))
    p = window.exp()
    distance = t + (centre - position)[..., None]
    variance = (p * distance**2).sum(-1) / p.sum(-1).clamp_min(1e-12)
    return position, (variance - sigma**2).clamp_min(0.25).sqrt(), scores


def _window(log_p: Tensor, centre: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Offsets t (2r+1,) and log p (..., 2r+1) around centre; -inf outside the bins."""
    t = torch.arange(-radius, radius + 1, device=log_p.device)
    index = centre[..., None] + t
    inside = (index >= 0) & (index < log_p.shape[-1])
    values = log_p.gather(-1, index.clamp(0, log_p.shape[-1] - 1))
    return t, torch.where(inside, values, -torch.inf)
