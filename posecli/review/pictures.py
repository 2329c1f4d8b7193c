"""The pictures of a run's inputs as JPEG: any frame of a clip, any page of a photo."""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2

from posecli.corrections.sources import changed, check_size, find_source, is_unchanged, page_of
from posecli.corrections.state import FrameState
from posecli.errors import MediaError
from posecli.media.images import DEFAULT_MAX_PIXELS
from posecli.media.random_access import RandomAccess
from posecli.media.scaling import scaled
from posecli.results.output_list import read_output_list
from posecli.results.records import read_summary, record_path
from posecli.text import printed
from posecli.types import PixelArray

LOG = logging.getLogger(__name__)

# Clips that are open at the same time, bytes of decoded frames of each, and bytes of all JPEGs that are kept.
_CLIPS, _CLIP_BYTES, _JPEG_BYTES = 2, 192 << 20, 64 << 20
_QUALITY = 90
# What a file looked like: changed where this changes. Size and time of its last change.
_Look = tuple[int, int]


@dataclass(frozen=True)
class _Open:
    """A clip that is open, and how its file looked then."""

    access: RandomAccess
    look: _Look | None


class Pictures:
    """The pictures of the inputs of an output folder. Its methods may be called from any thread.

    Only the sources that the run noted are read. A source's content is compared with the record's hash, that of a clip
    in a thread while its first frames are shown already.
    """

    def __init__(self, out: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self._out, self._max_pixels = out, max_pixels
        self._sources = read_output_list(out).sources
        self._lock = threading.Lock()
        self._clips: OrderedDict[str, _Open] = OrderedDict()
        self._jpegs = _Kept(_JPEG_BYTES)
        # Name → how its file looked when its content was compared, and whether it was that of the run.
        self._compared: dict[str, tuple[_Look | None, bool]] = {}

    def close(self) -> None:
        """Close all clips."""
        with self._lock:
            clips, self._clips = [*self._clips.values()], OrderedDict()
        for clip in clips:
            clip.access.close()

    def jpeg(self, name: str, kind: str, state: FrameState, width: int | None = None) -> bytes:
        """The frame as JPEG, at most so wide. kind: of the input, "photo" or "video".

        Raises MediaError, one line, where the source is gone, was changed or cannot be decoded.
        """
        source = find_source(self._sources, name)
        look = _look(source)
        self._refuse_changed(name, source, look)
        key = (name, state.source_index, min(width or state.width, state.width), look)
        found = self._jpegs.get(key)
        if found is None:
            if kind == "photo":
                pixels = page_of(source, state.source_index, self._max_pixels)
            else:
                pixels = self._frame(name, source, look, state)
            check_size(name, state, pixels)
            found = _encoded(pixels, width)
            self._jpegs.put(key, found)
        return found

    def _refuse_changed(self, name: str, source: Path | str, look: _Look | None) -> None:
        """Compare the content with that of the run, once as long as the file looks the same."""
        known = self._compared.get(name)
        if known is None or known[0] != look:
            self._compared[name] = known = (look, True)
            if isinstance(source, Path) and look is not None and look[0] <= _JPEG_BYTES:
                self._compare(name, source, look)
                known = self._compared[name]
            else:
                threading.Thread(target=self._compare, args=(name, source, look), daemon=True).start()
        if not known[1]:
            raise changed(source)

    def _compare(self, name: str, source: Path | str, look: _Look | None) -> None:
        try:
            same = is_unchanged(self._out, name, source)
        except OSError:
            return  # reading it says so
        self._compared[name] = (look, same)
        if not same:
            LOG.warning("%s: was changed since the run, its pictures are not shown", printed(str(source)))

    def _frame(self, name: str, source: Path | str, look: _Look | None, state: FrameState) -> PixelArray:
        while True:
            clip = self._clip(name, source, look)
            try:
                return clip.frame(state.source_index, state.time_s).pixels
            except MediaError:
                if not clip.closed:  # else another request closed it for a third clip
                    raise

    def _clip(self, name: str, source: Path | str, look: _Look | None) -> RandomAccess:
        with self._lock:
            found = self._clips.get(name)
            if found is not None and (found.look != look or found.access.closed):
                del self._clips[name]
                found.access.close()
                found = None
            if found is None:
                summary = read_summary(record_path(self._out, name))
                damaged = summary is None or summary.lost_frames > 0
                found = _Open(RandomAccess(source, cache_bytes=_CLIP_BYTES, damaged=damaged), look)
                self._clips[name] = found
            self._clips.move_to_end(name)
            dropped = [self._clips.popitem(last=False)[1] for _ in range(len(self._clips) - _CLIPS)]
        for clip in dropped:
            clip.access.close()
        return found.access


class _Kept:
    """The JPEGs used last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._lock = threading.Lock()
        self._items: OrderedDict[object, bytes] = OrderedDict()

    def get(self, key: object) -> bytes | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: object, value: bytes) -> None:
        with self._lock:
            self._bytes += len(value) - len(self._items.pop(key, b""))
            self._items[key] = value
            while self._bytes > self._limit and len(self._items) > 1:
                self._bytes -= len(self._items.popitem(last=False)[1])


def _look(source: Path | str) -> _Look | None:
    """How the file looks; None for numbered images."""
    if not isinstance(source, Path):
        return None
    try:
        found = source.stat()
    except OSError as error:
        raise MediaError(f"{printed(source)}: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns


def _encoded(pixels: PixelArray, width: int | None) -> bytes:
    if width is not None and width < pixels.shape[1]:
        pixels = scaled(pixels, width, max(1, round(pixels.shape[0] * width / pixels.shape[1])))
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise MediaError("the picture cannot be encoded as JPEG")
    return encoded.tobytes()
