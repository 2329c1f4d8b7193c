"""What decides the content of a run's output, and the fingerprints of it."""

import hashlib
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import orjson

from posecli import __version__
from posecli.detect.detector import Detector, DetectorOptions
from posecli.draw.annotate import Look
from posecli.keypoints import KeypointSet
from posecli.media.images import DEFAULT_MAX_PIXELS
from posecli.media.span import Span
from posecli.pose.estimator import Estimator
from posecli.predict import Predictor
from posecli.results.records import SCHEMA


@dataclass(frozen=True)
class RunOptions:
    """The models aside, everything that decides the output.

    keypoint_threshold: lowest score of a drawn keypoint. media, audio: whether annotated media are written, and with
    sound. black, show_boxes, show_ids, trails (seconds), blur_faces, side_by_side: how they look. codec, crf, preset:
    how videos are encoded. span: the part of each video that is done. detect_every: frames between two searches by the
    detector, 1 for every frame, None where it decides itself. track: whether people of videos get ids. smooth: a
    name of tracking.smoothing.SMOOTHERS, or "offline". person: who is kept, see tracking.choose.
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


def models(predictor: Predictor) -> dict[str, Any]:
    """What runs, for run.json."""
    detector, estimator = predictor.detector, predictor.estimator
    return {
        "pose": {
            "weights": estimator.weights.name if estimator.weights else None,
            "sha256": estimator.weights_sha256,
            "backbone": estimator.config.backbone,
            "input_size": list(estimator.config.input_size),
            "presence": estimator.config.person_score,
            "decoder": estimator.refinement,
            "flip": estimator.flip,
            "reestimate": predictor.reestimate,
            "runtime": estimator.runner.runtime,
            "device": estimator.runner.device,
            "precision": estimator.runner.precision,
        },
        "detector": {
            "name": detector.name,
            "sha256": detector.weights_sha256,
            "threshold": detector.threshold,
            "max_people": detector.options.max_people,
            "runtime": detector.runtime,
            "device": detector.device,
        },
    }


def plain(options: RunOptions) -> dict[str, Any]:
    """The options as JSON values."""
    values: dict[str, Any] = orjson.loads(orjson.dumps(asdict(options), default=str))
    return values


def look_of(keypoint_set: KeypointSet, options: RunOptions) -> Look:
    """How the options want media to look and to be encoded."""
    names = {field.name for field in fields(Look)} & {field.name for field in fields(RunOptions)}
    return Look(keypoint_set, **{name: getattr(options, name) for name in sorted(names)})


def options_key(options: RunOptions, predictor: Predictor) -> str:
    """A fingerprint of everything that decides the output beside the input's own content."""
    look = look_of(predictor.keypoints, options)
    models = _models_key(predictor)
    return _digest({"schema": SCHEMA, "options": asdict(options), "look": asdict(look), "models": models})


def inference_key(options: RunOptions, predictor: Predictor) -> str:
    """A fingerprint of what decides the networks' answers: a journal is good for all looks of the output."""
    models = _models_key(predictor)
    return _digest({"span": asdict(options.span), "detect_every": options.detect_every, "models": models})


# Fields that say where a model comes from, or ask for what the ready model then names: its content and its device
# are in the key as they turned out.
_RESOLVED = ("device", "runtime", "weights", "argument", "runner")


def _models_key(predictor: Predictor) -> dict[str, Any]:
    """All fields of the detector's options, of the detector, of the estimator and of the predictor."""
    detector, estimator = predictor.detector, predictor.estimator
    asked = {field.name: getattr(detector.options, field.name) for field in fields(DetectorOptions)}
    made = {field.name: getattr(detector, field.name) for field in fields(Detector)}
    pose = {field.name: getattr(estimator, field.name) for field in fields(Estimator)}
    return {
        "detector_options": {name: value for name, value in asked.items() if name not in _RESOLVED},
        "detector": {name: value for name, value in made.items() if name not in ("find", "propose", "options")},
        "estimator": {name: value for name, value in pose.items() if name not in (*_RESOLVED, "config", "decoder")},
        "config": estimator.config.to_json(),
        "described": models(predictor),
    }


def _digest(values: dict[str, Any]) -> str:
    document = orjson.dumps({"posecli": __version__, **values}, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.blake2b(document, digest_size=16).hexdigest()
