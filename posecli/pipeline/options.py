"""What decides the content of a run's output, and the fingerprints of it."""

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from posecli import __version__
from posecli.detect import Detector
from posecli.media.images import DEFAULT_MAX_PIXELS
from posecli.media.span import Span
from posecli.output.records import SCHEMA
from posecli.pose.estimator import Estimator


@dataclass(frozen=True)
class RunOptions:
    """The models aside, everything that decides the output.

    keypoint_threshold: lowest score of a drawn keypoint. media, audio: whether annotated media are written, and with
    sound. black, show_boxes, show_ids, trails (seconds), blur_faces, side_by_side: how they look. codec, crf, preset:
    how videos are encoded. span: the part of each video that is done. detect_every: frames between two searches by the
    detector, 1 for every frame, None where it decides itself. track: whether people of videos get ids. smooth: a
    name of track.smoothing.SMOOTHERS, or "offline". person: who is kept, see track.choose.
    """

    keypoint_threshold: float = 0.3
    media: bool = True
    audio: bool = True
    black: bool = False
    show_boxes: bool = False
    show_ids: bool = False
    trails: float = 0.0
    blur_faces: bool = False
    side_by_side: bool = False
    codec: str = "h264"
    crf: int = 20
    preset: str = "veryfast"
    max_pixels: int = DEFAULT_MAX_PIXELS
    span: Span = field(default_factory=Span)
    detect_every: int | None = 1
    track: bool = True
    smooth: str = "none"
    person: str = "all"


def models(detector: Detector, estimator: Estimator) -> dict[str, Any]:
    """What runs, for run.json."""
    return {
        "pose": {
            "weights": estimator.weights.name if estimator.weights else None,
            "sha256": estimator.weights_sha256,
            "backbone": estimator.config.backbone,
            "input_size": list(estimator.config.input_size),
            "presence": estimator.config.presence,
            "decoder": estimator.refinement,
            "flip": estimator.flip,
            "runtime": estimator.runner.runtime,
            "device": estimator.runner.device,
            "precision": estimator.runner.precision,
        },
        "detector": {
            "name": detector.name,
            "sha256": detector.weights_sha256,
            "threshold": detector.threshold,
            "runtime": detector.runtime,
            "device": detector.device,
        },
    }


def plain(options: RunOptions) -> dict[str, Any]:
    """The options as JSON values."""
    values: dict[str, Any] = orjson.loads(orjson.dumps(asdict(options), default=str))
    return values


def options_key(options: RunOptions, detector: Detector, estimator: Estimator) -> str:
    """A fingerprint of everything that decides the output beside the input's own content."""
    return _digest({"schema": SCHEMA, "options": plain(options), "models": models(detector, estimator)})


def answers_key(options: RunOptions, detector: Detector, estimator: Estimator) -> str:
    """A fingerprint of what decides the networks' answers: a journal is good for all looks of the output."""
    span = plain(options)["span"]
    return _digest({"span": span, "detect_every": options.detect_every, "models": models(detector, estimator)})


def _digest(values: dict[str, Any]) -> str:
    document = orjson.dumps({"posecli": __version__, **values}, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(document, digest_size=16).hexdigest()
