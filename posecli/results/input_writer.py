"""Writes the outputs of one input: annotated media, record, thumbnail."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posecli.draw.annotate import Annotator
from posecli.draw.style import DrawStyle
from posecli.keypoints import KeypointSet
from posecli.media.encoders import EncodeOptions
from posecli.media.exif import Metadata, metadata_of
from posecli.media.pages import append_page
from posecli.media.video import VideoReader
from posecli.media.write_images import write_image
from posecli.media.write_video import VideoWriter
from posecli.results.gallery import thumbnail_path, write_thumbnail
from posecli.results.records import RecordWriter, Summary
from posecli.stages import stage
from posecli.types import Frame, PixelArray, Poses


class InputWriter:
    """Writes the frames of one input in order; `finish` completes its files, `abort` deletes them.

    out: output folder. output: path of the annotated file relative to it. record, header: see results.records.
    source: the open video, None for a photo. encoding: None where no annotated media are written. on_frame: called
    with each annotated image (height, width, 3) uint8 RGB. photo: the photo's file, whose metadata are copied.
    """

    def __init__(
        self,
        out: Path,
        output: str,
        record: Path,
        header: Mapping[str, Any],
        keypoint_set: KeypointSet,
        source: VideoReader | None,
        *,
        style: DrawStyle,
        encoding: EncodeOptions | None,
        on_frame: Callable[[PixelArray], None] | None = None,
        photo: Path | None = None,
    ) -> None:
        self._out, self._output, self._source, self._photo = out, output, source, photo
        self._style, self._keypoint_set, self._media = style, keypoint_set, encoding is not None
        self._on_frame = on_frame
        self._thumbnail = thumbnail_path(out, record)
        self._most_people = -1
        self._pages = self._undrawn = 0
        self._size: tuple[int, int] | None = None
        self._stack = contextlib.ExitStack()
        self._annotator = Annotator(style, keypoint_set)
        header = {**header, "keypoints": list(keypoint_set.names)}
        self._record = self._stack.enter_context(RecordWriter(record, header, style.kpt_thr))
        self._video: VideoWriter | None = None
        if encoding is not None and source is not None:
            try:
                size = style.size(source.width, source.height)
                self._video = VideoWriter(out / output, source, encoding, size=size)
            except BaseException:
                self._stack.close()
                raise
            self._stack.callback(self._video.abort)

    def write(self, frame: Frame, poses: Poses) -> None:
        """Draw, encode and record a frame."""
        with stage("JSON"):
            self._record.write(frame, poses)
        if self._source is None:  # the pages of a photo are independent
            self._annotator = Annotator(self._style, self._keypoint_set)
        self._annotator.update(frame, poses)
        self._size = self._size or (frame.width, frame.height)
        better = len(poses) > self._most_people
        if not (self._media or better or self._on_frame is not None):
            return
        with stage("drawing"):
            drawn = self._annotator.draw(frame, poses, last=True)
        if self._on_frame is not None:
            self._on_frame(drawn)
        if better:
            with stage("drawing", 0):
                write_thumbnail(self._thumbnail, drawn)
            self._most_people = len(poses)
        if self._video is not None and frame.time is not None:
            with stage("encoding"):
                self._video.write(drawn, frame.time)
        elif self._media:
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
        path = self._out / self._output
        self._pages += 1
        if self._pages == 1:
            metadata = self._metadata()
            if metadata == Metadata():
                write_image(path, drawn)
            else:
                write_image(path, drawn, metadata=metadata)
        elif path.suffix.lower() in (".tif", ".tiff"):
            append_page(path, drawn)
        else:
            self._undrawn += 1

    def finish(
        self, *, seconds: float, lost: Mapping[str, int], warnings: Sequence[str] = (), damage: str | None = None
    ) -> Summary:
        """Complete the files. The record is written last: it marks the input as finished.

        damage: the damage of a photo, whose status is then partial.
        """
        if self._video is not None:
            with stage("encoding", 0):
                self._video.close()
            warnings = [*warnings, *self._video.warnings]
        lost_frames = sum(lost.values())
        warnings = [damage, *warnings] if damage is not None else warnings
        if self._undrawn:
            warnings = [*warnings, f"{self._undrawn} more pages are not drawn: the file's suffix is not .tif"]
        summary = Summary(
            status="partial" if lost_frames or damage is not None else "done",
            frames=self._record.frames,
            people=self._record.people,
            lost_frames=lost_frames,
            lost=dict(lost),
            seconds=round(seconds, 3),
            outputs=(self._output,) if self._media else (),
            warnings=tuple(warnings),
            width=self._size[0] if self._size else 0,
            height=self._size[1] if self._size else 0,
            frame_rate=self._frame_rate(),
            tracks=self._record.tracks,
        )
        self._record.finish(summary)
        self._video = None
        self._stack.pop_all()
        return summary

    def _frame_rate(self) -> float | None:
        rate = self._source.frame_rate if self._source is not None else None
        return round(float(rate), 3) if rate else None

    def abort(self) -> None:
        """Delete the files of this input."""
        self._stack.close()
        with contextlib.suppress(OSError):  # such as a folder of that name
            self._thumbnail.unlink(missing_ok=True)
            if self._media and self._source is None:
                (self._out / self._output).unlink(missing_ok=True)
