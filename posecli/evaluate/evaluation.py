"""All figures of `posecli eval` for one set of predictions, as plain values."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.evaluate.bootstrap import FIGURES, Difference, difference, interval, resampled
from posecli.evaluate.error_types import (
    ERROR_TYPES,
    PersonMatches,
    StdCalibration,
    area_of,
    calibrate_std,
    classify_errors,
    corrected,
    keypoint_table,
    match_people,
    score_calibration,
)
from posecli.evaluate.ground_truth import GroundTruth, is_evaluated
from posecli.evaluate.predictions import Predictions
from posecli.evaluate.scoring import Scores, average_precision, prepare_truth, score_keypoints

# Label, and a half-open range of the square root of a person's area: COCO's medium begins at 32, large at 96.
SIZES = (
    ("under 64", 0, 64),
    ("64 to 96", 64, 96),
    ("96 to 160", 96, 160),
    ("160 to 320", 160, 320),
    ("over 320", 320, 10**6),
)
VISIBLE = (("1 to 4", 1, 5), ("5 to 8", 5, 9), ("9 to 12", 9, 13), ("over 12", 13, 10**6))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One model's figures. resamples: bootstrap values by figure, of the same images for every model.

    error_types: share of labelled keypoints by error type. ap_if_corrected: AP after correcting all keypoints of an
    error type. scoring_seconds: time for the figures, without the predictions.
    """

    name: str
    metadata: Mapping[str, Any]
    scores: Scores
    resamples: Mapping[str, NDArray[np.float64]]
    matches: PersonMatches
    keypoints: Sequence[Mapping[str, Any]]
    error_types: Mapping[str, float]
    ap_if_corrected: Mapping[str, float]
    by_size: Sequence[Mapping[str, Any]]
    by_visible: Sequence[Mapping[str, Any]]
    std: StdCalibration | None
    score_bins: Sequence[Mapping[str, float]]
    scoring_seconds: float

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of each figure."""
        return {name: interval(values) for name, values in self.resamples.items()}

    def to_json(self) -> dict[str, Any]:
        """The document of metrics.json: COCO's figures under their usual names, and further entries."""
        return {
            **self.scores.values,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "name": self.name,
            **self.metadata,
            "scoring_seconds": round(self.scoring_seconds, 2),
            "people": self.scores.people,
            "images": self.scores.images,
            "people_matched": len(self.matches.oks),
            "mean_oks_of_matched": float(self.matches.oks.mean()) if len(self.matches.oks) else 0.0,
            "keypoints": list(self.keypoints),
            "errors": dict(self.error_types),
            "AP_if_corrected": dict(self.ap_if_corrected),
            "by_size": list(self.by_size),
            "by_visible_keypoints": list(self.by_visible),
            "keypoint_std": None if self.std is None else dataclasses.asdict(self.std),
            "score_calibration": list(self.score_bins),
            "remarks": list(self.scores.remarks),
        }


def evaluate(
    name: str,
    truth: GroundTruth,
    predictions: Predictions,
    metadata: Mapping[str, Any],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score, bootstrap and analyse. metadata: further entries of metrics.json, e.g. weights and runtime."""
    start = time.monotonic()
    scores = score_keypoints(truth.dataset, predictions.results, truth.keypoint_set)
    scores = dataclasses.replace(scores, remarks=(*truth.notes, *predictions.remarks, *scores.remarks))
    with ThreadPoolExecutor(1) as beside:
        # Mostly large arrays, beside which the interpreter analyses the errors.
        resamples = beside.submit(resampled, scores, count=bootstrap, seed=seed)
        analysed = _analysed(name, truth, predictions, metadata, scores)
    seconds = time.monotonic() - start
    return dataclasses.replace(analysed, resamples=resamples.result(), scoring_seconds=seconds)


def _analysed(
    name: str, truth: GroundTruth, predictions: Predictions, metadata: Mapping[str, Any], scores: Scores
) -> Evaluation:
    """The evaluation without resamples."""
    matches = match_people(truth, predictions)
    types = classify_errors(truth, matches)
    labelled = max(1, int((types >= 0).sum()))
    std = bins = None
    if predictions.std is not None and matches.labelled.any():
        residuals = matches.points - matches.labels
        deviations = predictions.std[matches.predicted].astype(np.float64)
        std = calibrate_std(truth.keypoint_set.names, residuals, deviations, matches.labelled)
    if predictions.keypoint_scores is not None:
        of_keypoints = predictions.keypoint_scores[matches.predicted].astype(np.float64)
        bins = score_calibration(of_keypoints[matches.labelled], matches.similarity[matches.labelled])
    prepared = prepare_truth(truth.dataset)["annotations"]
    sigmas = truth.keypoint_set.sigmas or ()

    def corrected_ap(error_type: str) -> float:
        return average_precision(prepared, corrected(predictions, matches, types, error_type), sigmas, truth.files)

    # In the order of matches.people.
    people = [own for own, given in zip(prepared, truth.dataset["annotations"], strict=True) if is_evaluated(given)]
    groups = _Groups(people, sigmas, predictions, matches)
    return Evaluation(
        name=name,
        metadata=metadata,
        scores=scores,
        resamples={},
        matches=matches,
        keypoints=keypoint_table(truth, matches, types),
        error_types={name: float((types == index).sum() / labelled) for index, name in enumerate(ERROR_TYPES)},
        ap_if_corrected={name: corrected_ap(name) for name in ERROR_TYPES[1:]},
        by_size=groups.table(SIZES, lambda a: area_of(a) ** 0.5),
        by_visible=groups.table(VISIBLE, _labelled),
        std=std,
        score_bins=bins or [],
        scoring_seconds=0.0,
    )


# Variants with the same metadata under these keys differ in decoder and flip test only.
_SAME = ("weights", "boxes", "input_size", "runtime", "precision")


def compare(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Differences of every evaluation after the first, figure by figure, on the same resampled images.

    Each one is compared with the first of the same network, boxes, size, runtime and precision; the first of such a
    group with the first of all.
    """
    rows = []
    baselines: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        base = baselines.setdefault(str([evaluation.metadata.get(key) for key in _SAME]), evaluation)
        if base is evaluation:
            base = evaluations[0]
        if base is evaluation:
            continue
        row: dict[str, Any] = {"name": evaluation.name, "against": base.name}
        for figure in FIGURES:
            value = evaluation.scores.values[figure] - base.scores.values[figure]
            found: Difference = difference(base.resamples[figure], evaluation.resamples[figure], value)
            row[figure] = dataclasses.asdict(found)
        rows.append(row)
    return rows


def _labelled(annotation: Mapping[str, Any]) -> float:
    return float(sum(value > 0 for value in annotation["keypoints"][2::3]))


@dataclass(frozen=True, eq=False)
class _Groups:
    """Groups of people by a measure. people: of prepare_truth, in the order of matches.people."""

    people: Sequence[dict[str, Any]]
    sigmas: Sequence[float]
    predictions: Predictions
    matches: PersonMatches

    def table(
        self, groups: Sequence[tuple[str, float, float]], measure: Callable[[Mapping[str, Any]], float]
    ) -> list[dict[str, Any]]:
        """AP of the people in each range, computed from the predictions matched to them.

        Other predictions are left out: most are of people in other ranges and would count as false positives.
        """
        rows = []
        values = np.array([measure(person) for person in self.people])
        for label, low, high in groups:
            inside = (low <= values) & (values < high)
            row: dict[str, Any] = {"range": label, "people": int(inside.sum())}
            if inside.any():
                people = [person for person, chosen in zip(self.people, inside, strict=True) if chosen]
                matched = self.matches.predicted[inside[self.matches.true]]
                results = [self.predictions.results[i] for i in matched]
                # Images without people of the range have no predictions here, either.
                images = {person["image_id"] for person in people}
                row["AP"] = average_precision(people, results, self.sigmas, images)
            rows.append(row)
        return rows
