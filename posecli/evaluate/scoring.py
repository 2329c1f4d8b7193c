"""COCO keypoint scoring: pycocotools does it, guarded against what it does silently wrong."""

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posecli.errors import DataError, UsageError
from posecli.keypoints import KeypointSet

NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
# MMPose's stand-in for a missing segmentation area.
AREA_OF_BOX = 0.53


@dataclass(frozen=True)
class Scores:
    """COCO's ten keypoint figures by name; -1 where no truth falls into a range, as COCO has it."""

    values: dict[str, float]
    people: int
    images: int


def score_keypoints(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    keypoint_set: KeypointSet,
    *,
    image_ids: Sequence[int] | None = None,
) -> Scores:
    """COCO keypoint AP and AR of results ({image_id, category_id, keypoints, score}) against a COCO dataset.

    20 people an image, OKS with the keypoint set's sigmas. image_ids restricts both sides. The caller's
    dicts stay as they are. No result at all is AP 0. Raises DataError for keypoints or scores that are not
    finite, lists of a wrong length, and results of images that the truth does not have; UsageError for a
    keypoint set without sigmas.
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
    checked = [r for r in check_results(results, len(keypoint_set), known) if r["image_id"] in wanted]
    if not checked:
        return Scores(dict.fromkeys(NAMES, 0.0), people, len(chosen))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(checked), "keypoints")
        evaluation.params.imgIds = chosen
        evaluation.params.kpt_oks_sigmas = np.array(keypoint_set.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Scores(dict(zip(NAMES, map(float, evaluation.stats), strict=True)), people, len(chosen))


def prepare_truth(truth: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy that pycocotools reads right: ids from 1 (0 counts as unmatched), areas and counts present."""
    dataset = copy.deepcopy({key: truth[key] for key in ("images", "annotations", "categories")})
    for number, annotation in enumerate(dataset["annotations"], 1):
        annotation["id"] = number
        annotation.setdefault("iscrowd", 0)
        if "num_keypoints" not in annotation:
            annotation["num_keypoints"] = sum(v > 0 for v in annotation.get("keypoints", [])[2::3])
        if "area" not in annotation:
            annotation["area"] = AREA_OF_BOX * annotation["bbox"][2] * annotation["bbox"][3]
    return dict(dataset)


def check_results(results: Sequence[Mapping[str, Any]], keypoints: int, image_ids: set[int]) -> list[dict[str, Any]]:
    """Copies of the results, each of the right shape, finite and of a known image. Raises DataError."""
    checked = []
    unknown: set[Any] = set()
    for number, result in enumerate(results, 1):
        values = np.asarray(result.get("keypoints", ()), np.float64)
        if values.shape != (3 * keypoints,):
            raise DataError(f"result {number}: {values.size} keypoint values, not {3 * keypoints}")
        if not np.isfinite(values).all() or not np.isfinite(result.get("score", np.nan)):
            raise DataError(f"result {number} of image {result.get('image_id')}: a value is missing or not finite")
        if result["image_id"] not in image_ids:
            unknown.add(result["image_id"])
        item = {key: result[key] for key in ("image_id", "score")}
        checked.append({**item, "category_id": 1, "keypoints": values.tolist()})
    if unknown:
        some = ", ".join(str(i) for i in sorted(unknown, key=str)[:5])
        raise DataError(f"{len(unknown)} image ids of the results are not in the annotations: {some}")
    return checked
