"""The thread that decodes: inputs to frames, in order."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posecli.errors import MediaError, PosecliError
from posecli.media.images import read_image
from posecli.media.inputs import content_key
from posecli.media.video import VideoReader
from posecli.output.records import Summary, read_header, read_summary
from posecli.pipeline.channel import Channel
from posecli.pipeline.events import Closed, Job, Opened, Read
from posecli.pipeline.options import RunOptions
from posecli.pipeline.trouble import one_line
from posecli.types import Frame


def read_all(
    jobs: Sequence[Job],
    out: Path,
    key: str,
    options: RunOptions,
    channel: Channel[Any],
    *,
    overwrite: bool,
    enough: threading.Event,
) -> None:
    """Decode all inputs into the channel. enough: set when the user has seen enough of a live source."""
    for job in jobs:
        for event in _read_one(job, out, key, options, overwrite, enough):
            channel.put(event)
    channel.put(None)


def _read_one(
    job: Job, out: Path, key: str, options: RunOptions, overwrite: bool, enough: threading.Event
) -> Iterator[Opened | Read | Closed]:
    source, content = job.input.source, ""
    try:
        if job.input.error is not None:
            raise MediaError(f"{job.input.shown}: {job.input.error}")
        if not job.input.live:
            content = content_key(source)
            if not overwrite and (ended := finished_before(job, out, content, key)) is not None:
                yield Closed(job, content, ended=ended)
                return
        if job.input.kind == "photo":
            frame = Frame(read_image(job.input.path, max_pixels=options.max_pixels))
            yield Opened(job, content, None)
            yield Read(job, frame)
            yield Closed(job, content)
            return
        with VideoReader(source, span=options.span) as reader:
            yield Opened(job, content, reader)
            for frame in reader:
                if job.input.live and enough.is_set():
                    break
                yield Read(job, frame)
            yield Closed(job, content, lost=dict(reader.lost), warnings=tuple(reader.warnings))
    except (PosecliError, OSError, MemoryError, ValueError) as error:
        yield Closed(job, content, error=one_line(error, job.input.shown))


def finished_before(job: Job, out: Path, content: str, key: str) -> Summary | None:
    """How the input ended in an earlier run of the same content and options, if its files still stand."""
    header = read_header(job.record)
    if header is None or header["content"] != content or header["options"] != key:
        return None
    summary = read_summary(job.record)
    if summary is None or summary.status == "failed":
        return None
    return summary if all((out / name).is_file() for name in summary.outputs) else None
