"""Images to poses: Predictor, the only place that pairs a detector with a pose model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from posecli.detect import Detector, load_detector
from posecli.errors import UsageError
from posecli.keypoints import KeypointSet
from posecli.pose.estimator import Estimator, load_estimator
from posecli.pose.runner import Runner
from posecli.pose.verification import verify, with_expected
from posecli.types import Detections, Expected, Frame, PixelArray, Poses, check_pixels

# Frames of a list that are predicted together.
_CHUNK = 8


@dataclass(frozen=True)
class Predictor:
    """A detector and a pose model ready to run. Calling it maps images to poses.

    Where the detector makes proposals and the pose model has a person score, the proposals are verified, see
    pose.verification; the people of other detectors are not changed. reestimate: poses are estimated again from refined
    boxes that differ much from the proposal's.
    """

    detector: Detector
    estimator: Estimator
    reestimate: bool = False

    @property
    def keypoints(self) -> KeypointSet:
        """The keypoints of the poses."""
        return self.estimator.config.keypoints

    @overload
    def __call__(self, images: PixelArray | Frame, *, names: str | None = None) -> Poses: ...

    @overload
    def __call__(self, images: Sequence[PixelArray | Frame], *, names: Sequence[str] | None = None) -> list[Poses]: ...

    def __call__(
        self, images: PixelArray | Frame | Sequence[PixelArray | Frame], *, names: str | Sequence[str] | None = None
    ) -> Poses | list[Poses]:
        """People of an image with their poses, best first; of a list of images, one Poses each.

        images: RGB arrays (height, width, 3) of uint8, upright, or Frames; their sizes may differ. names: file names of
        the images; needed only by boxes:FILE, which finds people by them.
        Raises UsageError for anything else, with what was expected.
        """
        if not isinstance(images, (list, tuple)):
            if names is not None and not isinstance(names, str):
                raise UsageError("one image has one name: expected a text")
            return self([as_frame(images)], names=None if names is None else [names])[0]
        frames = [as_frame(image, f"image {i}: ") for i, image in enumerate(images)]
        if names is None and self.detector.by_name:
            raise UsageError(f"{self.detector.name} finds people by the names of the images: give names=")
        if isinstance(names, str):
            raise UsageError(f"expected a list of {len(frames)} names, one an image, not a text")
        texts = [""] * len(frames) if names is None else list(names)
        if len(texts) != len(frames):
            raise UsageError(f"{len(frames)} images, but {len(texts)} names: expected one each")
        chunks = range(0, len(frames), _CHUNK)
        return [poses for i in chunks for poses in self.predict(frames[i : i + _CHUNK], texts[i : i + _CHUNK])]

    def predict(
        self, frames: Sequence[Frame], names: Sequence[str], expected: Sequence[Expected] | None = None
    ) -> list[Poses]:
        """People of each frame with their poses, best first. All frames share batches.

        names: of each frame's input. expected: of each frame of a video; the boxes are verified with the proposals, as
        the weakest ones. Close decisions get a flip test in frames of a video that look for new people; in others,
        neighbouring frames make them steadier. Where nothing is verified it is not used.
        Raises PosecliError of the detector or the pose model.
        """
        propose = self.detector.propose
        if propose is None or not self.estimator.config.person_score:
            return self.estimator(frames, self.detector(frames, names))
        proposals, threshold = propose(frames, names), self.detector.verified
        if expected is not None:
            pairs = zip(proposals, expected, strict=True)
            proposals = [with_expected(found, people, self.detector.proposal) for found, people in pairs]
        flip_tests = None if expected is None else [people.new_people for people in expected]
        return verify(self.estimator, frames, proposals, threshold, reestimate=self.reestimate, flip_tests=flip_tests)

    def estimate(self, frames: Sequence[Frame], boxes: Sequence[Detections]) -> list[Poses]:
        """Poses of the people in given boxes, which are not verified: true boxes, boxes propagated by a track."""
        return self.estimator(frames, boxes)


def as_frame(image: Any, where: str = "") -> Frame:
    """An RGB array (height, width, 3) of uint8, or a Frame, as a Frame.

    where: prefix of the message. Raises UsageError for another type, dtype or layout, with what was expected.
    """
    if isinstance(image, Frame):
        return image
    check_pixels(image, f"{where}expected an RGB array (height, width, 3) of uint8, or a Frame, not")
    return Frame(np.ascontiguousarray(image))


def load_predictor(
    weights: str | Path = "pose",
    *,
    detector: str = "person",
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    decoder: str = "auto",
    flip: bool = False,
    detector_threshold: float | None = None,
    detector_weights: str | Path | None = None,
    max_people: int = 100,
    reestimate: bool = False,
    detector_runtime: str | None = None,
    runner: Runner | None = None,
) -> Predictor:
    """Models by name or file, ready to run.

    weights: of the pose model, an embedded name or a file. detector: a name of detect.DETECTORS ("whole": one person an
    image), or boxes:FILE. device: auto, cpu, cuda or cuda:N. runtime: auto, torch or openvino; torchvision's detectors
    always run in torch. precision: auto, fp32 or bf16; auto is float16 on a GPU, and on a CPU bfloat16 where it is
    native and the network's accuracy does not suffer. decoder: auto, argmax, dark, oks or parabola. flip: average with
    the mirror image. detector_threshold: lowest score of a person, None for the detector's own. reestimate: see
    Predictor. detector_runtime: of the embedded detector, None for runtime. runner: the pose
    network of these arguments, where it is loaded already.

    Raises UsageError (an unknown name), MachineError (no such weights or device) or DataError (a broken file).
    """
    estimator = load_estimator(
        str(weights), device=device, runtime=runtime, precision=precision, decoder=decoder, flip=flip, runner=runner
    )
    found = load_detector(
        detector,
        device=device,
        runtime=(detector_runtime or runtime) if detector == "person" else "auto",
        precision=precision,
        threshold=detector_threshold,
        weights=None if detector_weights is None else Path(detector_weights),
        max_people=max_people,
    )
    return Predictor(found, estimator, reestimate)
