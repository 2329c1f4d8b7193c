"""Parts of a long video whose frames several workers estimate; one then tracks, draws and encodes all of it."""

from dataclasses import replace

from posecli.errors import MediaError
from posecli.media.span import Span
from posecli.media.video import VideoReader
from posecli.pipeline.events import Job
from posecli.tracking.propagate import RESTART_EVERY

# Stretches of RESTART_EVERY frames from which on a video is split: each part is decoded from the start of the video,
# and the whole once more.
_LEAST = 3


def split(job: Job, span: Span, count: int, first_number: int) -> list[Job]:
    """Jobs of at most count parts of a video, numbered from first_number; empty where it is not worth it.

    Parts begin where box propagation restarts, so that the results of their frames are those of the whole video. A
    video with a journal is not split: an earlier run has estimated some of its frames. Neither is one at an address,
    which each worker would fetch.
    """
    if job.input.kind != "video" or job.input.live or job.input.error or job.input.remote or job.journal.exists():
        return []
    try:
        with VideoReader(job.input.source, span=span) as reader:
            limits = reader.frame_limits
    except (MediaError, OSError, ValueError, MemoryError):
        return []
    if limits is None:
        return []
    begin, end = limits[0] // RESTART_EVERY, -(-limits[1] // RESTART_EVERY)
    count = min(count, end - begin)
    if end - begin < _LEAST or count < 2:
        return []
    cuts = [RESTART_EVERY * (begin + (end - begin) * place // count) for place in range(1, count)]
    ranges = zip([0, *cuts], [*cuts, None], strict=True)
    return [replace(job, number=first_number + place, part=part) for place, part in enumerate(ranges)]
