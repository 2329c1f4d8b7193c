"""Error analysis: matching of predictions to people, error types by keypoint, calibration of scores and deviations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.evaluate.ground_truth import GroundTruth, is_evaluated
from posecli.evaluate.predictions import Predictions
from posecli.geometry import AREA_OF_BOX, oks

Float = NDArray[np.float64]

# Ronchi and Perona's thresholds of keypoint similarity: good from GOOD on, jitter from CLOSE on.
GOOD, CLOSE = 0.85, 0.5
# Lowest OKS of a match.
MATCH = 0.1
ERROR_TYPES = ("good", "jitter", "inversion", "swap", "miss")


@dataclass(frozen=True, eq=False)
class PersonMatches:
    """M predicted people, each matched to an annotated one.

    predicted, true: indices (M,) into the predictions and into people. people: the evaluated annotations.
    points, labels (M, K, 2): predicted and true keypoints; labelled (M, K). areas (M,). oks (M,).
    similarity (M, K): exp(-d² / (2 · area · (2σ)²)) of each keypoint. sizes (M, 2): of the true boxes.
    """

    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    people: tuple[Mapping[str, Any], ...]
    points: Float
    labels: Float
    labelled: NDArray[np.bool_]
    areas: Float
    oks: Float
    similarity: Float
    sizes: Float


def match_people(truth: GroundTruth, predictions: Predictions) -> PersonMatches:
    """Match each prediction, best score first, to the unmatched person of its image with the highest OKS above 0.1."""
    sigmas = _sigmas(truth)
    people = tuple(a for a in truth.dataset["annotations"] if is_evaluated(a))
    labels = np.array([a["keypoints"] for a in people], np.float64).reshape(len(people), len(sigmas), 3)
    areas = np.array([area_of(a) for a in people])
    of_image: dict[int, list[int]] = {}
    for place, annotation in enumerate(people):
        of_image.setdefault(annotation["image_id"], []).append(place)
    taken: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for row in np.argsort(-predictions.scores, kind="stable"):
        free = [p for p in of_image.get(int(predictions.image_ids[row]), []) if p not in taken]
        if not free:
            continue
        alike = oks(predictions.keypoints[row], labels[free, :, :2], labels[free, :, 2], areas[free], sigmas)
        best = int(np.argmax(alike))
        if alike[best] >= MATCH:
            taken.add(free[best])
            pairs.append((int(row), free[best]))
    predicted, true = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
    points = predictions.keypoints[predicted].astype(np.float64)
    here, labelled = labels[true][..., :2], labels[true][..., 2] > 0
    similarity = keypoint_similarity(points, here, areas[true], sigmas)
    boxes = np.array([a["bbox"] for a in people], np.float64).reshape(-1, 4)
    return PersonMatches(
        predicted,
        true,
        people,
        points,
        here,
        labelled,
        areas[true],
        oks(points, here, labelled, areas[true], sigmas),
        similarity,
        boxes[true][:, 2:],
    )


def keypoint_similarity(points: Float, labels: Float, areas: Float, sigmas: Float) -> Float:
    """exp(-d² / (2 · area · (2σ)²)): (M, K, 2) twice and (M,) → (M, K)."""
    distance2 = ((points - labels) ** 2).sum(axis=-1)
    spread = 2 * (2 * sigmas) ** 2 * np.maximum(areas, np.spacing(1.0))[:, None]
    return np.asarray(np.exp(-distance2 / spread))


def area_of(annotation: Mapping[str, Any]) -> float:
    """The area that OKS divides by; 0.53 of the box where it is missing."""
    return float(annotation.get("area", AREA_OF_BOX * annotation["bbox"][2] * annotation["bbox"][3]))


def classify_errors(truth: GroundTruth, matches: PersonMatches) -> NDArray[np.int64]:
    """Error type (M, K) of each labelled keypoint as an index into ERROR_TYPES, -1 where none is labelled.

    Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV 2017,
    section 3.1. Good: similarity 0.85 or more; jitter: 0.5 to 0.85; inversion: near another keypoint of the
    same person; swap: near a keypoint of the same kind, or of any, of another person; miss: near nothing.
    """
    sigmas = _sigmas(truth)
    flip = list(truth.keypoint_set.flip_indices)
    all_labels = np.array([a["keypoints"] for a in matches.people], np.float64).reshape(
        len(matches.people), len(sigmas), 3
    )
    of_image: dict[int, list[int]] = {}
    for place, annotation in enumerate(matches.people):
        of_image.setdefault(annotation["image_id"], []).append(place)
    types = np.full(matches.labelled.shape, -1, np.int64)
    for row, (person, area) in enumerate(zip(matches.true, matches.areas, strict=True)):
        others = [p for p in of_image[matches.people[person]["image_id"]] if p != person]
        for k in np.flatnonzero(matches.labelled[row]):
            value = matches.similarity[row, k]
            if value >= CLOSE:
                types[row, k] = 0 if value >= GOOD else 1
                continue
            own = [j for j in range(len(sigmas)) if j != k and all_labels[person, j, 2] > 0]
            # The flip pair's other keypoint first: that is inversion in the strict sense.
            if flip[k] != k and flip[k] in own:
                own = [flip[k], *[j for j in own if j != flip[k]]]
            at = matches.points[row, k]
            if own and _near(at, all_labels[person, own, :2], area, sigmas[k]).max() >= CLOSE:
                types[row, k] = 2
            elif any(
                _near(at, all_labels[o, all_labels[o, :, 2] > 0, :2], area, sigmas[k]).max(initial=0) >= CLOSE
                for o in others
            ):
                types[row, k] = 3
            else:
                types[row, k] = 4
    return types


def _near(point: Float, labels: Float, area: float, sigma: float) -> Float:
    return np.asarray(np.exp(-((labels - point) ** 2).sum(axis=-1) / (2 * (2 * sigma) ** 2 * max(area, 1e-9))))


def corrected(
    predictions: Predictions, matches: PersonMatches, types: NDArray[np.int64], error_type: str
) -> list[dict[str, Any]]:
    """COCO results in which the keypoints with errors of this type are at their true positions."""
    points = predictions.keypoints.astype(np.float64).copy()
    wrong = types == ERROR_TYPES.index(error_type)
    fixed = points[matches.predicted]
    fixed[wrong] = matches.labels[wrong]
    points[matches.predicted] = fixed
    results = []
    for item, of_item in zip(predictions.results, points, strict=True):
        flat = np.concatenate([of_item, np.ones((len(of_item), 1))], axis=1).reshape(-1).tolist()
        results.append({**item, "keypoints": flat})
    return results


def keypoint_table(truth: GroundTruth, matches: PersonMatches, types: NDArray[np.int64]) -> list[dict[str, Any]]:
    """For each keypoint: labelled count, OKS, PCK, error in pixels, share of each error type.

    PCK@0.05 and 0.1: share within so much of the longer side of the person's box.
    """
    distance = np.linalg.norm(matches.points - matches.labels, axis=-1)
    relative = distance / matches.sizes.max(axis=1, initial=1e-9)[:, None] if len(distance) else distance
    rows = []
    for k, name in enumerate(truth.keypoint_set.names):
        seen = matches.labelled[:, k]
        row: dict[str, Any] = {"keypoint": name, "count": int(seen.sum())}
        if seen.any():
            error = distance[seen, k]
            row |= {
                "oks": float(matches.similarity[seen, k].mean()),
                "pck_05": float((relative[seen, k] <= 0.05).mean()),
                "pck_10": float((relative[seen, k] <= 0.1).mean()),
                "mean_error_px": float(error.mean()),
                "median_error_px": float(np.median(error)),
                **{name: float((types[seen, k] == index).mean()) for index, name in enumerate(ERROR_TYPES)},
            }
        rows.append(row)
    return rows


@dataclass(frozen=True)
class StdCalibration:
    """Share of true positions within 1 and 2 predicted standard deviations, each axis by itself.

    For a Gaussian these are 0.683 and 0.954. scale: factor on the deviations with which the share within one is 0.683.
    rows: the same for each keypoint, before and after scaling.
    """

    within_1: float
    within_2: float
    scale: float
    within_1_scaled: float
    within_2_scaled: float
    rows: tuple[dict[str, Any], ...]


GAUSSIAN_1, GAUSSIAN_2 = 0.6827, 0.9545


def calibrate_std(names: Sequence[str], residuals: Float, std: Float, labelled: NDArray[np.bool_]) -> StdCalibration:
    """Residuals and standard deviations (M, K, 2) of labelled (M, K) keypoints; see StdCalibration."""
    ratio = np.abs(residuals) / np.maximum(std, 1e-6)
    used = ratio[labelled].reshape(-1)
    scale = float(np.quantile(used, GAUSSIAN_1)) if len(used) else 1.0
    rows = []
    for k, name in enumerate(names):
        of_k = ratio[labelled[:, k], k].reshape(-1)
        rows.append({"keypoint": name, **_shares(of_k, 1.0), **_shares(of_k, scale, "_scaled")})
    whole = {**_shares(used, 1.0), **_shares(used, scale, "_scaled")}
    return StdCalibration(
        whole["within_1"], whole["within_2"], scale, whole["within_1_scaled"], whole["within_2_scaled"], tuple(rows)
    )


def _shares(ratio: Float, scale: float, suffix: str = "") -> dict[str, float]:
    if not len(ratio):
        return {f"within_{n}{suffix}": float("nan") for n in (1, 2)}
    return {f"within_{n}{suffix}": float((ratio <= n * scale).mean()) for n in (1, 2)}


def score_calibration(scores: Float, similarity: Float, bins: int = 10) -> list[dict[str, float]]:
    """Mean similarity (M,) of keypoints by their predicted score (M,), in bins of equal counts."""
    order = np.argsort(scores)
    rows = []
    for part in np.array_split(order, bins):
        if len(part):
            rows.append(
                {"score": float(scores[part].mean()), "oks": float(similarity[part].mean()), "count": len(part)}
            )
    return rows


def _sigmas(truth: GroundTruth) -> Float:
    return np.array(truth.keypoint_set.sigmas, np.float64)
