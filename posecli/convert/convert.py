"""Conversion of a file or folder of annotations into another format."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from posecli.annotations.document import garbage_collection_paused
from posecli.convert.dataset import AnnotationSet, Report
from posecli.convert.formats import FORMATS, check_size, find_file
from posecli.convert.options import ReadOptions, WriteOptions
from posecli.convert.outputs import read_list, refuse_existing, remove_stale, write_list
from posecli.convert.pictures import find_sources, is_frame, place_of, size_of, write_pictures
from posecli.errors import UsageError
from posecli.results.lock import locked
from posecli.results.protect import Protected, refuse_replacing


@dataclass(frozen=True)
class Converted:
    """What was done. source: the format that was read. notes: sentences for the user, with what was left out."""

    data: AnnotationSet
    source: str
    notes: tuple[str, ...]


def convert(
    path: Path,
    source: str | None,
    target: str,
    out: Path,
    reading: ReadOptions,
    writing: WriteOptions,
    *,
    overwrite: bool = False,
) -> Converted:
    """Read path as the format called source (None: by content) and write it as the format called target to out.

    No input is replaced, nor another file unless overwrite or, in a folder, unless an earlier conversion wrote it.
    Files are written atomically; of an earlier YOLO-pose data set those that no longer belong to it are removed.

    Raises PosecliError, OSError.
    """
    file, found = find_file(path) if source is None else (path, source)
    if not file.is_dir():
        check_size(file)
    with garbage_collection_paused():
        data = FORMATS[found].read(file, reading)
    report = Report()
    format_ = FORMATS[target]
    if writing.pictures is not None and writing.images is None:
        raise UsageError("--pictures needs --images: the folder of the videos")
    sources: dict[int, Path] = {}
    unsized = any(picture.size is None for picture in data.pictures)
    if writing.images is not None and (writing.pictures is not None or format_.copies or unsized):
        sources = find_sources(data, writing.images, Report())
        data = _with_sizes(data, sources)
    files, stills = format_.files(data, out, writing), _stills(data, writing)
    read = [path, file, *data.sources, *sources.values()]
    read += [Path(reading.keypoints)] if reading.keypoints is not None else []
    refuse_replacing(Protected(read), [*files, *stills.values()], "--out")
    folder = None if out in files else out
    with locked(folder, "--out", ".posecli/lock") if folder is not None else nullcontext():
        if not overwrite:
            refuse_existing(files, folder)
            refuse_existing(list(stills.values()), None)
        before, names = frozenset[str](), frozenset[str]()
        if folder is not None:
            before, names = read_list(folder), frozenset(file.relative_to(folder).as_posix() for file in files)
            write_list(folder, before | names)
        write_pictures(data, sources, stills, report)
        format_.write(data, out, writing, report)
        if folder is not None and "data.yaml" in names:
            remove_stale(folder, names, before)
            write_list(folder, names)
    return Converted(data, found, (*data.notes, *report.lines(format_.title)))


def _with_sizes(data: AnnotationSet, sources: Mapping[int, Path]) -> AnnotationSet:
    """The set with sizes from the files of photos whose size is unknown."""
    pictures = [
        replace(picture, size=size_of(sources[place])) if picture.size is None and not is_frame(picture) else picture
        for place, picture in enumerate(data.pictures)
    ]
    return replace(data, pictures=tuple(pictures))


def _stills(data: AnnotationSet, options: WriteOptions) -> dict[int, Path]:
    """The pictures of frames to write into --pictures, by the frames' places."""
    if options.pictures is None:
        return {}
    frames = {place: picture for place, picture in enumerate(data.pictures) if is_frame(picture)}
    return {place: options.pictures / place_of(data, picture) for place, picture in frames.items()}
