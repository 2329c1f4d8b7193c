"""Predicted people of a validation set as arrays, from a model and boxes or from a results file."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posecli.annotations.document import Repairs, number, read_json, shown
from posecli.annotations.ids import map_ids
from posecli.annotations.pixels import add_remark, read_pixels
from posecli.detect.detector import Detector, Find
from posecli.errors import DataError, MediaError, UsageError
from posecli.evaluate.ground_truth import GroundTruth, is_evaluated
from posecli.evaluate.scoring import check_results
from posecli.geometry import oks, xywh_to_xyxy
from posecli.pose.estimator import Estimator, person_scores
from posecli.pose.outputs import Outputs
from posecli.pose.runner import Runner
from posecli.predict import Predictor
from posecli.results.coco import result_of
from posecli.types import Detections, FloatArray, Frame, IntArray, PixelArray, Poses

# Images whose people share a batch.
CHUNK = 8


@dataclass(frozen=True, eq=False)
class Predictions:
    """N predicted people of K keypoints, in the pixels of the annotations.

    image_ids (N,). keypoints (N, K, 2). scores (N,): of the person, by which COCO ranks. keypoint_scores (N, K) and
    std (N, K, 2): None where a results file does not have them. results: entries of COCO's results file, with internal
    ids of the ground truth. remarks: repairs of the input, as sentences for the user.
    """

    image_ids: IntArray
    keypoints: FloatArray
    scores: FloatArray
    keypoint_scores: FloatArray | None
    std: FloatArray | None
    results: tuple[dict[str, Any], ...]
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)


def true_boxes(truth: GroundTruth) -> dict[int, Detections]:
    """The boxes of the evaluated people, score 1, by image id."""
    boxes: dict[int, list[Any]] = {}
    for annotation in truth.dataset["annotations"]:
        if is_evaluated(annotation):
            boxes.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    found = {}
    for image_id, of_image in boxes.items():
        corners = xywh_to_xyxy(np.array(of_image, np.float64)).astype(np.float32)
        found[image_id] = Detections(corners, np.ones(len(corners), np.float32))
    return found


def predict(
    estimator: Estimator,
    truth: GroundTruth,
    boxes: Mapping[int, Detections] | Detector,
    *,
    rank_by: str = "box-keypoints",
    reestimate: bool = False,
) -> Predictions:
    """Poses of people in given boxes, or of those that a detector finds. rank_by: a key of RANKINGS.

    reestimate: see predict.Predictor; only with a detector.
    """
    return predict_all([estimator], truth, boxes, rank_by=rank_by, reestimate=reestimate)[0]


@dataclass(frozen=True)
class Found:
    """People of some images, for each estimator: ids of their images, entries of Poses.to_coco; repairs of images."""

    ids: list[list[int]]
    people: list[list[dict[str, Any]]]
    repairs: Repairs


def predict_all(
    estimators: Sequence[Estimator],
    truth: GroundTruth,
    boxes: Mapping[int, Detections] | Detector,
    *,
    rank_by: str = "box-keypoints",
    reestimate: bool = False,
) -> list[Predictions]:
    """Predictions of each estimator for the same people; each image is decoded and passed to the detector once.

    Images have the orientation of their annotations, see annotations.pixels.
    """
    wanted = images_with_boxes(truth, boxes)
    return collect([find_people(estimators, truth, boxes, wanted, rank_by, reestimate)], truth)


def images_with_boxes(truth: GroundTruth, boxes: Mapping[int, Detections] | Detector) -> list[int]:
    """Ids of the images in which people are searched, in the order of the ground truth."""
    return [i for i in truth.files if isinstance(boxes, Detector) or len(boxes.get(i, ()))]


def find_people(
    estimators: Sequence[Estimator],
    truth: GroundTruth,
    boxes: Mapping[int, Detections] | Detector,
    image_ids: Sequence[int],
    rank_by: str,
    reestimate: bool,
) -> Found:
    """The people of these images, see predict_all; they do not depend on other images."""
    if rank_by not in RANKINGS:
        raise UsageError(f"--rank-by {rank_by}: choose from {', '.join(RANKINGS)}")
    found = Found([[] for _ in estimators], [[] for _ in estimators], Repairs())
    boxes = memoised_detector(boxes) if isinstance(boxes, Detector) else boxes
    sources = [_people_of(boxes, estimator, reestimate) for estimator in estimators]
    for chunk, frames, names in read_ahead(truth, set(image_ids), found.repairs):
        for source, own_ids, of_estimator in zip(sources, found.ids, found.people, strict=True):
            for image_id, poses in zip(chunk, source(chunk, frames, names), strict=True):
                own_ids += [image_id] * len(poses)
                ranked = replace(poses, person_scores=RANKINGS[rank_by](poses.box_scores, poses.scores))
                of_estimator += ranked.to_coco(0.0)
    return found


def collect(pieces: Iterable[Found], truth: GroundTruth) -> list[Predictions]:
    """The predictions of each estimator from the people of consecutive images."""
    ids: list[list[int]] = []
    people: list[list[dict[str, Any]]] = []
    repairs = Repairs()
    for piece in pieces:
        ids, people = ids or [[] for _ in piece.ids], people or [[] for _ in piece.people]
        for place, (more_ids, more_people) in enumerate(zip(piece.ids, piece.people, strict=True)):
            ids[place] += more_ids
            people[place] += more_people
        repairs.remarks.extend(piece.repairs.remarks)
        for (thing, what), (count, where) in piece.repairs.found.items():
            repairs.add(thing, what, where, count)
    remarks = repairs.lines()
    return [_collect(own_ids, of_estimator, truth, remarks) for own_ids, of_estimator in zip(ids, people, strict=True)]


# Image ids, images and file names → poses.
_Source = Callable[[Sequence[int], Sequence[Frame], Sequence[str]], list[Poses]]


def _people_of(boxes: Mapping[int, Detections] | Detector, estimator: Estimator, reestimate: bool) -> _Source:
    if isinstance(boxes, Detector):
        predictor = Predictor(boxes, estimator, reestimate)
        return lambda image_ids, frames, names: predictor.predict(frames, names)
    return lambda image_ids, frames, names: estimator(frames, [boxes.get(i, Detections.empty()) for i in image_ids])


def _collect(
    ids: Sequence[int], people: Sequence[dict[str, Any]], truth: GroundTruth, remarks: tuple[str, ...]
) -> Predictions:
    count = len(truth.keypoint_set)
    category = {"category_id": truth.category_id}
    results = tuple(result_of(person, image_id) | category for image_id, person in zip(ids, people, strict=True))
    return Predictions(
        image_ids=np.array(ids, np.int64),
        keypoints=_array([r["keypoints"] for r in results], (count, 3))[..., :2],
        scores=_array([r["score"] for r in results], ()),
        keypoint_scores=_array([p["keypoint_scores"] for p in people], (count,)),
        std=_array([p["keypoint_std"] for p in people], (count, 2)),
        results=results,
        remarks=remarks,
    )


def memoised_detector(detector: Detector) -> Detector:
    """The same detector with the last results of `find` and `propose` memoised."""

    def last_of(find: Find) -> Find:
        last: deque[tuple[Sequence[Frame], list[Detections]]] = deque(maxlen=1)

        def found(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
            if not last or last[0][0] is not frames:
                last.append((frames, find(frames, names)))
            return last[0][1]

        return found

    propose = None if detector.propose is None else last_of(detector.propose)
    return replace(detector, find=last_of(detector.find), propose=propose)


def memoised(runner: Runner, size: int = 2) -> Runner:
    """The same runner with its last outputs memoised; two are those of the crops and of the flipped crops."""
    last: deque[tuple[PixelArray, Outputs]] = deque(maxlen=size)

    def run(crops: PixelArray) -> Outputs:
        for known, outputs in last:
            if np.array_equal(known, crops):
                return outputs
        outputs = runner(crops)
        last.append((crops, outputs))
        return outputs

    return replace(runner, run=run)


def _array(values: list[Any], shape: tuple[int, ...]) -> FloatArray:
    return np.array(values, np.float32).reshape(len(values), *shape)


def _box_only(box_scores: FloatArray, scores: FloatArray) -> FloatArray:
    return box_scores


def _all_keypoints(box_scores: FloatArray, scores: FloatArray) -> FloatArray:
    return np.asarray(box_scores * scores.mean(axis=-1), np.float32)


# Person score by which COCO ranks: box scores (N,) and keypoint scores (N, K) → (N,).
RANKINGS: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "box-keypoints": person_scores,  # as `posecli run`: box × mean of the keypoint scores above 0.2
    "box-all-keypoints": _all_keypoints,
    "box": _box_only,
}


def read_results(path: Path, truth: GroundTruth) -> Predictions:
    """Read a COCO results file. Raises DataError where it is invalid or does not fit the ground truth."""
    items = read_json(path)
    if not isinstance(items, list):
        raise DataError(f"{path}: not a COCO results file, which is a list")
    count = len(truth.keypoint_set)
    repairs = Repairs()
    items = _with_internal_ids(items, truth, path, repairs)
    try:
        checked = check_results(items, count, set(truth.files), truth.category_id)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    keypoints = _array([r["keypoints"] for r in checked], (count, 3))
    scored = [item.get("keypoint_scores") for item in items]
    complete = bool(scored) and all(_are_scores(scores, count) for scores in scored)
    return Predictions(
        image_ids=np.array([r["image_id"] for r in checked], np.int64),
        keypoints=keypoints[..., :2],
        scores=_array([r["score"] for r in checked], ()),
        keypoint_scores=_array(scored, (count,)) if complete else None,
        std=None,
        results=tuple(checked),
        remarks=repairs.lines(),
    )


def _are_scores(scores: Any, count: int) -> bool:
    return isinstance(scores, list) and len(scores) == count and all(number(score) is not None for score in scores)


def _with_internal_ids(items: Sequence[Any], truth: GroundTruth, path: Path, repairs: Repairs) -> list[Any]:
    """The results of the evaluated images and category, with the ground truth's internal ids.

    Raises DataError for images that the annotations do not have, and where all results are of another category.
    """
    images = truth.ids or map_ids([image["id"] for image in truth.dataset["images"]])
    categories = map_ids([truth.category_id if truth.own_category is None else truth.own_category])
    kept: list[Any] = []
    unknown: dict[str, int] = {}
    others: list[str] = []
    for place, item in enumerate(items, 1):
        if not isinstance(item, dict) or "image_id" not in item:
            raise DataError(f"{path}: result {place} has no image_id")
        own = item["image_id"]
        where = f"result {place} of image {shown(own)}"
        internal = images.find(own)
        if internal is None:
            internal = images.find_loosely(own)
            if internal is not None:
                what = "whose image_id is written in another way (text and number): matched all the same"
                repairs.add("result", what, f"{shown(own)} for {shown(images.own[internal])}")
        if internal is None:
            unknown[shown(own)] = place
            continue
        category = item.get("category_id")
        if category is not None and categories.find(category) is None and categories.find_loosely(category) is None:
            others.append(f"{where} is of category {shown(category)}")
        # Results of images that --limit leaves out are dropped.
        elif internal not in truth.left_out:
            kept.append({**item, "image_id": internal, "category_id": truth.category_id})
    known = next(iter(images.own.values()), None)
    if unknown:
        some = ", ".join(list(unknown)[:5])
        raise DataError(
            f"{path}: {len(unknown)} image ids of the results are not in the annotations: {some}; there they are like "
            f"{shown(known)}"
        )
    if others:
        mine = shown(next(iter(categories.own.values())))
        if len(others) == len(items):
            raise DataError(f"{path}: {others[0]}, the annotations are of {mine}")
        repairs.add(
            "result", f"of other categories than {mine}: left out", others[0].partition(" is of ")[0], len(others)
        )
    return kept


def restrict(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    """The predictions at these indices."""
    index = list(rows)
    scored, std = predictions.keypoint_scores, predictions.std
    return Predictions(
        predictions.image_ids[index],
        predictions.keypoints[index],
        predictions.scores[index],
        None if scored is None else scored[index],
        None if std is None else std[index],
        tuple(predictions.results[i] for i in index),
        predictions.remarks,
    )


def suppress(predictions: Predictions, sigmas: Sequence[float], threshold: float) -> Predictions:
    """OKS non-maximum suppression: of people of an image with an OKS above threshold, the best is kept.

    Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild", CVPR 2017, section 3.
    The area is that of the better person's bounding box of keypoints.
    """
    kept: list[int] = []
    for image_id in np.unique(predictions.image_ids):
        rows = np.flatnonzero(predictions.image_ids == image_id)
        rows = rows[np.argsort(-predictions.scores[rows], kind="stable")]
        chosen: list[int] = []
        for row in rows:
            points = predictions.keypoints[row]
            if chosen:
                better = predictions.keypoints[chosen]
                areas = np.prod(better.max(axis=1) - better.min(axis=1), axis=-1)
                alike = oks(points, better, np.ones(better.shape[:2]), areas, sigmas)
                if alike.max() > threshold:
                    continue
            chosen.append(int(row))
        kept += chosen
    return restrict(predictions, sorted(kept))


def read_ahead(
    truth: GroundTruth, wanted: set[int] | None, repairs: Repairs | None = None
) -> Iterator[tuple[list[int], list[Frame], list[str]]]:
    """Image ids, frames and file names of all or of the wanted images, in chunks.

    The next chunk is decoded while the caller processes this one. repairs: receives remarks on the images. Raises
    DataError for an unreadable image.
    """
    files = [(image_id, path) for image_id, path in truth.files.items() if wanted is None or image_id in wanted]
    chunks = [files[first : first + CHUNK] for first in range(0, len(files), CHUNK)]
    sizes = truth.sizes
    repairs = repairs or Repairs()

    def read(chunk: list[tuple[int, Path]]) -> tuple[list[int], list[Frame], list[str]]:
        frames = []
        for image_id, path in chunk:
            try:
                pixels, remark = read_pixels(path, sizes.get(image_id))
            except MediaError as error:
                raise DataError(f"unreadable image: {error}; --allow-missing leaves such images out") from error
            add_remark(repairs, remark, path)
            frames.append(Frame(pixels))
        return [image_id for image_id, _ in chunk], frames, [str(path) for _, path in chunk]

    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(read, chunk) for chunk in chunks[:2])
        for following in [*chunks[2:], None, None][: len(chunks)]:
            result = pending.popleft().result()
            if following is not None:
                pending.append(pool.submit(read, following))
            yield result
