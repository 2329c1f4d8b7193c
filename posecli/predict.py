"""Images to poses: the one place where a detector and a pose model are put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posecli.detect.detector import Detector, load_detector
from posecli.keypoints import KeypointSet
from posecli.pose.estimator import Estimator, load_estimator
from posecli.pose.verification import verify
from posecli.types import Detections, Frame, Poses


@dataclass(frozen=True)
class Predictor:
    """A detector and a pose model ready to run.

    Where the detector makes proposals and the pose model has a person score, the proposals are verified, see
    pose.verification; the people of other detectors are taken as they are. reestimate: poses are estimated again from
    refined boxes that differ much from the proposal's.
    """

    detector: Detector
    estimator: Estimator
    reestimate: bool = False

    @property
    def keypoints(self) -> KeypointSet:
        """The keypoints of the poses."""
        return self.estimator.config.keypoints

    def predict(self, frames: Sequence[Frame], names: Sequence[str]) -> list[Poses]:
        """People of each frame with their poses, best first. All frames share batches.

        names: the input that each frame is of. Raises PosecliError of the detector or the pose model.
        """
        propose = self.detector.propose
        if propose is None or not self.estimator.config.person_score:
            return self.estimator(frames, self.detector(frames, names))
        proposals, threshold = propose(frames, names), self.detector.threshold
        return verify(self.estimator, frames, proposals, threshold, reestimate=self.reestimate)

    def estimate(self, frames: Sequence[Frame], boxes: Sequence[Detections]) -> list[Poses]:
        """Poses of the people in given boxes, which are not verified: true boxes, boxes propagated by a track."""
        return self.estimator(frames, boxes)


def load_predictor(
    weights: str = "pose",
    *,
    detector: str = "person",
    device: str = "auto",
    runtime: str = "auto",
    decoder: str = "auto",
    flip: bool = False,
    detector_threshold: float | None = None,
    detector_weights: Path | None = None,
    max_people: int = 100,
    reestimate: bool = False,
) -> Predictor:
    """Models by name or file, ready to run.

    weights: of the pose model, an embedded name or a file. detector: a name of detect.DETECTORS ("whole": one person an
    image), or boxes:FILE. device: auto, cpu, cuda or cuda:N. runtime: auto, torch or openvino; torchvision's detectors
    always run in torch. decoder: auto, argmax, dark, oks or parabola. flip: average with the mirror image.
    detector_threshold: lowest score of a person, None for the detector's own. reestimate: see Predictor.

    Raises UsageError (an unknown name), MachineError (no such weights or device) or DataError (a broken file).
    """
    estimator = load_estimator(weights, device=device, runtime=runtime, decoder=decoder, flip=flip)
    found = load_detector(
        detector,
        device=device,
        runtime=runtime if detector == "person" else "auto",
        threshold=detector_threshold,
        weights=detector_weights,
        max_people=max_people,
    )
    return Predictor(found, estimator, reestimate)
