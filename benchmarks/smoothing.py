"""Effect of smoothing on error, jitter and lag of keypoints.

python benchmarks/smoothing.py [--seeds 8] [--clip VIDEO ...]

Synthetic motion with a network's errors (tests/moving.py), at 25 to 30 frames a second with irregular steps. Figures
are relative to the person's height: RMSE and median of the distance to the truth, jitter (RMS of the second
difference of the error from frame to frame), and the lag in milliseconds (the error along the velocity). With --clip,
the embedded models on real videos: the part of the error that is independent from frame to frame relative to the
predicted standard deviation, and the jitter before and after.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from scipy.signal import savgol_filter

sys.path.insert(0, str(Path(__file__).parents[1]))

from posecli.keypoints import COCO17
from posecli.media.video import VideoReader
from posecli.predict import load_predictor
from posecli.tracking.offline import smooth_offline
from posecli.tracking.smoothing import SMOOTHERS
from posecli.tracking.tracker import Tracker
from posecli.types import Poses
from tests.moving import MOTIONS, Errors, moving, seen

Clip = list[tuple[float, Poses]]
HEIGHT = 300.0


def points(poses: list[Poses]) -> np.ndarray:
    """(T, K, 2) of the only person, NaN in frames without it."""
    return np.stack([p.keypoints[0] if len(p) else np.full((17, 2), np.nan) for p in poses]).astype(float)


def stream(name: str) -> Callable[[Clip], np.ndarray]:
    def run(clip: Clip) -> np.ndarray:
        smoother = SMOOTHERS[name](COCO17)
        return points([smoother(t, poses) for t, poses in clip])

    return run


def savitzky_golay(length: int) -> Callable[[Clip], np.ndarray]:
    """A filter of order 2 that assumes regular frames; frames without the person are interpolated first."""

    def run(clip: Clip) -> np.ndarray:
        values = points([poses for _, poses in clip]).reshape(len(clip), -1)
        there = np.isfinite(values[:, 0])
        frames = np.arange(len(clip))
        whole = np.stack([np.interp(frames, frames[there], column[there]) for column in values.T], axis=1)
        return np.asarray(savgol_filter(whole, length, 2, axis=0).reshape(len(clip), -1, 2))

    return run


METHODS: dict[str, tuple[str, Callable[[Clip], np.ndarray]]] = {
    "raw": ("no", stream("none")),
    "One-Euro": ("no", stream("one-euro")),
    "Kalman": ("no", stream("kalman")),
    "Savitzky-Golay, 7 frames": ("whole clip", savitzky_golay(7)),
    "Savitzky-Golay, 13 frames": ("whole clip", savitzky_golay(13)),
    "Kalman, forward and backward": ("1 to 2 s ahead", lambda clip: points(list(smooth_offline(clip)))),
}


def figures(times: np.ndarray, truth: np.ndarray, result: np.ndarray, there: np.ndarray) -> list[float]:
    """RMSE, median, jitter (relative to the height) and lag (ms), over frames with a detection (there)."""
    error = np.where(there[:, None, None], result - truth, np.nan)
    error[:10] = np.nan
    square = (error**2).sum(axis=-1)
    jerk = (np.diff(result - truth, 2, axis=0)[10:] ** 2).sum(axis=-1)
    velocity = np.gradient(truth, times, axis=0)
    known = np.isfinite(error)
    # Without outliers, which do not depend on the lag.
    along = np.clip(error, -0.1 * HEIGHT, 0.1 * HEIGHT)[known] * velocity[known]
    return [
        float(np.sqrt(np.nanmean(square)) / HEIGHT),
        float(np.nanmedian(np.sqrt(square)) / HEIGHT),
        float(np.sqrt(np.nanmean(jerk)) / HEIGHT),
        float(-1000 * along.sum() / (velocity[known] ** 2).sum()),
    ]


def painted(kind: str, errors: Errors, seeds: range) -> dict[str, np.ndarray]:
    """Mean figures of each method, and CPU milliseconds per frame."""
    rows: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    for seed in seeds:
        random = np.random.default_rng(seed)
        times = np.cumsum(random.uniform(0.8, 1.2, 300)) / (25 + seed % 6)
        truth = moving(kind, times, HEIGHT, random)
        poses = seen(truth, times, errors, random)
        there = np.array([len(p) > 0 for p in poses])
        clip = list(zip(times.tolist(), poses, strict=True))
        for name, (_, method) in METHODS.items():
            start = time.process_time()
            result = method(clip)
            spent = 1000 * (time.process_time() - start) / len(clip)
            rows[name].append([*figures(times, truth, result, there), spent])
    return {name: np.mean(values, axis=0) for name, values in rows.items()}


def real(path: Path) -> str:
    """A row for the person with most frames of a clip."""
    predictor = load_predictor(device="cpu", precision="fp32")
    tracker = Tracker(predictor.keypoints)
    clip: Clip = []
    with VideoReader(path) as reader:
        for frame in reader:
            poses = tracker(frame, predictor.predict([frame], [str(path)])[0])
            clip.append((float(frame.time or 0), poses))
    ids = np.concatenate([p.track_ids for _, p in clip if p.track_ids is not None])
    most = int(np.bincount(ids).argmax())
    single = [(t, p.rows(np.flatnonzero(p.track_ids == most))) for t, p in clip]
    single = [(t, p) for t, p in single if len(p)]
    size = float(np.median([(p.boxes[0, 2:] - p.boxes[0, :2]).max() for _, p in single]))
    raw = points([p for _, p in single])
    std = np.stack([p.std[0] for _, p in single])
    # The residual of a local parabola over 7 frames has 2/3 of the variance of white noise, and little motion.
    rest = raw - savgol_filter(raw, 7, 2, axis=0)
    share = np.sqrt((rest**2).mean(axis=(0, 2)) / (2 / 3)) / np.sqrt((std**2).mean(axis=(0, 2)))
    calm = np.median(np.abs(rest), axis=(0, 2)) / 0.6745 / np.sqrt(2 / 3) / np.sqrt((std**2).mean(axis=(0, 2)))

    def jitter(values: np.ndarray) -> float:
        return float(np.sqrt((np.diff(values, 2, axis=0) ** 2).sum(axis=-1).mean()) / size)

    after = [jitter(METHODS[name][1](single)) for name in ("One-Euro", "Kalman", "Kalman, forward and backward")]
    spread = f"{np.median(std) / size:.2%} | {np.median(share):.2f} ({share.min():.2f} to {share.max():.2f})"
    smooth = " | ".join(f"{value:.2%}" for value in (jitter(raw), *after))
    return f"| {path.stem} | {len(single)} | {spread} | {np.median(calm):.2f} | {smooth} |"


@click.command()
@click.option("--seeds", default=8)
@click.option("--clip", "clips", multiple=True, type=click.Path(path_type=Path, exists=True))
def main(seeds: int, clips: tuple[Path, ...]) -> None:
    """Print Markdown tables."""
    clean = Errors(outliers=0, swaps=0)
    cases = [(kind, kind, Errors()) for kind in MOTIONS] + [("walk, no outliers", "walk", clean)]
    cases += [("fast, no outliers", "fast", clean)]
    click.echo("| motion | method | looks ahead | RMSE | median | jitter | lag, ms | ms a frame |\n" + "|---" * 8 + "|")
    for title, kind, errors in cases:
        # Seeds from 1000 on: constants were chosen with other ones.
        for name, row in painted(kind, errors, range(1000, 1000 + seeds)).items():
            lag = "-" if kind == "still" else f"{row[3]:.0f}"
            shares = " | ".join(f"{value:.2%}" for value in row[:3])
            click.echo(f"| {title} | {name} | {METHODS[name][0]} | {shares} | {lag} | {row[4]:.2f} |")
    if clips:
        click.echo(
            "\n| clip | frames | std, of size | new in each frame / std (least to most) | the same, robust"
            " | jitter raw | One-Euro | Kalman | forward and backward |\n|---|---|---|---|---|---|---|---|---|"
        )
    for path in clips:
        click.echo(real(path))


if __name__ == "__main__":
    main()
