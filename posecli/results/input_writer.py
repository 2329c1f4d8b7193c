"""Writes the outputs of one input: annotated media, record, thumbnail."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posecli.draw.style import DrawStyle
from posecli.keypoints import KeypointSet
from posecli.media.encoders import EncodeOptions
from posecli.media.video import VideoReader
from posecli.results.gallery import thumbnail_path, write_thumbnail
from posecli.results.media_writer import MediaWriter
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
        self._output, self._source = output, source
        self._on_frame = on_frame
        self._thumbnail = thumbnail_path(out, record)
        self._most_people = -1
        self._size: tuple[int, int] | None = None
        self._stack = contextlib.ExitStack()
        header = {**header, "keypoints": list(keypoint_set.names)}
        self._record = self._stack.enter_context(RecordWriter(record, header, style.kpt_thr))
        try:
            self._media = MediaWriter(out / output, source, keypoint_set, style=style, encoding=encoding, photo=photo)
        except BaseException:
            self._stack.close()
            raise

    def write(self, frame: Frame, poses: Poses) -> None:
        """Draw, encode and record a frame."""
        with stage("JSON"):
            self._record.write(frame, poses)
        self._media.update(frame, poses)
        self._size = self._size or (frame.width, frame.height)
        better = len(poses) > self._most_people
        if not (self._media.encodes or better or self._on_frame is not None):
            return
        drawn = self._media.draw(frame, poses)
        if self._on_frame is not None:
            self._on_frame(drawn)
        if better:
            with stage("drawing", 0):
                write_thumbnail(self._thumbnail, drawn)
            self._most_people = len(poses)
        self._media.encode(drawn, frame)

    def finish(
        self, *, seconds: float, lost: Mapping[str, int], warnings: Sequence[str] = (), damage: str | None = None
    ) -> Summary:
        """Complete the files. The record is written last: it marks the input as finished.

        damage: the damage of a photo, whose status is then partial.
        """
        warnings = [*([] if damage is None else [damage]), *warnings, *self._media.finish()]
        lost_frames = sum(lost.values())
        summary = Summary(
            status="partial" if lost_frames or damage is not None else "done",
            frames=self._record.frames,
            people=self._record.people,
            lost_frames=lost_frames,
            lost=dict(lost),
            seconds=round(seconds, 3),
            outputs=(self._output,) if self._media.encodes else (),
            warnings=tuple(warnings),
            width=self._size[0] if self._size else 0,
            height=self._size[1] if self._size else 0,
            frame_rate=self._frame_rate(),
            tracks=self._record.tracks,
        )
        self._record.finish(summary)
        self._stack.pop_all()
        return summary

    def _frame_rate(self) -> float | None:
        rate = self._source.frame_rate if self._source is not None else None
        return round(float(rate), 3) if rate else None

    def abort(self) -> None:
        """Delete the files of this input."""
        self._stack.close()
        self._media.abort()
        with contextlib.suppress(OSError):  # such as a folder of that name
            self._thumbnail.unlink(missing_ok=True)
