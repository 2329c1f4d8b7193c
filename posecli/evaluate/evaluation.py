"""Everything that `posecli eval` says of one set of predictions, as plain values."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.evaluate.bootstrap import FIGURES, Difference, difference, interval, resampled
from posecli.evaluate.errors import (
    KINDS,
    Matches,
    StdCalibration,
    area_of,
    calibrate_std,
    corrected,
    error_kinds,
    keypoint_table,
    match_people,
    score_calibration,
)
from posecli.evaluate.people import Truth, is_judged
from posecli.evaluate.predictions import Predictions
from posecli.evaluate.scoring import Scores, score_keypoints

# Label, and a half-open range of the square root of a person's area: COCO's medium begins at 32, large at 96.
SIZES = (
    ("under 64 px", 0, 64),
    ("64 to 96 px", 64, 96),
    ("96 to 160 px", 96, 160),
    ("160 to 320 px", 160, 320),
    ("over 320 px", 320, 10**6),
)
VISIBLE = (("1 to 4", 1, 5), ("5 to 8", 5, 9), ("9 to 12", 9, 13), ("over 12", 13, 10**6))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One model's figures. draws: bootstrap resamples by figure, the same images for every model."""

    name: str
    facts: Mapping[str, Any]
    scores: Scores
    draws: Mapping[str, NDArray[np.float64]]
    matches: Matches
    keypoints: Sequence[Mapping[str, Any]]
    kinds: Mapping[str, float]
    gains: Mapping[str, float]
    by_size: Sequence[Mapping[str, Any]]
    by_visible: Sequence[Mapping[str, Any]]
    std: StdCalibration | None
    score_bins: Sequence[Mapping[str, float]]

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of each figure."""
        return {name: interval(values) for name, values in self.draws.items()}

    def to_json(self) -> dict[str, Any]:
        """metrics.json: COCO's names as keys, the rest beside them."""
        return {
            **self.scores.values,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "name": self.name,
            **self.facts,
            "people": self.scores.people,
            "images": self.scores.images,
            "people_matched": len(self.matches.oks),
            "mean_oks_of_matched": float(self.matches.oks.mean()) if len(self.matches.oks) else 0.0,
            "keypoints": list(self.keypoints),
            "errors": dict(self.kinds),
            "AP_if_corrected": dict(self.gains),
            "by_size": list(self.by_size),
            "by_visible_keypoints": list(self.by_visible),
            "keypoint_std": None if self.std is None else dataclasses.asdict(self.std),
            "score_calibration": list(self.score_bins),
            "remarks": list(self.scores.remarks),
        }


def evaluate(
    name: str,
    truth: Truth,
    predictions: Predictions,
    facts: Mapping[str, Any],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score, resample and take apart. facts: what else the report should say of these predictions."""
    keypoint_set = truth.keypoint_set
    scores = score_keypoints(truth.dataset, predictions.results, keypoint_set)
    matches = match_people(truth, predictions)
    kinds = error_kinds(truth, matches)
    labelled = max(1, int((kinds >= 0).sum()))
    std = bins = None

    def ap_of(results: Sequence[Mapping[str, Any]]) -> float:
        return score_keypoints(truth.dataset, results, keypoint_set).values["AP"]

    if predictions.std is not None and matches.labelled.any():
        residuals = matches.points - matches.labels
        deviations = predictions.std[matches.predicted].astype(np.float64)
        std = calibrate_std(keypoint_set.names, residuals, deviations, matches.labelled)
    if predictions.keypoint_scores is not None:
        of_keypoints = predictions.keypoint_scores[matches.predicted].astype(np.float64)
        bins = score_calibration(of_keypoints[matches.labelled], matches.similarity[matches.labelled])
    return Evaluation(
        name=name,
        facts=facts,
        scores=scores,
        draws=resampled(scores, count=bootstrap, seed=seed),
        matches=matches,
        keypoints=keypoint_table(truth, matches, kinds),
        kinds={kind: float((kinds == number).sum() / labelled) for number, kind in enumerate(KINDS)},
        gains={
            kind: score_keypoints(truth.dataset, corrected(predictions, matches, kinds, kind), keypoint_set).values[
                "AP"
            ]
            for kind in KINDS[1:]
        },
        by_size=_by_group(truth, predictions, SIZES, lambda a: area_of(a) ** 0.5),
        by_visible=_by_group(truth, predictions, VISIBLE, _labelled),
        std=std,
        score_bins=bins or [],
    )


def compare(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Differences of every evaluation to the first, figure by figure, on the same resampled images."""
    rows = []
    base = evaluations[0]
    for other in evaluations[1:]:
        row: dict[str, Any] = {"name": other.name, "against": base.name}
        for figure in FIGURES:
            value = other.scores.values[figure] - base.scores.values[figure]
            found: Difference = difference(base.draws[figure], other.draws[figure], value)
            row[figure] = dataclasses.asdict(found)
        rows.append(row)
    return rows


def _labelled(annotation: Mapping[str, Any]) -> float:
    return float(sum(value > 0 for value in annotation["keypoints"][2::3]))


def _by_group(
    truth: Truth,
    predictions: Predictions,
    groups: Sequence[tuple[str, float, float]],
    measure: Callable[[Mapping[str, Any]], float],
) -> list[dict[str, Any]]:
    """AP with only the people in a range counting; those outside may be found or not."""
    rows = []
    for label, low, high in groups:
        annotations = []
        people = 0
        for annotation in truth.dataset["annotations"]:
            if is_judged(annotation):
                inside = low <= measure(annotation) < high
                people += inside
                # pycocotools ignores people without counted keypoints, as it does with unlabelled ones.
                annotations.append(annotation if inside else {**annotation, "num_keypoints": 0})
            else:
                annotations.append(annotation)
        row: dict[str, Any] = {"range": label, "people": people}
        if people:
            dataset = {**truth.dataset, "annotations": annotations}
            row["AP"] = score_keypoints(dataset, predictions.results, truth.keypoint_set).values["AP"]
        rows.append(row)
    return rows
