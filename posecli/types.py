"""The three data types: Frame, Detections and Poses, frozen dataclasses of arrays.

Each checks the types, dtypes and shapes of its arrays when it is built, in a few microseconds, and raises UsageError
with what was expected and what was given. Values are not looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.errors import DataError, MachineError, UsageError

FloatArray = NDArray[np.float32]
PixelArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]

_FLOAT32, _INT64, _BOOL, _UINT8 = (np.dtype(name) for name in ("float32", "int64", "bool", "uint8"))


@dataclass(frozen=True, eq=False)
class Frame:
    """One upright image: a photo, or a frame of a video.

    pixels: (height, width, 3) uint8 RGB, upright. Not to be written to.
    index: position among the frames decoded from its source, from 0.
    time: seconds since the start of the source's timeline; None for a photo.
    """

    pixels: PixelArray
    index: int = 0
    time: Fraction | None = None

    def __post_init__(self) -> None:
        check_pixels(self.pixels, "Frame.pixels: expected an array (height, width, 3) of uint8, not")
        if self.time is not None and not isinstance(self.time, Fraction):
            raise UsageError(f"Frame.time: expected a Fraction of seconds or None, not {type(self.time).__name__}")

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])


@dataclass(frozen=True, eq=False)
class Detections:
    """People found in one frame.

    boxes: (N, 4) float32, x1 y1 x2 y2 in source pixels, continuous corners as in COCO.
    scores: (N,) float32 in [0, 1], descending.
    """

    boxes: FloatArray
    scores: FloatArray

    def __post_init__(self) -> None:
        count, _ = _shape("Detections.boxes", self.boxes, "(N, 4)", 2)
        _check("Detections.boxes", self.boxes, _FLOAT32, "(N, 4)", (count, 4))
        _check("Detections.scores", self.scores, _FLOAT32, "(N,)", (count,))

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> "Detections":
        """No people."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Expected:
    """What earlier frames of a video say about the people in a frame for the detector.

    boxes: (N, 4) float32, where people are expected. new_people: whether people are looked for elsewhere as in a photo;
    False where that was done a moment ago.
    """

    boxes: FloatArray
    new_people: bool = True


@dataclass(frozen=True, eq=False)
class Poses:
    """People of one frame with their keypoints. N people, K keypoints.

    keypoints: (N, K, 2) float32, x y in source pixels, pixel centres at integers.
    std: (N, K, 2) float32, standard deviation of x and y in source pixels.
    scores: (N, K) float32 in [0, 1].
    boxes: (N, 4) float32, x1 y1 x2 y2 in source pixels.
    box_scores: (N,) float32 in [0, 1], the detector's; of verified proposals, rescored by the pose model.
    person_scores: (N,) float32 in [0, 1], box score × mean of keypoint scores above 0.2.
    track_ids: (N,) int64, or None without tracking.
    raw_keypoints: (N, K, 2) float32, before smoothing; None where `keypoints` are not smoothed.
    filled: (N,) bool, True for people without a detection in this frame, interpolated over a short gap. None where
    there are none.
    """

    keypoints: FloatArray
    std: FloatArray
    scores: FloatArray
    boxes: FloatArray
    box_scores: FloatArray
    person_scores: FloatArray
    track_ids: IntArray | None = None
    raw_keypoints: FloatArray | None = None
    filled: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        count, points, _ = _shape("Poses.keypoints", self.keypoints, "(N, K, 2)", 3)
        _check("Poses.keypoints", self.keypoints, _FLOAT32, "(N, K, 2)", (count, points, 2))
        _check("Poses.std", self.std, _FLOAT32, "(N, K, 2)", (count, points, 2))
        _check("Poses.scores", self.scores, _FLOAT32, "(N, K)", (count, points))
        _check("Poses.boxes", self.boxes, _FLOAT32, "(N, 4)", (count, 4))
        _check("Poses.box_scores", self.box_scores, _FLOAT32, "(N,)", (count,))
        _check("Poses.person_scores", self.person_scores, _FLOAT32, "(N,)", (count,))
        if self.track_ids is not None:
            _check("Poses.track_ids", self.track_ids, _INT64, "(N,)", (count,))
        if self.raw_keypoints is not None:
            _check("Poses.raw_keypoints", self.raw_keypoints, _FLOAT32, "(N, K, 2)", (count, points, 2))
        if self.filled is not None:
            _check("Poses.filled", self.filled, _BOOL, "(N,)", (count,))

    def __len__(self) -> int:
        return len(self.keypoints)

    def rows(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "Poses":
        """The people at these positions, or where the mask is true."""
        if which.dtype == bool and which.all():
            return self
        return replace(self, **{name: array[which] for name, array in vars(self).items() if array is not None})

    def scaled(self, x: float, y: float) -> "Poses":
        """The same people in an image that is scaled by the factors x and y."""
        if x == y == 1:
            return self
        factors = np.array([x, y], np.float32)
        raw = None if self.raw_keypoints is None else self.raw_keypoints * factors
        return replace(
            self,
            keypoints=self.keypoints * factors,
            std=self.std * factors,
            boxes=self.boxes * np.tile(factors, 2),
            raw_keypoints=raw,
        )

    @classmethod
    def empty(cls, keypoint_count: int) -> "Poses":
        """No people."""
        return cls(
            keypoints=np.zeros((0, keypoint_count, 2), np.float32),
            std=np.zeros((0, keypoint_count, 2), np.float32),
            scores=np.zeros((0, keypoint_count), np.float32),
            boxes=np.zeros((0, 4), np.float32),
            box_scores=np.zeros(0, np.float32),
            person_scores=np.zeros(0, np.float32),
        )

    def to_coco(self, keypoint_threshold: float = 0.3) -> list[dict[str, Any]]:
        """The people as COCO annotations without ids, as `posecli run` writes them into coco.json.

        Of each person bbox (x, y, width, height), its area, keypoints (x, y, v; v is 2 where the score reaches the
        threshold, else 1), num_keypoints, score (of the person), box_score, keypoint_scores, keypoint_std (σx, σy per
        keypoint). track_id is there after tracking; keypoints_raw, x y per keypoint, where keypoints are smoothed;
        filled for people without a detection in this frame, who have no keypoints_raw. Pixels are rounded to 0.01.
        """
        boxes = _rounded(np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1), 2)
        std, scores = _rounded(self.std, 2), _rounded(self.scores, 4)
        # By the score as it is written, so that a reader of the file comes to the same v.
        visibility = np.where(scores >= keypoint_threshold, 2.0, 1.0)[..., None]
        keypoints = _rounded(np.concatenate([self.keypoints, visibility], axis=-1), 2)
        person_scores, box_scores = _rounded(self.person_scores, 5), _rounded(self.box_scores, 5)
        people = []
        for i in range(len(self)):
            person: dict[str, Any] = {
                "bbox": boxes[i].tolist(),
                "area": round(float(boxes[i, 2] * boxes[i, 3]), 2),
                "keypoints": [v for x, y, seen in keypoints[i].tolist() for v in (x, y, int(seen))],
                "num_keypoints": int(keypoints.shape[1]),
                "score": float(person_scores[i]),
                "box_score": float(box_scores[i]),
                "keypoint_scores": scores[i].tolist(),
                "keypoint_std": std[i].tolist(),
            }
            if self.track_ids is not None:
                person["track_id"] = int(self.track_ids[i])
            filled = self.filled is not None and bool(self.filled[i])
            if filled:
                person["filled"] = True
            elif self.raw_keypoints is not None:
                person["keypoints_raw"] = _rounded(self.raw_keypoints[i], 2).ravel().tolist()
            people.append(person)
        return people

    @classmethod
    def from_coco(cls, annotations: Sequence[Mapping[str, Any]], keypoint_count: int = 17) -> "Poses":
        """People of COCO annotations: of one image, of to_coco, of a results file or of ground truth.

        Only keypoints are needed. Without bbox it is the box around the labelled keypoints; without scores those of
        keypoints are 1 where v > 0, else 0, and those of people and boxes 1; without keypoint_std it is 0.
        keypoint_count: K, by which also an empty list has a shape. Raises DataError where a person does not fit.
        """
        people = [_person(annotation, i, keypoint_count) for i, annotation in enumerate(annotations)]
        if not people:
            return cls.empty(keypoint_count)
        tracked = [person["track_ids"] is not None for person in people]
        if any(tracked) and not all(tracked):
            raise DataError(f"annotation {tracked.index(False)} has no track_id, others have one")
        raw = any(person["raw_keypoints"] is not None for person in people)
        for person in people:
            if raw and person["raw_keypoints"] is None:
                person["raw_keypoints"] = person["keypoints"]

        def stacked(name: str, dtype: Any = np.float32) -> Any:
            return np.array([person[name] for person in people], dtype)

        return cls(
            keypoints=stacked("keypoints"),
            std=stacked("std"),
            scores=stacked("scores"),
            boxes=stacked("boxes"),
            box_scores=stacked("box_scores"),
            person_scores=stacked("person_scores"),
            track_ids=stacked("track_ids", np.int64) if all(tracked) else None,
            raw_keypoints=stacked("raw_keypoints") if raw else None,
            filled=stacked("filled", bool) if any(person["filled"] for person in people) else None,
        )

    def to_supervision(self) -> Any:
        """The people as supervision.KeyPoints (the extra posecli[supervision]); data holds box, std and track_id.

        Raises MachineError where supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MachineError("supervision is not installed: pip install 'posecli[supervision]'") from error
        data: dict[str, Any] = {"box": self.boxes, "std": self.std}
        if self.track_ids is not None:
            data["track_id"] = self.track_ids
        return supervision.KeyPoints(
            xy=self.keypoints,
            class_id=np.zeros(len(self), int),
            keypoint_confidence=self.scores,
            detection_confidence=self.person_scores,
            data=data,
        )


def check_pixels(pixels: Any, expected: str) -> None:
    """Raise UsageError, which begins with expected, where this is no RGB image (height, width, 3) of uint8."""
    if isinstance(pixels, np.ndarray) and pixels.dtype == _UINT8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        if pixels.size:
            return
        raise UsageError(f"{expected} an empty one of shape {pixels.shape}")
    if not isinstance(pixels, np.ndarray):
        hint = "; posecli.read_image reads a file" if isinstance(pixels, (str, Path)) else ""
        raise UsageError(f"{expected} {type(pixels).__name__}{hint}")
    shape = f"an array of shape {pixels.shape}"
    if pixels.ndim == 4:
        raise UsageError(f"{expected} {shape}: give several images as a list")
    if pixels.ndim == 3 and pixels.shape[2] != 3 and pixels.shape[0] == 3:
        raise UsageError(f"{expected} {shape}: this is channels first, use image.transpose(1, 2, 0)")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        raise UsageError(f"{expected} {shape}: leave alpha out, image[:, :, :3]")
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1):
        raise UsageError(f"{expected} {shape}: grey is no RGB, use np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UsageError(f"{expected} {shape}")
    raise UsageError(f"{expected} {pixels.dtype}: scale it to 0 to 255, and use astype(np.uint8)")


def _shape(name: str, array: Any, axes: str, ndim: int) -> tuple[int, ...]:
    """The shape of an array. Raises UsageError where it is none, or has another number of axes."""
    if not isinstance(array, np.ndarray) or array.ndim != ndim:
        raise UsageError(f"{name}: expected {axes} of float32, not {_described(array)}")
    return tuple(array.shape)


def _check(name: str, array: Any, dtype: np.dtype[Any], axes: str, shape: tuple[int, ...]) -> None:
    """Raise UsageError where this is no array of that dtype and shape; axes: what its axes are called."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        raise UsageError(f"{name}: expected {axes} = {shape} of {dtype}, not {_described(array)}")


def _described(value: Any) -> str:
    return f"{value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _person(annotation: Mapping[str, Any], number: int, keypoint_count: int) -> dict[str, Any]:
    """The fields of Poses for one COCO annotation. Raises DataError."""

    def array(name: str, *shape: int) -> NDArray[np.float64] | None:
        if annotation.get(name) is None:
            return None
        try:
            values = np.array(annotation[name], np.float64)
        except (TypeError, ValueError):
            values = np.full(1, np.nan)
        if values.size != np.prod(shape, dtype=int) or not np.isfinite(values).all():
            size = " × ".join(map(str, shape)) or "1"
            raise DataError(f"annotation {number}: {name} must be {size} finite numbers")
        return values.reshape(shape)

    keypoints = array("keypoints", keypoint_count, 3)
    if keypoints is None:
        raise DataError(f"annotation {number} has no keypoints")
    points, labelled = keypoints[:, :2], keypoints[:, 2] > 0
    bbox, track_id = array("bbox", 4), annotation.get("track_id")
    if bbox is None:
        around = points[labelled] if labelled.any() else points
        box = np.concatenate([around.min(axis=0), around.max(axis=0)])
    else:
        box = np.concatenate([bbox[:2], bbox[:2] + bbox[2:]])
    scores, std = array("keypoint_scores", keypoint_count), array("keypoint_std", keypoint_count, 2)
    score, box_score = array("score"), array("box_score")
    score = np.array(1.0) if score is None else score
    return {
        "keypoints": points,
        "std": np.zeros((keypoint_count, 2)) if std is None else std,
        "scores": labelled.astype(np.float64) if scores is None else scores,
        "boxes": box,
        "box_scores": score if box_score is None else box_score,
        "person_scores": score,
        "track_ids": None if track_id is None else int(track_id),
        "raw_keypoints": array("keypoints_raw", keypoint_count, 2),
        "filled": bool(annotation.get("filled", False)),
    }


def _rounded(values: Any, digits: int) -> Any:
    """float64 rounded, so that JSON shows just these digits."""
    return np.round(np.asarray(values, np.float64), digits)
