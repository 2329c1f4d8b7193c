"""Where the frames of one input go: annotated media, record, thumbnail."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posecli.draw.annotate import Annotator, Look
from posecli.media.exif import Metadata, metadata_of
from posecli.media.pages import append_page
from posecli.media.video import VideoReader
from posecli.media.write_images import write_image
from posecli.media.write_video import VideoWriter
from posecli.results.gallery import thumbnail_path, write_thumbnail
from posecli.results.records import RecordWriter, Summary
from posecli.types import Frame, PixelArray, Poses

__all__ = ["InputWriter", "Look"]


class InputWriter:
    """Takes the frames of one input in order; finish makes its files appear, abort leaves none.

    source is the open video, or None for a photo. output is the annotated file's place under out. shown sees each
    annotated picture, where somebody looks on. photo: the photo's file, whose metadata its annotated copy gets.
    """

    def __init__(
        self,
        out: Path,
        output: str,
        record: Path,
        header: Mapping[str, Any],
        look: Look,
        source: VideoReader | None,
        shown: Callable[[PixelArray], None] | None = None,
        photo: Path | None = None,
    ) -> None:
        self._photo = photo
        self._shown = shown
        self._out, self._output, self._look, self._source = out, output, look, source
        self._thumbnail = thumbnail_path(out, record)
        self._most_people = -1
        self._pages = self._undrawn = 0
        self._size: tuple[int, int] | None = None
        self._stack = contextlib.ExitStack()
        self._annotator = Annotator(look)
        header = {**header, "keypoints": list(look.keypoint_set.names)}
        self._record = self._stack.enter_context(RecordWriter(record, header, look.keypoint_threshold))
        self._video: VideoWriter | None = None
        if look.media and source is not None:
            try:
                self._video = self._open_video(look, source)
            except BaseException:
                self._stack.close()
                raise
            self._stack.callback(self._video.abort)

    def _open_video(self, look: Look, source: VideoReader) -> VideoWriter:
        size = look.size(source.width, source.height)
        options: dict[str, Any] = {"crf": look.crf, "preset": look.preset, "audio": look.audio}
        if size != (source.width, source.height):
            options["size"] = size
        if look.codec != "h264":
            options["codec"] = look.codec
        return VideoWriter(self._out / self._output, source, **options)

    def write(self, frame: Frame, poses: Poses) -> None:
        """Draw, encode and record a frame."""
        self._record.write(frame, poses)
        if self._source is None:  # the pages of a photo have nothing to do with each other
            self._annotator = Annotator(self._look)
        self._annotator.follow(frame, poses)
        self._size = self._size or (frame.width, frame.height)
        better = len(poses) > self._most_people
        if not (self._look.media or better or self._shown is not None):
            return
        # A video's decoder may keep the frame, to make the next one of it.
        drawn = self._annotator.draw(frame, poses, last=self._source is None)
        if self._shown is not None:
            self._shown(drawn)
        if better:
            write_thumbnail(self._thumbnail, drawn)
            self._most_people = len(poses)
        if self._video is not None and frame.time is not None:
            self._video.write(drawn, frame.time)
        elif self._look.media:
            self._write_page(drawn)

    def _metadata(self) -> Metadata:
        """What the annotated photo takes over. Where faces are hidden, the place is too."""
        if self._photo is None:
            return Metadata()
        try:
            return metadata_of(self._photo, place=not self._look.blur_faces)
        except OSError:  # gone since it was read
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
        """Complete the files. The record is last: it says that all the others stand.

        damage: what is wrong with the pictures that were written, which makes the input a partial one.
        """
        if self._video is not None:
            self._video.close()
            warnings = [*warnings, *self._video.warnings]
        lost_frames = sum(lost.values())
        warnings = [damage, *warnings] if damage is not None else warnings
        if self._undrawn:
            warnings = [*warnings, f"{self._undrawn} more pages are not drawn: their file is no .tif by its name"]
        summary = Summary(
            status="partial" if lost_frames or damage is not None else "done",
            frames=self._record.frames,
            people=self._record.people,
            lost_frames=lost_frames,
            lost=dict(lost),
            seconds=round(seconds, 3),
            outputs=(self._output,) if self._look.media else (),
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
        """Leave nothing of this input behind."""
        self._stack.close()
        with contextlib.suppress(OSError):  # a folder in its place, say, which is why it failed
            self._thumbnail.unlink(missing_ok=True)
            if self._look.media and self._source is None:
                (self._out / self._output).unlink(missing_ok=True)
