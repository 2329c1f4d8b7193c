"""The pictures of a run's inputs, frame by frame, from the sources that the run read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from posecli.corrections.sources import changed, check_size, page_of, run_content
from posecli.corrections.state import FrameState
from posecli.errors import MediaError
from posecli.media.inputs import content_key
from posecli.media.random_access import RandomAccess
from posecli.results.records import read_summary, record_path
from posecli.text import printed
from posecli.types import PixelArray


def check_unchanged(out: Path, name: str, source: Path | str) -> str:
    """The hash of a source. Raises MediaError where it is not what the run read, or cannot be read."""
    try:
        content = content_key(source)
    except OSError as error:
        raise MediaError(f"{printed(str(source))}: {error.strerror}") from error
    if content != run_content(out, name):
        raise changed(source)
    return content


def source_frames(
    out: Path, name: str, kind: str, source: Path | str, states: Sequence[FrameState]
) -> Iterator[PixelArray]:
    """The pixels (height, width, 3) RGB of these frames of an input, in their order. kind: "photo" or "video".

    Raises MediaError where one cannot be decoded, or has another size than in the run.
    """
    if kind == "photo":
        for state in states:
            pixels = page_of(source, state.source_index)
            check_size(name, state, pixels)
            yield pixels
        return
    summary = read_summary(record_path(out, name))
    with RandomAccess(source, damaged=summary is None or summary.lost_frames > 0) as clip:
        for state in states:
            pixels = clip.frame(state.source_index, state.time_s).pixels
            check_size(name, state, pixels)
            yield pixels
