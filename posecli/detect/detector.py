"""What a detector is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posecli.types import Detections, Frame

# Frames and, for each, its input's name and path as text; boxes:FILE looks people up by them.
Find = Callable[[Sequence[Frame], Sequence[str]], list[Detections]]


@dataclass(frozen=True)
class DetectorOptions:
    """What a detector is built with.

    argument: what stood behind the colon of its name. threshold: lowest score, None for the detector's own.
    """

    argument: str = ""
    device: str = "auto"
    runtime: str = "auto"
    threshold: float | None = None
    weights: Path | None = None
    max_people: int = 100


@dataclass(frozen=True)
class Detector:
    """A detector ready to run, and what run.json says of it.

    find: people, whose scores reach the threshold. propose: boxes down to a lower score, proposals of which a pose
    model's person score can tell the people (pose.verification); None where the detector has none beside its people.
    verified: score that a proposal must reach after verification. options: what it was built with. by_name: whether
    people are found by the name of the input, not in its pixels.
    """

    find: Find
    name: str
    threshold: float
    runtime: str
    device: str
    weights_sha256: str | None = None
    options: DetectorOptions = field(default_factory=DetectorOptions)
    propose: Find | None = None
    verified: float = 0.0
    by_name: bool = False

    def __call__(self, frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        """People of each frame, by descending score. names: the input each frame is of."""
        return self.find(frames, names)
