"""The type of a detector, and the options that it is built with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posecli.types import Detections, Frame

# (frames, name of each one's input) → people of each frame; boxes:FILE finds people by the names.
Find = Callable[[Sequence[Frame], Sequence[str]], list[Detections]]


@dataclass(frozen=True)
class DetectorOptions:
    """Options of a detector.

    argument: the part of its name after the colon. threshold: lowest score, None for the detector's default. resident:
    whether letterbox and selection are done on the device of the embedded detector, None for on a GPU; a CPU's is for
    tests.
    """

    argument: str = ""
    device: str = "auto"
    runtime: str = "auto"
    precision: str = "fp32"
    threshold: float | None = None
    weights: Path | None = None
    max_people: int = 100
    resident: bool | None = None


@dataclass(frozen=True)
class Detector:
    """A detector ready to run, and its description for run.json.

    find: people whose scores reach the threshold. propose: proposals, boxes down to a lower score (proposal) that the
    person score of a pose model verifies (pose.verification); None where the detector makes none. verified: lowest
    score of a proposal after verification. options: those it was built with. by_name: whether people are found by the
    name of the input, not from its pixels. precision: of the network's arithmetic.
    """

    find: Find
    name: str
    threshold: float
    runtime: str
    device: str
    weights_sha256: str | None = None
    options: DetectorOptions = field(default_factory=DetectorOptions)
    propose: Find | None = None
    proposal: float = 0.0
    verified: float = 0.0
    by_name: bool = False
    precision: str = "float32"

    def __call__(self, frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        """People of each frame, by descending score. names: of each frame's input."""
        return self.find(frames, names)
