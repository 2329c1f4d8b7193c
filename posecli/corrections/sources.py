"""The sources of a run's inputs: whether they are as the run read them, and their pages."""

from collections.abc import Mapping
from pathlib import Path

from posecli.corrections.state import FrameState
from posecli.errors import MediaError
from posecli.media.images import DEFAULT_MAX_PIXELS
from posecli.media.inputs import content_key
from posecli.media.photos import PhotoReader
from posecli.media.sources import source_of
from posecli.results.records import read_header, record_path
from posecli.text import printed
from posecli.types import PixelArray


def find_source(sources: Mapping[str, str], name: str) -> Path | str:
    """The source of an input: a file's Path, or the pattern of numbered images. sources: of the output list.

    Raises MediaError where it is gone, or was no file. That numbered images are gone is said when they are opened.
    """
    given = sources.get(name)
    if given is None:
        raise MediaError(f"{printed(name)}: the run did not note where its source is")
    if "://" in given:
        raise MediaError(f"{printed(given)}: a source at an address is not fetched again")
    if source_of(given).kind == "images":
        return given
    path = Path(given)
    try:
        there = path.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        raise MediaError(f"{printed(given)}: the source is gone, or no file: put it back to see its pictures")
    return path


def is_unchanged(out: Path, name: str, source: Path | str) -> bool:
    """Whether the source's content is that of the run. It is read as a whole. Raises OSError."""
    return content_key(source) == run_content(out, name)


def run_content(out: Path, name: str) -> str | None:
    """The hash of the content that the run read; None where its record is gone."""
    header = read_header(record_path(out, name)) or {}
    content: str | None = header.get("content")
    return content


def changed(source: Path | str) -> MediaError:
    """The error for a source that is not as the run read it."""
    return MediaError(f"{printed(str(source))}: was changed since the run: `posecli run` it again, or put it back")


def page_of(source: Path | str, index: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> PixelArray:
    """A page of a photo, (height, width, 3) RGB. Raises MediaError where it cannot be decoded."""
    for page in PhotoReader(Path(source), max_pixels=max_pixels):
        if page.index == index:
            return page.pixels
    raise MediaError(f"{printed(str(source))}: there is no page {index + 1} that can be decoded")


def check_size(name: str, state: FrameState, pixels: PixelArray) -> None:
    """Raise MediaError where the pixels (height, width, 3) have another size than the frame had in the run."""
    height, width = pixels.shape[:2]
    if (width, height) != (state.width, state.height):
        sizes = f"{width}x{height} instead of {state.width}x{state.height} pixels"
        raise MediaError(f"{printed(name)}: was changed since the run, frame {state.index} has {sizes}")
