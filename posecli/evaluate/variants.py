"""Variants that `posecli eval` compares: all combinations of weights, boxes, sizes, runtimes and so on."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posecli.annotations.document import shown
from posecli.detect import DETECTORS, Detector, load_detector
from posecli.detect.boxes import read_boxes
from posecli.errors import DataError, UsageError
from posecli.evaluate.ground_truth import GroundTruth, training_overlap
from posecli.evaluate.predictions import Found, Predictions, collect, memoised, predict_all, true_boxes
from posecli.keypoints import same_keypoints
from posecli.pose.codec import CHOICES
from posecli.pose.estimator import NO_MIRROR, Estimator, load_estimator
from posecli.types import Detections

LOG = logging.getLogger(__name__)

FLIPS = ("none", "shifted", "unshifted")


@dataclass(frozen=True)
class Variant:
    """One configuration of predictions. Variants that differ only in decoder and flip test share network outputs."""

    weights: str
    boxes: str
    input_size: tuple[int, int] | None
    runtime: str
    precision: str
    decoder: str
    flip: str


@dataclass(frozen=True)
class Settings:
    """Options common to all variants, named as those of `posecli eval`."""

    device: str = "auto"
    detector_threshold: float | None = None
    rank_by: str = "box-keypoints"
    reestimate: bool = False
    allow_overlap: bool = False


@dataclass(frozen=True, eq=False)
class Candidate:
    """Predictions to evaluate, with their name and further entries of metrics.json."""

    name: str
    predictions: Predictions
    metadata: Mapping[str, Any]


def list_variants(
    weights: Sequence[str],
    boxes: Sequence[str],
    sizes: Sequence[str],
    runtimes: Sequence[str],
    precisions: Sequence[str],
    decoders: Sequence[str],
    flips: Sequence[str],
) -> list[Variant]:
    """All combinations without duplicates. sizes: "HxW" texts, empty for the model's own. Raises UsageError."""
    for option, values, known in (("--decode", decoders, CHOICES), ("--flip-test", flips, FLIPS)):
        for value in values:
            if value not in known:
                raise UsageError(f"{option} {value}: choose from {', '.join(known)}")
    sides = [_size(text) for text in sizes] or [None]
    product = itertools.product(weights, boxes, sides, runtimes, precisions, decoders, flips)
    return [Variant(*values) for values in dict.fromkeys(product)]


def _size(text: str) -> tuple[int, int] | None:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise UsageError(f"--input-size {text}: HEIGHTxWIDTH, e.g. 256x192")
    return int(height), int(width)


def name_variants(variants: Sequence[Variant]) -> list[str]:
    """A name for each variant: its weights, and the fields in which the variants differ."""
    differing = [field for field in Variant.__annotations__ if len({getattr(v, field) for v in variants}) > 1]
    names = []
    for variant in variants:
        words = [_short(variant.weights, [v.weights for v in variants])]
        size = "own size" if variant.input_size is None else "{}x{}".format(*variant.input_size)
        spoken = {"boxes": Path(variant.boxes).name, "input_size": size, "flip": f"flip {variant.flip}"}
        words += [spoken.get(field, getattr(variant, field)) for field in differing if field != "weights"]
        names.append(" ".join(words))
    return names


def _short(weights: str, all_weights: Sequence[str]) -> str:
    path = Path(weights)
    if path.suffix != ".safetensors":
        return weights
    # The weights of runs have equal file names (last.safetensors) in different folders.
    alike = {w for w in all_weights if Path(w).name == path.name}
    return str(Path(path.parent.name) / path.stem) if len(alike) > 1 else path.stem


# Variants that share network outputs, boxes, and the first estimator → people of consecutive images, in order.
Spread = Callable[[Sequence[Variant], Mapping[int, Detections] | Detector, Estimator], Iterable[Found]]


def load_first(variant: Variant, settings: Settings, runtime: str | None = None) -> Estimator:
    """The estimator of the first of the variants that share network outputs. runtime: instead of the variant's."""
    return load_estimator(
        variant.weights,
        device=settings.device,
        runtime=runtime or variant.runtime,
        precision=variant.precision,
        input_size=variant.input_size,
    )


def estimators_of(estimator: Estimator, group: Sequence[Variant]) -> list[Estimator]:
    """The estimators of variants that share network outputs, from the first one's."""
    if len(group) > 1:
        estimator = replace(estimator, runner=memoised(estimator.runner))
    return [
        replace(estimator, decoder=v.decoder, flip=v.flip != "none", shift_flipped=v.flip != "unshifted") for v in group
    ]


def predict_variants(
    variants: Sequence[Variant], truth: GroundTruth, settings: Settings, spread: Spread | None = None
) -> Iterator[Candidate]:
    """Predictions of every variant, in their order. spread: has the images processed elsewhere, see evaluate.workers.

    Raises DataError for weights of other keypoints than the ground truth's, and for weights that were trained on its
    images unless that is allowed.
    """
    names = iter(name_variants(variants))
    for _, members in itertools.groupby(variants, _network):
        group = list(members)
        first = group[0]
        estimator = load_first(first, settings)
        trained_on = check_weights(estimator, first.weights, truth, settings.allow_overlap)
        if any(v.flip != "none" for v in group) and not estimator.config.keypoints.mirrors:
            LOG.warning(NO_MIRROR, first.weights)
        estimators = estimators_of(estimator, group)
        boxes = find_boxes(first.boxes, truth, settings, first.precision)
        start = time.monotonic()
        if spread is None:
            found = predict_all(estimators, truth, boxes, rank_by=settings.rank_by, reestimate=settings.reestimate)
        else:
            found = collect(spread(group, boxes, estimator), truth)
        seconds = time.monotonic() - start
        for variant, chosen, predictions in zip(group, estimators, found, strict=True):
            metadata = {
                "weights": variant.weights,
                "weights_sha256": estimator.weights_sha256,
                "boxes": variant.boxes,
                "decode": chosen.refinement,
                "flip": variant.flip,
                "input_size": list(estimator.config.input_size),
                "resampled_to_this_size": estimator.resampled,
                "runtime": estimator.runner.runtime,
                "precision": estimator.runner.precision,
                "device": estimator.runner.device,
                "std_scale": estimator.config.std_scale,
                "rank_by": settings.rank_by,
                "reestimate": settings.reestimate,
                "trained_on_images": trained_on,
                "predict_seconds": round(seconds, 2),
                "predicted_together": len(group),
                # Variants that share one pass have no speed of their own.
                "people_per_s": round(len(predictions) / max(seconds, 1e-9), 1) if len(group) == 1 else None,
            }
            yield Candidate(next(names), predictions, metadata)


def _network(variant: Variant) -> tuple[object, ...]:
    """What variants that share network outputs have in common."""
    return variant.weights, variant.boxes, variant.input_size, variant.runtime, variant.precision


def check_weights(estimator: Estimator, name: str, truth: GroundTruth, allow_overlap: bool) -> int:
    """Number of the ground truth's images that the model was trained on. Raises DataError where they do not match."""
    if not same_keypoints(estimator.config.keypoints, truth.keypoint_set):
        sets = (estimator.config.keypoints, truth.keypoint_set)
        theirs, own = (f"{len(found)} of {shown(found.name)}" for found in sets)
        raise DataError(f"{name} predicts other keypoints ({theirs}) than the annotations have ({own})")
    assert estimator.weights is not None
    count, first = training_overlap(estimator.weights, truth)
    if count and not allow_overlap:
        raise DataError(
            f"{name} was trained on {count} of the {len(truth.files)} images, first {first}: "
            "its figures would be too high (--allow-overlap computes them all the same)"
        )
    return count


def find_boxes(
    name: str, truth: GroundTruth, settings: Settings, precision: str = "fp32"
) -> Mapping[int, Detections] | Detector:
    """The boxes of "gt", a detector's name ("detector": the embedded one) or a COCO file, for predict_all."""
    if name == "gt":
        return true_boxes(truth)
    name = "person" if name == "detector" else name
    if name in DETECTORS and name != "boxes":
        threshold = settings.detector_threshold
        return load_detector(name, device=settings.device, precision=precision, threshold=threshold)
    path = Path(name.removeprefix("boxes:"))
    if not path.is_file():
        raise UsageError(f"--boxes {name}: no such file; else gt, detector, {', '.join(n for n in DETECTORS)}")
    table = read_boxes(path, settings.detector_threshold or 0.0, prefer=truth.dataset["categories"][0].get("name"))
    for note in table.notes:
        LOG.warning("%s: %s", path.name, note)
    found = {}
    for image_id, file in truth.files.items():
        # Datasets may have other ids and are matched by file name; lists of detections have ids only.
        own = image_id if truth.ids is None else truth.ids.own[image_id]
        of_file = table.id_like(own) if table.names is None else table.id_of(file)
        if of_file is not None and of_file in table.by_id:
            found[image_id] = table.by_id[of_file]
    if not found and table.by_id:
        unknown = ", ".join(shown(table.own(i)) for i in sorted(table.by_id)[:5])
        raise DataError(f"{path}: none of its {len(table.by_id)} images is in the annotations: {unknown}")
    return found
