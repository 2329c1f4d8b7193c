"""Tone mapping of HDR (PQ and HLG) to 8-bit BT.709.

Light is relative to diffuse white (203 cd/m², ITU-R BT.2408). Primaries are converted from BT.2020 to BT.709; luminance
up to KNEE is unchanged, higher values are compressed towards 1 so that highlights keep detail. All three channels are
scaled by the same factor, which preserves hues.
"""

from functools import cache

import cv2
import numpy as np

from posecli.types import FloatArray, PixelArray

PQ, HLG = 16, 18  # code points of ITU-T H.273
TRANSFERS = {PQ: "PQ", HLG: "HLG"}

WHITE = 203.0
PEAK = 1000.0
KNEE = 0.7

_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # ITU-R BT.2087
_LUMINANCE = np.array([[0.2126, 0.7152, 0.0722]], np.float32)
_STEPS = 4096


def tone_mapped(pixels: np.ndarray, transfer: int) -> PixelArray:
    """BT.2020 RGB (height, width, 3) uint16 of full range → BT.709 RGB uint8. transfer: PQ or HLG."""
    light = cv2.transform(_light_table(transfer)[pixels >> 4], _TO_BT709)
    luminance = np.maximum(cv2.transform(light, _LUMINANCE), 0)
    if luminance.ndim == 3:
        luminance = luminance[..., 0]
    shown = np.where(luminance <= KNEE, luminance, 1 - (1 - KNEE) ** 2 / (luminance + 1 - 2 * KNEE))
    light = np.clip(light * (shown / np.maximum(luminance, 1e-6))[..., None], 0, 1)
    # A table over square roots has perceptually more uniform steps.
    return np.asarray(_code_table()[(np.sqrt(light) * (_STEPS - 1) + 0.5).astype(np.uint16)])


@cache
def _light_table(transfer: int) -> FloatArray:
    """Signal in 4096 steps → light relative to diffuse white, float32."""
    signal = np.linspace(0, 1, _STEPS)
    if transfer == PQ:  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        light = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    else:  # ITU-R BT.2100 HLG; the display's gamma of 1.2 is applied to each channel
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = PEAK * scene**1.2
    return (light / WHITE).astype(np.float32)


@cache
def _code_table() -> PixelArray:
    """Square root of light in 4096 steps → 8-bit code of a BT.1886 display (gamma 2.4)."""
    light = np.linspace(0, 1, _STEPS) ** 2
    return np.round(255 * light ** (1 / 2.4)).astype(np.uint8)
