"""Output folders as `posecli run` leaves them, from poses that are given: no network runs."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from posecli.keypoints import COCO17, KeypointSet
from posecli.media.inputs import content_key
from posecli.results.manifest import Finished
from posecli.results.output_list import OutputList, write_output_list
from posecli.results.records import RecordWriter, Summary, record_path
from posecli.results.write import write_results
from posecli.types import Frame, Poses

RATE = 25


def make_run(
    out: Path,
    inputs: Mapping[str, Iterable[Poses]],
    *,
    size: tuple[int, int] | Mapping[str, tuple[int, int]] = (640, 360),
    sources: Mapping[str, Path] | None = None,
    keypoint_set: KeypointSet = COCO17,
    options: str = "o",
) -> Path:
    """Write records and results; names that end in .mp4 are videos at 25 frames a second, others photos.

    size: (width, height), of all or by name. sources: the inputs' files, where there are any. options: key of settings.
    """
    sources = sources or {}
    finished = []
    for name, frames in inputs.items():
        video = name.endswith(".mp4")
        content = content_key(str(sources[name])) if name in sources else "c"
        header = {"name": name, "kind": "video" if video else "photo", "content": content, "options": options}
        width, height = size[name] if isinstance(size, Mapping) else size
        pixels = np.broadcast_to(np.zeros(3, np.uint8), (height, width, 3))
        with RecordWriter(record_path(out, name), {**header, "keypoints": keypoint_set.names}, 0.3) as record:
            for index, poses in enumerate(frames):
                record.write(Frame(pixels, index, Fraction(index, RATE) if video else None), poses)
            summary = Summary(
                "done",
                record.frames,
                record.people,
                width=width,
                height=height,
                frame_rate=float(RATE) if video else None,
                tracks=record.tracks,
            )
            record.finish(summary)
        finished.append(Finished(name, str(sources.get(name, name)), header["kind"], summary))
    names = frozenset({"coco.json", "coco_results.json", "run.json", "index.html", ".posecli"})
    write_output_list(out, OutputList(names, {name: str(path) for name, path in sources.items()}))
    described = {"options": {}, "models": {"pose": {"backbone": "none", "runtime": "none"}}}
    write_results(out, finished, keypoint_set, described)
    return out
