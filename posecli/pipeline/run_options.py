"""The options that the output of a run depends on."""

from dataclasses import dataclass, field

from posecli.draw.style import DrawStyle
from posecli.errors import UsageError
from posecli.media.encoders import EncodeOptions
from posecli.media.images import DEFAULT_MAX_PIXELS
from posecli.media.span import Span
from posecli.tracking.choose import person_choice
from posecli.tracking.smoothing import SMOOTHERS, SmoothOptions

# Values of --smooth.
SMOOTHING = (*SMOOTHERS, "offline")
# Seconds, limit of --fill-gaps.
MOST_GAP = 5.0


@dataclass(frozen=True)
class TrackingOptions:
    """How people are tracked through videos. Field names are those of the command line's options.

    detect_every: the detector runs on every N-th frame, None where box propagation decides (--detect-every auto).
    track: assign ids and smooth. smooth: a name in SMOOTHING. fill_gaps: seconds, see gap. person: which people are
    kept, see tracking.choose.

    Raises UsageError for values that do not exist.
    """

    detect_every: int | None = 1
    track: bool = True
    smooth: str = "none"
    fill_gaps: float | None = None
    person: str = "all"

    def __post_init__(self) -> None:
        if self.smooth not in SMOOTHING:
            raise UsageError(f"--smooth {self.smooth}: choose from {', '.join(SMOOTHING)}")
        if self.detect_every is not None and self.detect_every < 1:
            raise UsageError(f"--detect-every {self.detect_every}: must be 1 or more, or auto")
        if self.fill_gaps is not None and not 0 <= self.fill_gaps <= MOST_GAP:
            raise UsageError(f"--fill-gaps {self.fill_gaps:g}: must be from 0 to {MOST_GAP:g} seconds")
        person_choice(self.person)
        if not self.track and self.person.startswith("id:"):
            raise UsageError(f"--no-track leaves no ids to choose for --person {self.person}")

    def gap(self, *, live: bool) -> float:
        """Longest gap of a track that is filled, in seconds; by default none of a live source, which would be late."""
        if self.fill_gaps is None:
            return 0.0 if live else SmoothOptions.max_gap
        return self.fill_gaps


@dataclass(frozen=True)
class RunOptions:
    """Everything but the models that the output of a run depends on, by subject.

    media: write annotated media. max_pixels: limit of the pixels of a photo. span: the part of each video that is read.
    tracking: how people are tracked. style: how annotated media look. encoding: how videos are encoded.

    Raises UsageError where options contradict each other.
    """

    media: bool = True
    max_pixels: int = DEFAULT_MAX_PIXELS
    span: Span = field(default_factory=Span)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    style: DrawStyle = field(default_factory=DrawStyle)
    encoding: EncodeOptions = field(default_factory=EncodeOptions)

    def __post_init__(self) -> None:
        if self.style.show_ids and not self.tracking.track:
            raise UsageError("--no-track leaves no ids to draw: leave --show-ids out")
