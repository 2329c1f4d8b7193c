"""Worker processes of an evaluation: each predicts some of the images; the results are those of one process."""

import logging
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NoReturn

from posecli.detect import Detector, load_detector
from posecli.errors import MachineError, PosecliError
from posecli.evaluate.ground_truth import GroundTruth
from posecli.evaluate.predictions import Found, find_people, images_with_boxes
from posecli.evaluate.variants import Settings, Variant, estimators_of, load_first
from posecli.pose.estimator import Estimator
from posecli.processes import bind, cause_of, follow, share_of, signals_held, usable_cores
from posecli.types import Detections

# Images that a worker gets at once.
_IMAGES = 32
# Deaths of workers with the same images after which the evaluation ends.
_MOST_DEATHS = 2
_WAKE = 0.5


@dataclass(frozen=True)
class _Setup:
    """What a worker needs. boxes: None for a detector. runtimes: of the driver's models, which were measured once."""

    group: tuple[Variant, ...]
    settings: Settings
    truth: GroundTruth
    boxes: Mapping[int, Detections] | None
    runtime: str
    detector_runtime: str
    driver: int
    torch_threads: int | None
    cores: tuple[int, ...] | None


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    connection: "Connection[Any, Any]"
    place: int
    # The number of its images, None while it has none.
    piece: int | None = None


def find_in_workers(
    count: int,
    settings: Settings,
    truth: GroundTruth,
    group: Sequence[Variant],
    boxes: Mapping[int, Detections] | Detector,
    estimator: Estimator,
) -> Iterator[Found]:
    """People of all images, in the order of the ground truth, found in processes. With count bound, a variants.Spread.

    Raises what predictions.find_people raises, of the first image in order, and MachineError where workers die.
    """
    wanted = images_with_boxes(truth, boxes)
    pieces = [wanted[first : first + _IMAGES] for first in range(0, len(wanted), _IMAGES)] or [[]]
    detector = boxes if isinstance(boxes, Detector) else None
    threads = None
    if "torch" in (estimator.runner.runtime, detector.runtime if detector else ""):
        import torch

        threads = torch.get_num_threads()
    cores, count = usable_cores(), min(count, len(pieces))
    setups = [
        _Setup(
            tuple(group),
            settings,
            truth,
            None if isinstance(boxes, Detector) else boxes,
            estimator.runner.runtime,
            detector.runtime if detector and detector.name == "person" else "auto",
            os.getpid(),
            threads,
            share_of(cores, place, count) if threads is None else None,
        )
        for place in range(count)
    ]
    yield from _in_order(setups, pieces)


def _in_order(setups: Sequence[_Setup], pieces: Sequence[Sequence[int]]) -> Iterator[Found]:
    waiting, done, deaths, following = deque(range(len(pieces))), dict[int, Any](), Counter[int](), 0
    workers: dict[int, _Worker] = {}
    try:
        for place, setup in enumerate(setups):
            workers[place] = _start(place, setup)
        while following < len(pieces):
            for worker in workers.values():
                if worker.piece is None and waiting:
                    worker.piece = waiting.popleft()
                    with suppress(OSError):  # noticed when its end of the pipe is read
                        worker.connection.send(pieces[worker.piece])
            spoke = wait([worker.connection for worker in workers.values()], timeout=_WAKE)
            for worker in [worker for worker in workers.values() if worker.connection in spoke]:
                try:
                    answer = worker.connection.recv()
                except (EOFError, OSError):
                    workers[worker.place] = _again(worker, setups[worker.place], waiting, deaths)
                    continue
                if worker.piece is not None:
                    done[worker.piece], worker.piece = answer, None
            while following in done:
                answer = done.pop(following)
                if isinstance(answer, BaseException):
                    raise answer
                following += 1
                yield answer
    finally:
        for worker in workers.values():
            worker.process.kill()
        for worker in workers.values():
            worker.process.join()
            worker.connection.close()


def _start(place: int, setup: _Setup) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, setup), name=f"posecli-eval-{place}", daemon=True)
    try:
        with signals_held():
            process.start()
    except OSError as error:
        raise MachineError(f"a worker process cannot be started ({error.strerror}): use --workers 1") from error
    theirs.close()
    return _Worker(process, ours, place)


def _again(worker: _Worker, setup: _Setup, waiting: deque[int], deaths: Counter[int]) -> _Worker:
    """A worker in the place of one that died, whose images are tried once more. Raises MachineError."""
    worker.process.join()
    worker.connection.close()
    piece = -1 if worker.piece is None else worker.piece
    deaths[piece] += 1
    cause = cause_of(worker.process.exitcode)
    if deaths[piece] == _MOST_DEATHS:
        raise MachineError(f"a worker process ended twice on the same images ({cause}): use --workers 1")
    if piece >= 0:
        waiting.appendleft(piece)
    return _start(worker.place, setup)


def _main(connection: "Connection[Any, Any]", setup: _Setup) -> NoReturn:
    """A worker: image ids → Found, or the error, until the driver ends."""
    follow(setup.driver)
    logging.getLogger().addHandler(logging.NullHandler())  # the driver has logged what loading says
    models: tuple[list[Estimator], Mapping[int, Detections] | Detector] | None = None
    while True:
        try:
            image_ids = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        answer: Found | BaseException
        try:
            models = models or _load(setup)
            settings = setup.settings
            estimators, boxes = models
            answer = find_people(estimators, setup.truth, boxes, image_ids, settings.rank_by, settings.reestimate)
        except PosecliError as error:
            answer = error
        except Exception as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        try:
            connection.send(answer)
        except OSError:
            os._exit(0)


def _load(setup: _Setup) -> tuple[list[Estimator], Mapping[int, Detections] | Detector]:
    if setup.cores is not None:
        bind(setup.cores)
    first, settings = setup.group[0], setup.settings
    estimator = load_first(first, settings, setup.runtime)
    if setup.torch_threads is not None:
        import torch

        torch.set_num_threads(setup.torch_threads)
    boxes: Mapping[int, Detections] | Detector
    if setup.boxes is not None:
        boxes = setup.boxes
    else:
        name = "person" if first.boxes == "detector" else first.boxes
        boxes = load_detector(
            name,
            device=settings.device,
            runtime=setup.detector_runtime,
            precision=first.precision,
            threshold=settings.detector_threshold,
        )
    return estimators_of(estimator, setup.group), boxes
