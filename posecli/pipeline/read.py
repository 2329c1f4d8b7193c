"""The reading thread: decodes inputs to frames, in order."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from posecli.errors import MediaError, PosecliError
from posecli.media.headers import stored_size
from posecli.media.inputs import content_key
from posecli.media.photos import PhotoReader
from posecli.media.video import VideoReader
from posecli.pipeline.channel import Budget, Channel, FailedInputs
from posecli.pipeline.error_messages import error_message
from posecli.pipeline.events import Closed, Flush, Job, Opened, Read
from posecli.pipeline.run_options import RunOptions
from posecli.results.records import Summary, read_header, read_summary
from posecli.stages import stage
from posecli.types import Frame

# Bytes in which an image's size is found; a JPEG may have a preview and a colour profile before it.
_HEADER = 1 << 20


def read_all(
    jobs: Iterable[Job | None],
    out: Path,
    key: str,
    options: RunOptions,
    channel: Channel[Any],
    *,
    overwrite: bool,
    stop_live: threading.Event,
    budget: Budget,
    failed_inputs: FailedInputs,
) -> None:
    """Decode all inputs into the channel.

    jobs: None for a pause, before which the frames that wait for others of their batch are processed. stop_live: set
    when the user ends a live source. budget: acquired before each frame is decoded, and released where the frame is no
    longer used. failed_inputs: their frames are not decoded.
    """

    def counted(job: Job, frames: Iterator[Frame], size: int) -> Iterator[Frame]:
        """The input's frames until it fails or a live source is stopped; size: estimated bytes while decoding."""
        while job.number not in failed_inputs and not (job.input.live and stop_live.is_set()):
            if not budget.fits(size):
                channel.put(Flush())
            budget.acquire(size)
            try:
                with stage("decode"):
                    frame = next(frames, None)
            except BaseException:
                budget.release(size)
                raise
            budget.resize(size, 0 if frame is None else frame.pixels.nbytes)
            if frame is None:
                return
            yield frame
            frame = None

    event: Opened | Read | Closed | None
    for job in jobs:
        if job is None:
            channel.put(Flush())
            continue
        for event in _read_one(job, out, key, options, overwrite, counted):
            channel.put(event)
            event = None  # release the frame while waiting for the next one
    channel.put(None)


def _read_one(
    job: Job,
    out: Path,
    key: str,
    options: RunOptions,
    overwrite: bool,
    counted: Callable[[Job, Iterator[Frame], int], Iterator[Frame]],
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
            photo, opened = PhotoReader(job.input.path, max_pixels=options.max_pixels), False
            for frame in counted(job, iter(photo), photo_bytes(job.input.path, options.max_pixels)):
                if not opened:
                    yield Opened(job, content, None)
                opened = True
                yield Read(job, frame)
                del frame
            yield Closed(job, content, lost=dict(photo.lost), damage=photo.damage)
            return
        with VideoReader(source, span=options.span, part=job.part) as reader:
            yield Opened(job, content, reader)
            for frame in counted(job, iter(reader), 3 * reader.width * reader.height):
                yield Read(job, frame)
                del frame
            yield Closed(job, content, lost=dict(reader.lost), warnings=tuple(reader.warnings))
    except (PosecliError, OSError, MemoryError, ValueError) as error:
        yield Closed(job, content, error=error_message(error, job.input.shown))


def photo_bytes(path: Path, max_pixels: int) -> int:
    """Upper limit of the bytes that decoding a photo takes (file and pixels), from its header."""
    with path.open("rb") as file:
        size = stored_size(file.read(_HEADER))
    pixels = max_pixels if size is None else min(size[0] * size[1], max_pixels)
    return path.stat().st_size + 3 * pixels


def finished_job(job: Job, out: Path, key: str) -> Summary | None:
    """As finished_before, but the content is read only where a record with these options exists."""
    header = read_header(job.record)
    if header is None or header["options"] != key or job.input.live or job.input.error is not None:
        return None
    if job.input.remote is not None:  # it is not fetched for its hash
        version = job.input.remote.version
        same = version is not None and header.get("version") == version
        return finished_before(job, out, header["content"], key) if same else None
    try:
        return finished_before(job, out, content_key(job.input.source), key)
    except OSError:
        return None


def finished_before(job: Job, out: Path, content: str, key: str) -> Summary | None:
    """The summary of an earlier run with the same content and options, if its files still exist."""
    header = read_header(job.record)
    if header is None or header["content"] != content or header["options"] != key:
        return None
    summary = read_summary(job.record)
    if summary is None or summary.status == "failed":
        return None
    # With other inputs it may have had another place, which is now that of another input.
    if summary.outputs and summary.outputs[0] != job.output:
        return None
    return summary if all((out / name).is_file() for name in summary.outputs) else None
