"""Fingerprints of everything that the output of a run depends on: the keys by which finished inputs are skipped."""

import hashlib
from dataclasses import asdict, fields
from typing import Any

import orjson

from posecli import __version__
from posecli.detect.detector import Detector, DetectorOptions
from posecli.pipeline.run_options import RunOptions
from posecli.pose.estimator import Estimator
from posecli.predict import Predictor
from posecli.results.records import SCHEMA
from posecli.tracking.propagate import RESTART_EVERY, PropagationOptions


def describe_models(predictor: Predictor) -> dict[str, Any]:
    """The models and how they run, for run.json."""
    detector, estimator = predictor.detector, predictor.estimator
    return {
        "pose": {
            "weights": estimator.weights.name if estimator.weights else None,
            "sha256": estimator.weights_sha256,
            "backbone": estimator.config.backbone,
            "input_size": list(estimator.config.input_size),
            "person_score": estimator.config.person_score,
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
            "verified": detector.verified,
            "max_people": detector.options.max_people,
            "runtime": detector.runtime,
            "device": detector.device,
            "precision": detector.precision,
        },
    }


def to_json(options: RunOptions) -> dict[str, Any]:
    """The options as JSON values."""
    values: dict[str, Any] = orjson.loads(orjson.dumps(asdict(options), default=str))
    return values


def options_key(options: RunOptions, predictor: Predictor) -> str:
    """Fingerprint of everything but the input's content that its output depends on."""
    models = _models_key(predictor)
    keypoints = asdict(predictor.keypoints)
    return _digest({"schema": SCHEMA, "options": asdict(options), "keypoints": keypoints, "models": models})


def inference_key(options: RunOptions, predictor: Predictor) -> str:
    """Fingerprint of what the networks' outputs for a video depend on: not of style or encoder."""
    models = _models_key(predictor)
    detect_every = options.tracking.detect_every
    return _digest({"span": asdict(options.span), "detect_every": detect_every, "models": models})


# Fields that name a model's file, or request a device, runtime or precision; the key holds the resulting content,
# device, runtime and precision instead.
_RESOLVED = ("device", "runtime", "precision", "weights", "argument", "runner")


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
        "described": describe_models(predictor),
    }


def _digest(values: dict[str, Any]) -> str:
    # Both keys are of outputs that depend on box propagation.
    propagation = {"restart_every": RESTART_EVERY, **asdict(PropagationOptions())}
    values = {"posecli": __version__, "propagation": propagation, **values}
    document = orjson.dumps(values, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.blake2b(document, digest_size=16).hexdigest()
