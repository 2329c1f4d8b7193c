"""The corridor: inputs → frames → detections → poses → files.

Three threads with bounded queues between them: one decodes, the caller's runs the networks, one draws and
encodes. Frames of several inputs share a batch, order is kept, and an input is either finished or not there.
"""

import errno
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import orjson
from av.error import FFmpegError

from posecli import __version__
from posecli.detect import Detector
from posecli.errors import MachineError, MediaError, PosecliError
from posecli.media.images import DEFAULT_MAX_PIXELS, read_image
from posecli.media.inputs import Input, content_key, printable
from posecli.media.video import VideoReader
from posecli.output.coco import Recorded, write_coco
from posecli.output.gallery import thumbnail_path, write_gallery
from posecli.output.images import photo_name
from posecli.output.manifest import Finished, manifest, write_manifest
from posecli.output.records import SCHEMA, Summary, read_header, read_summary, record_path
from posecli.output.sink import Look, Sink
from posecli.output.video import video_name
from posecli.pose.estimator import Estimator
from posecli.types import Frame, Poses

BATCH_FRAMES = 8
# A batch also ends here, so that large photos do not pile up in memory.
BATCH_PIXELS = 24_000_000


@dataclass(frozen=True)
class RunOptions:
    """What decides the content of the output, the models aside."""

    keypoint_threshold: float = 0.3
    media: bool = True
    audio: bool = True
    show_boxes: bool = False
    crf: int = 20
    preset: str = "veryfast"
    max_pixels: int = DEFAULT_MAX_PIXELS


@dataclass(frozen=True)
class Job:
    """One input with its places in the output."""

    number: int
    input: Input
    output: str
    record: Path


class Progress(Protocol):
    """Who wants to know how far a run is."""

    def begin(self, name: str, frames: int) -> None:
        """An input begins, with about so many frames; 0 where nobody knows."""

    def advance(self, name: str, frames: int) -> None:
        """Frames of an input were done."""

    def finish(self, item: Finished) -> None:
        """An input ended."""


# ---- what travels between the threads -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Opened:
    """An input begins. source is None for a photo."""

    job: Job
    content: str
    source: VideoReader | None


@dataclass(frozen=True, eq=False)
class Read:
    """A frame of it."""

    job: Job
    frame: Frame


@dataclass(frozen=True, eq=False)
class Closed:
    """An input has no more frames. error is None unless it failed; ended is set for one finished before."""

    job: Job
    content: str = ""
    error: str | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    ended: Summary | None = None


@dataclass(frozen=True, eq=False)
class Estimated:
    """A frame with its people."""

    job: Job
    frame: Frame
    poses: Poses


T = TypeVar("T")


class Stopped(Exception):
    """Another thread failed or the user interrupted; this one just leaves."""


class Channel(Generic[T]):
    """A bounded queue between two threads. Once stop is set, both its ends raise Stopped."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(size)
        self._stop = stop

    def put(self, item: T | None) -> None:
        """Add an item, waiting for room; None ends the channel."""
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
        raise Stopped

    def __iter__(self) -> Iterator[T]:
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item
        raise Stopped


# ---- the run --------------------------------------------------------------------------------------------


def plan(inputs: Sequence[Input], out: Path) -> list[Job]:
    """Give every input its output and its record."""
    jobs, taken = [], set()
    for number, item in enumerate(inputs):
        output = video_name(item.name) if item.kind == "video" else photo_name(item.name)
        while output.casefold() in taken:
            output = str(Path(output).with_suffix("")) + "~" + Path(output).suffix
        taken.add(output.casefold())
        jobs.append(Job(number, item, output, record_path(out, item.name)))
    return jobs


def options_key(options: RunOptions, detector: Detector, estimator: Estimator) -> str:
    """A fingerprint of everything that decides the output beside the input's own content."""
    values = {
        "schema": SCHEMA,
        "posecli": __version__,
        "options": asdict(options),
        "models": models(detector, estimator),
    }
    return hashlib.blake2b(orjson.dumps(values, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def models(detector: Detector, estimator: Estimator) -> dict[str, Any]:
    """What runs, for run.json."""
    return {
        "pose": {
            "weights": estimator.weights.name if estimator.weights else None,
            "sha256": estimator.weights_sha256,
            "backbone": estimator.config.backbone,
            "input_size": list(estimator.config.input_size),
            "decoder": estimator.decoder,
            "flip": estimator.flip,
            "runtime": estimator.runner.runtime,
            "device": estimator.runner.device,
            "precision": estimator.runner.precision,
        },
        "detector": {
            "name": detector.name,
            "sha256": detector.weights_sha256,
            "threshold": detector.threshold,
            "runtime": detector.runtime,
            "device": detector.device,
        },
    }


def finished_before(job: Job, out: Path, content: str, key: str) -> Summary | None:
    """How the input ended in an earlier run of the same content and options, if its files still stand."""
    header = read_header(job.record)
    if header is None or header["content"] != content or header["options"] != key:
        return None
    summary = read_summary(job.record)
    if summary is None or summary.status == "failed":
        return None
    return summary if all((out / name).is_file() for name in summary.outputs) else None


def run(
    inputs: Sequence[Input],
    out: Path,
    detector: Detector,
    estimator: Estimator,
    options: RunOptions,
    progress: Progress,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Do all inputs; annotated media, coco.json, coco_results.json, run.json and index.html go into out.

    Returns the document of run.json. An input that fails is recorded there and the others go on. Raises
    MachineError where out cannot be written, OSError where the disk is full, and passes KeyboardInterrupt on;
    what was finished then stays finished, and the result files hold it.
    """
    prepare_output(out)
    started = time.monotonic()
    jobs = plan(inputs, out)
    key = options_key(options, detector, estimator)
    finished: list[Finished] = []
    failures: list[BaseException] = []
    stop = threading.Event()
    read: Channel[Opened | Read | Closed] = Channel(4, stop)
    estimated: Channel[Opened | Estimated | Closed] = Channel(8, stop)

    def start(work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Stopped:
                return
            except BaseException as error:
                failures.append(error)
                stop.set()

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    threads = [
        start(lambda: read_all(jobs, out, key, options, overwrite, read)),
        start(lambda: write_all(out, key, estimator, options, estimated, finished, progress)),
    ]
    try:
        for item in estimate_all(read, detector, estimator):
            estimated.put(item)
        estimated.put(None)
        while threads[1].is_alive():
            threads[1].join(0.1)
    except Stopped:
        pass  # the failure of the other thread is raised below
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        described = {"models": models(detector, estimator), "options": asdict(options)}
        seconds = round(time.monotonic() - started, 3)
        document = write_results(out, jobs, finished, estimator, {**described, "seconds": seconds})
    if failures:
        raise failures[0]
    return document


def prepare_output(out: Path) -> None:
    """Make sure, before any work, that the output can be written. Raises MachineError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".posecli-probe.part"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise MachineError(f"--out {out}: cannot be written ({error.strerror})") from error


def read_all(
    jobs: Sequence[Job], out: Path, key: str, options: RunOptions, overwrite: bool, channel: Channel[Any]
) -> None:
    """Decode all inputs, in order, into the channel."""
    for job in jobs:
        for event in _read_one(job, out, key, options, overwrite):
            channel.put(event)
    channel.put(None)


def _read_one(job: Job, out: Path, key: str, options: RunOptions, overwrite: bool) -> Iterator[Opened | Read | Closed]:
    path, content = job.input.path, ""
    try:
        if job.input.error is not None:
            raise MediaError(f"{path}: {job.input.error}")
        content = content_key(path)
        if not overwrite and (ended := finished_before(job, out, content, key)) is not None:
            yield Closed(job, content, ended=ended)
            return
        if job.input.kind == "photo":
            frame = Frame(read_image(path, max_pixels=options.max_pixels))
            yield Opened(job, content, None)
            yield Read(job, frame)
            yield Closed(job, content)
            return
        with VideoReader(path) as reader:
            yield Opened(job, content, reader)
            for frame in reader:
                yield Read(job, frame)
            yield Closed(job, content, lost=dict(reader.lost))
    except (PosecliError, OSError, MemoryError, ValueError) as error:
        yield Closed(job, content, error=_line(error, path))


def estimate_all(
    events: Iterable[Opened | Read | Closed], detector: Detector, estimator: Estimator
) -> Iterator[Opened | Estimated | Closed]:
    """Find people and their poses, frames of several inputs in one batch; the order stays."""
    waiting: list[Opened | Read | Closed] = []
    failed: dict[int, str] = {}

    def flush() -> Iterator[Opened | Estimated | Closed]:
        reads = [event for event in waiting if isinstance(event, Read)]
        poses = iter(_poses(reads, detector, estimator, failed))
        for event in waiting:
            if isinstance(event, Read):
                found = next(poses)
                if found is not None:
                    yield Estimated(event.job, event.frame, found)
            elif isinstance(event, Closed) and event.job.number in failed:
                yield replace(event, error=failed[event.job.number])
            else:
                yield event
        waiting.clear()

    frames = pixels = 0
    for event in events:
        waiting.append(event)
        if isinstance(event, Read):
            frames += 1
            pixels += event.frame.width * event.frame.height
        if frames >= BATCH_FRAMES or pixels >= BATCH_PIXELS or len(waiting) >= 4 * BATCH_FRAMES:
            yield from flush()
            frames = pixels = 0
    yield from flush()


def _poses(
    reads: Sequence[Read], detector: Detector, estimator: Estimator, failed: dict[int, str]
) -> list[Poses | None]:
    """Poses of each frame; None for those of an input that failed, whose reason goes into failed."""
    frames = [read.frame for read in reads]
    names = [str(read.job.input.path) for read in reads]
    try:
        return list(estimator(frames, detector(frames, names)))
    except PosecliError:
        found: list[Poses | None] = []
        for read, frame, name in zip(reads, frames, names, strict=True):
            try:
                found.append(estimator([frame], detector([frame], [name]))[0])
            except PosecliError as error:
                failed.setdefault(read.job.number, str(error))
                found.append(None)
        return found


def write_all(
    out: Path,
    key: str,
    estimator: Estimator,
    options: RunOptions,
    events: Iterable[Opened | Estimated | Closed],
    finished: list[Finished],
    progress: Progress,
) -> None:
    """Draw, encode and record; every input that ends is appended to finished."""
    look = Look(
        estimator.config.keypoints,
        options.keypoint_threshold,
        options.media,
        options.audio,
        options.show_boxes,
        options.crf,
        options.preset,
    )
    sink: Sink | None = None
    started, problem = 0.0, None
    try:
        for event in events:
            name, item = event.job.input.name, event.job.input
            if isinstance(event, Opened):
                started, problem = time.monotonic(), None
                progress.begin(name, 1 if event.source is None else event.source.frame_count)
                header = {"name": name, "kind": item.kind, "content": event.content, "options": key}
                try:
                    sink = Sink(out, event.job.output, event.job.record, header, look, event.source)
                except (PosecliError, FFmpegError, ValueError) as error:
                    problem = _line(error, item.path)
            elif isinstance(event, Estimated):
                if sink is None:
                    continue
                try:
                    sink.write(event.frame, event.poses)
                    progress.advance(name, 1)
                except (PosecliError, FFmpegError, ValueError) as error:
                    problem = _line(error, item.path)
                    sink.abort()
                    sink = None
            else:
                error_line = event.error or problem
                if event.ended is not None:
                    summary = event.ended
                elif error_line is None and sink is not None:
                    summary = sink.finish(seconds=time.monotonic() - started, lost=event.lost)
                else:
                    if sink is not None:
                        sink.abort()
                    summary = Summary("failed", error=error_line)
                    event.job.record.unlink(missing_ok=True)
                sink = None
                kind = item.kind
                done = Finished(name, printable(str(item.path)), kind, summary, event.ended is not None)
                finished.append(done)
                progress.finish(done)
    finally:
        if sink is not None:
            sink.abort()


def write_results(
    out: Path,
    jobs: Sequence[Job],
    finished: Sequence[Finished],
    estimator: Estimator,
    described: dict[str, Any],
) -> dict[str, Any]:
    """coco.json, coco_results.json, run.json and index.html of what is finished; the document of run.json."""
    of_name = {job.input.name: job for job in jobs}
    recorded = [
        Recorded(item.name, item.kind, of_name[item.name].record)
        for item in finished
        if item.summary.status != "failed"
    ]
    write_coco(out, recorded, estimator.config.keypoints)
    document = manifest(finished, {**described, "unfinished": len(jobs) - len(finished)})
    write_manifest(out, document)
    cards = ((item, _thumbnail(out, of_name[item.name])) for item in finished)
    names = f"{document['models']['pose']['backbone']} on {document['models']['pose']['runtime']}"
    write_gallery(out, cards, document["totals"], names)
    return document


def _thumbnail(out: Path, job: Job) -> Path | None:
    path = thumbnail_path(out, job.record)
    return path if path.is_file() else None


def _line(error: BaseException, path: Path) -> str:
    """One line that names the file and the cause."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        raise error  # a full disk is not this input's fault, and the next would fail too
    text = printable(" ".join(str(error).splitlines()))
    if isinstance(error, PosecliError):
        return text
    if isinstance(error, MemoryError):
        return f"{printable(str(path))}: too large for this machine's memory"
    return f"{printable(str(path))}: {error.strerror if isinstance(error, OSError) and error.strerror else text}"
