"""Where the frames of one input go: annotated media, record, thumbnail."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posecli.keypoints import KeypointSet
from posecli.media.video import VideoReader
from posecli.output.draw import draw_poses
from posecli.output.gallery import thumbnail_path, write_thumbnail
from posecli.output.images import write_image
from posecli.output.records import RecordWriter, Summary
from posecli.output.video import VideoWriter
from posecli.types import Frame, Poses


@dataclass(frozen=True)
class Look:
    """How annotated media look and are encoded. media: whether there are any."""

    keypoint_set: KeypointSet
    keypoint_threshold: float = 0.3
    media: bool = True
    audio: bool = True
    show_boxes: bool = False
    crf: int = 20
    preset: str = "veryfast"


class Sink:
    """Takes the frames of one input in order; finish makes its files appear, abort leaves none.

    source is the open video, or None for a photo. output is the annotated file's place under out.
    """

    def __init__(
        self,
        out: Path,
        output: str,
        record: Path,
        header: Mapping[str, Any],
        look: Look,
        source: VideoReader | None,
    ) -> None:
        self._out, self._output, self._look, self._source = out, output, look, source
        self._thumbnail = thumbnail_path(out, record)
        self._most_people = -1
        self._size = (0, 0)
        self._stack = contextlib.ExitStack()
        self._record = self._stack.enter_context(RecordWriter(record, header, look.keypoint_threshold))
        self._video: VideoWriter | None = None
        if look.media and source is not None:
            self._video = VideoWriter(out / output, source, crf=look.crf, preset=look.preset, audio=look.audio)
            self._stack.callback(self._video.abort)

    def write(self, frame: Frame, poses: Poses) -> None:
        """Draw, encode and record a frame."""
        self._record.write(frame, poses)
        self._size = (frame.width, frame.height)
        better = len(poses) > self._most_people
        if not (self._look.media or better):
            return
        drawn = draw_poses(
            frame.pixels,
            poses,
            self._look.keypoint_set,
            keypoint_threshold=self._look.keypoint_threshold,
            show_boxes=self._look.show_boxes,
        )
        if better:
            write_thumbnail(self._thumbnail, drawn)
            self._most_people = len(poses)
        if self._video is not None and frame.time is not None:
            self._video.write(drawn, frame.time)
        elif self._look.media:
            write_image(self._out / self._output, drawn)

    def finish(self, *, seconds: float, lost: Mapping[str, int]) -> Summary:
        """Complete the files. The record is last: it says that all the others stand."""
        warnings: list[str] = []
        if self._video is not None:
            self._video.close()
            warnings = self._video.warnings
        lost_frames = sum(lost.values())
        summary = Summary(
            status="partial" if lost_frames else "done",
            frames=self._record.frames,
            people=self._record.people,
            lost_frames=lost_frames,
            lost=dict(lost),
            seconds=round(seconds, 3),
            outputs=(self._output,) if self._look.media else (),
            warnings=tuple(warnings),
            width=self._size[0],
            height=self._size[1],
        )
        self._record.finish(summary)
        self._video = None
        self._stack.pop_all()
        return summary

    def abort(self) -> None:
        """Leave nothing of this input behind."""
        self._stack.close()
        if self._look.media and self._source is None:
            (self._out / self._output).unlink(missing_ok=True)
