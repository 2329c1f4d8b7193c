"""Draws and encodes the annotated media of one input."""

import contextlib
from pathlib import Path

from posecli.draw.annotate import Annotator
from posecli.draw.style import DrawStyle
from posecli.keypoints import KeypointSet
from posecli.media.encoders import EncodeOptions
from posecli.media.exif import Metadata, metadata_of
from posecli.media.pages import append_page
from posecli.media.video import VideoReader
from posecli.media.write_images import write_image
from posecli.media.write_video import VideoWriter
from posecli.stages import stage
from posecli.types import Frame, PixelArray, Poses


class MediaWriter:
    """The frames of one input in order; call update and, where an image is wanted, draw and encode for each.

    path: of the annotated file. source: the open video, None for a photo. encoding: None where nothing is encoded.
    photo: the photo's file, whose metadata are copied. `finish` completes the file, `abort` deletes it.
    """

    def __init__(
        self,
        path: Path,
        source: VideoReader | None,
        keypoint_set: KeypointSet,
        *,
        style: DrawStyle,
        encoding: EncodeOptions | None,
        photo: Path | None = None,
    ) -> None:
        self._path, self._source, self._photo = path, source, photo
        self._style, self._keypoint_set = style, keypoint_set
        self.encodes = encoding is not None
        self._pages = self._undrawn = 0
        self._annotator = Annotator(style, keypoint_set)
        self._video: VideoWriter | None = None
        if encoding is not None and source is not None:
            size = style.size(source.width, source.height)
            self._video = VideoWriter(path, source, encoding, size=size)

    def update(self, frame: Frame, poses: Poses) -> None:
        """Update trails and faces with a frame."""
        if self._source is None:  # the pages of a photo are independent
            self._annotator = Annotator(self._style, self._keypoint_set)
        self._annotator.update(frame, poses)

    def draw(self, frame: Frame, poses: Poses) -> PixelArray:
        """The annotated image (height, width, 3) uint8 RGB of the frame last given to update, which may change."""
        with stage("drawing"):
            return self._annotator.draw(frame, poses, last=True)

    def encode(self, drawn: PixelArray, frame: Frame) -> None:
        """Append an annotated image; nothing without `encoding`."""
        if self._video is not None and frame.time is not None:
            with stage("encoding"):
                self._video.write(drawn, frame.time)
        elif self.encodes:
            with stage("encoding"):
                self._write_page(drawn)

    def _metadata(self) -> Metadata:
        """The metadata of the annotated photo, without the GPS position where faces are blurred."""
        if self._photo is None:
            return Metadata()
        try:
            return metadata_of(self._photo, place=not self._style.blur_faces)
        except OSError:  # deleted since it was read
            return Metadata()

    def _write_page(self, drawn: PixelArray) -> None:
        self._pages += 1
        if self._pages == 1:
            metadata = self._metadata()
            if metadata == Metadata():
                write_image(self._path, drawn)
            else:
                write_image(self._path, drawn, metadata=metadata)
        elif self._path.suffix.lower() in (".tif", ".tiff"):
            append_page(self._path, drawn)
        else:
            self._undrawn += 1

    def finish(self) -> list[str]:
        """Complete the file; warnings, one line each. Raises MediaError or OSError where that fails."""
        warnings: list[str] = []
        if self._video is not None:
            with stage("encoding", 0):
                self._video.close()
            warnings += self._video.warnings
            self._video = None
        if self._undrawn:
            warnings.append(f"{self._undrawn} more pages are not drawn: the file's suffix is not .tif")
        return warnings

    def abort(self) -> None:
        """Delete the incomplete video, or the photo."""
        if self._video is not None:
            self._video.abort()
            self._video = None
        elif self.encodes and self._source is None:
            with contextlib.suppress(OSError):  # such as a folder of that name
                self._path.unlink(missing_ok=True)
