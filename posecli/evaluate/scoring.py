"""COCO keypoint scoring by pycocotools, with checks of input that it would silently score wrongly."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from posecli.annotations.people import FARTHEST
from posecli.errors import DataError, UsageError
from posecli.geometry import AREA_OF_BOX
from posecli.keypoints import KeypointSet

NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
# COCO's ranges of area, in the order of pycocotools' keypoint parameters.
AREAS = ("all", "medium", "large")
OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class CocoMatches:
    """pycocotools' matches in one range of area; M predictions, at most 20 for each image.

    scores (M,). images (M,): index of each one's image. hit, counted (10, M): at each OKS threshold, whether it is
    matched to a person, and whether it is evaluated. people (I,): number of evaluated people of each image.
    """

    scores: NDArray[np.float64]
    images: NDArray[np.int64]
    hit: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    people: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """COCO's ten keypoint figures by name; -1 where no annotation falls into a range, as in COCO.

    precision (10, 101): at each OKS threshold and recall, all areas. matched: by range of area. image_ids: in the
    order of CocoMatches.people. remarks: assumptions made, as sentences for the user.
    """

    values: dict[str, float]
    people: int
    images: int
    precision: NDArray[np.float64]
    matched: Mapping[str, CocoMatches]
    image_ids: tuple[int, ...]
    remarks: tuple[str, ...] = ()


def score_keypoints(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    keypoint_set: KeypointSet,
    *,
    image_ids: Sequence[int] | None = None,
) -> Scores:
    """COCO keypoint AP and AR of results ({image_id, category_id, keypoints, score}) against a COCO dataset.

    At most 20 people an image; OKS with the keypoint set's sigmas. image_ids: restricts ground truth and results.
    The arguments are not changed. Without results AP is 0.

    Raises DataError for keypoints or scores that are not finite, lists of a wrong length, and results of images that
    the ground truth does not have; UsageError for a keypoint set without sigmas.
    """
    if keypoint_set.sigmas is None:
        raise UsageError(f"keypoint set {keypoint_set.name}: OKS needs sigmas; give them in the file's category")
    dataset = prepare_truth(truth)
    known = {image["id"] for image in dataset["images"]}
    chosen = sorted(known if image_ids is None else set(image_ids) & known)
    wanted = set(chosen)
    people = sum(
        a["image_id"] in wanted and not a["iscrowd"] and a["num_keypoints"] > 0 for a in dataset["annotations"]
    )
    checked = [
        r
        for r in check_results(results, len(keypoint_set), known, dataset["categories"][0]["id"])
        if r["image_id"] in wanted
    ]
    without = sum("area" not in a for a in truth["annotations"])
    remarks = (f"{without} annotations without area: {AREA_OF_BOX} of the box's area taken",) if without else ()
    if not checked and people:
        nothing = np.zeros((len(OKS_THRESHOLDS), len(RECALLS)))
        return Scores(dict.fromkeys(NAMES, 0.0), people, len(chosen), nothing, {}, tuple(chosen), remarks)
    if not checked:
        # Neither annotated nor predicted people: COCO's figures are -1.
        nothing = np.full((len(OKS_THRESHOLDS), len(RECALLS)), -1.0)
        return Scores(dict.fromkeys(NAMES, -1.0), 0, len(chosen), nothing, {}, tuple(chosen), remarks)
    evaluation = _evaluated(dataset["annotations"], checked, chosen, keypoint_set.sigmas, AREAS)
    count = len(chosen)
    matched = {area: _matched(evaluation.evalImgs[i * count : (i + 1) * count]) for i, area in enumerate(AREAS)}
    return Scores(
        dict(zip(NAMES, map(float, evaluation.stats), strict=True)),
        people,
        count,
        np.maximum(evaluation.eval["precision"][:, :, 0, 0, 0], 0.0),
        matched,
        tuple(chosen),
        remarks,
    )


def average_precision(
    people: Sequence[dict[str, Any]],
    results: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float],
    image_ids: Iterable[int],
) -> float:
    """AP of all sizes in some images; 0 without results, -1 without people.

    people: annotations of prepare_truth in these images, whose fields for pycocotools are changed. results: in these
    images, of those that score_keypoints has checked. The same figure as by score_keypoints, without checks and
    without the other ranges of area.
    """
    if not any(not person["iscrowd"] and person["num_keypoints"] > 0 for person in people):
        return -1.0
    if not results:
        return 0.0
    precision = _evaluated(people, results, sorted(image_ids), sigmas, AREAS[:1]).eval["precision"]
    return float(precision[precision > -1].mean())


def _evaluated(
    people: Sequence[dict[str, Any]],
    results: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int],
    sigmas: Sequence[float],
    areas: Sequence[str],
) -> "_Evaluation":
    """pycocotools' evaluation, which prints, in the first of its ranges of area; stats need all of them."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _Evaluation(people, results)
        evaluation.params.imgIds = image_ids
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.params.areaRng = evaluation.params.areaRng[: len(areas)]
        evaluation.params.areaRngLbl = list(areas)
        evaluation.evaluate()
        evaluation.accumulate()
        if len(areas) == len(AREAS):
            evaluation.summarize()
    return evaluation


class _Evaluation(COCOeval):  # type: ignore[misc]
    """COCO's evaluation without its index of annotations, and with the OKS of all pairs of an image at once.

    people: annotations of prepare_truth, at least one. results: of check_results.
    """

    def __init__(self, people: Sequence[dict[str, Any]], results: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(iouType="keypoints")
        self.params.catIds = [results[0]["category_id"]]
        self._people, self._found = people, results

    def _prepare(self) -> None:
        """People and predictions by image and category, as pycocotools' index and loadRes make them."""
        for person in self._people:
            person["ignore"] = person["iscrowd"] or person["num_keypoints"] == 0
            self._gts[person["image_id"], person["category_id"]].append(person)
        points = np.array([item["keypoints"] for item in self._found]).reshape(len(self._found), -1, 3)[..., :2]
        areas = np.ptp(points, axis=1).prod(axis=-1).tolist()
        for number, (item, area) in enumerate(zip(self._found, areas, strict=True), 1):
            self._dts[item["image_id"], item["category_id"]].append({**item, "area": area, "id": number})

    def computeOks(self, imgId: Any, catId: Any) -> Any:
        """OKS (predictions, people) of an image, the best predictions first; [] where there are none."""
        people, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-result["score"] for result in found], kind="mergesort")[: self.params.maxDets[-1]]
        if not people or not len(order):
            return []
        labels = np.array([person["keypoints"] for person in people], np.float64).reshape(len(people), -1, 3)
        points = np.array([found[row]["keypoints"] for row in order], np.float64).reshape(len(order), 1, -1, 3)
        boxes = np.array([person["bbox"] for person in people], np.float64)
        areas = np.array([person["area"] for person in people], np.float64)
        labelled = labels[..., 2] > 0
        away = points[..., :2] - labels[None, ..., :2]
        # Where a person has no labelled keypoint, the distance is that to twice the box around its centre.
        low, high = boxes[:, :2] - boxes[:, 2:], boxes[:, :2] + 2 * boxes[:, 2:]
        outside = np.maximum(0, low[:, None] - points[..., :2]) + np.maximum(0, points[..., :2] - high[:, None])
        nothing = np.asarray(~labelled.any(axis=1))
        away = np.where(nothing[:, None, None], outside, away)
        error = (away**2).sum(axis=-1) / (2 * self.params.kpt_oks_sigmas) ** 2
        error = error / (areas[:, None] + np.spacing(1)) / 2
        counted = labelled | nothing[:, None]
        return (np.exp(-error) * counted).sum(axis=-1) / counted.sum(axis=-1)


def _matched(evaluated: Sequence[Mapping[str, Any] | None]) -> CocoMatches:
    """pycocotools' results of all images, concatenated."""
    scores, images, hit, counted = [], [], [], []
    people = np.zeros(len(evaluated))
    for place, item in enumerate(evaluated):
        if item is None:
            continue
        people[place] = np.count_nonzero(np.asarray(item["gtIgnore"]) == 0)
        found = np.asarray(item["dtScores"], np.float64)
        scores.append(found)
        images.append(np.full(len(found), place))
        hit.append(np.asarray(item["dtMatches"]).reshape(len(OKS_THRESHOLDS), -1) > 0)
        counted.append(~np.asarray(item["dtIgnore"]).reshape(len(OKS_THRESHOLDS), -1).astype(bool))
    return CocoMatches(
        np.concatenate([np.zeros(0), *scores]),
        np.concatenate([np.zeros(0, np.int64), *images]),
        np.concatenate([np.zeros((len(OKS_THRESHOLDS), 0), bool), *hit], axis=1),
        np.concatenate([np.zeros((len(OKS_THRESHOLDS), 0), bool), *counted], axis=1),
        people,
    )


def prepare_truth(truth: Mapping[str, Any]) -> dict[str, Any]:
    """A copy for pycocotools, which modifies it: ids from 1 (0 would count as unmatched), missing fields added."""
    count = len(truth["categories"][0]["keypoints"])
    annotations = []
    for number, given in enumerate(truth["annotations"], 1):
        annotation = {"iscrowd": 0, "bbox": [0, 0, 0, 0], "keypoints": [0] * 3 * count, **given, "id": number}
        annotation.pop("segmentation", None)
        annotation.setdefault("num_keypoints", sum(v > 0 for v in annotation["keypoints"][2::3]))
        annotation.setdefault("category_id", truth["categories"][0]["id"])
        annotation.setdefault("area", AREA_OF_BOX * annotation["bbox"][2] * annotation["bbox"][3])
        annotations.append(annotation)
    return {"images": truth["images"], "annotations": annotations, "categories": truth["categories"]}


def check_results(
    results: Sequence[Mapping[str, Any]], keypoints: int, image_ids: set[int], category_id: int = 1
) -> list[dict[str, Any]]:
    """Copies of the results, checked for shape, finite values, image and category. Raises DataError."""
    checked = []
    unknown: set[Any] = set()
    for number, result in enumerate(results, 1):
        if not isinstance(result, Mapping) or "image_id" not in result:
            raise DataError(f"result {number} has no image_id")
        where = f"result {number} of image {result['image_id']}"
        try:
            values = np.asarray(result.get("keypoints", ()), np.float64)
            score = float(result.get("score", np.nan))
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{where}: a keypoint or the score is no number") from error
        if values.shape == (keypoints, 3):
            values = values.reshape(-1)
        if values.shape != (3 * keypoints,):
            raise DataError(f"{where}: {values.size} keypoint values, not {3 * keypoints}")
        # Visibility has no meaning in results.
        values[2::3] = np.where(np.isfinite(values[2::3]), values[2::3], 0)
        if not np.isfinite(values).all() or not np.isfinite(score):
            raise DataError(f"{where}: a value is missing or not finite")
        # Outside of any image, and representable in float32.
        values, score = np.clip(values, -FARTHEST, FARTHEST), min(max(score, -FARTHEST), FARTHEST)
        if result.get("category_id", category_id) != category_id:
            raise DataError(f"{where} is of category {result['category_id']}, the annotations are of {category_id}")
        if result["image_id"] not in image_ids:
            unknown.add(result["image_id"])
        item = {"image_id": result["image_id"], "category_id": category_id}
        checked.append({**item, "keypoints": values.tolist(), "score": score})
    if unknown:
        some = ", ".join(str(i) for i in sorted(unknown, key=str)[:5])
        raise DataError(f"{len(unknown)} image ids of the results are not in the annotations: {some}")
    return checked
