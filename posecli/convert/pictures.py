"""Pictures of a set: their names as files, their sizes, copies of photos, and frames of videos as pictures."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from posecli.annotations.document import quoted_name
from posecli.annotations.images import Image
from posecli.annotations.names import NameIndex, find_files, is_there, missing_line
from posecli.annotations.pixels import orientation_of
from posecli.atomic import AtomicFile
from posecli.convert.dataset import AnnotationSet, Picture, Report
from posecli.errors import DataError, MediaError
from posecli.media.headers import stored_size
from posecli.media.walk import walk
from posecli.results.names import shortened_name

# Suffixes of pictures that Ultralytics reads.
SUFFIXES = frozenset({".bmp", ".dng", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp", ".pfm", ".heic"})

# Bytes of a picture in which its size almost always is.
_START = 1 << 18


def is_frame(picture: Picture) -> bool:
    """Whether the picture is a frame of a video, or a page of a file, and so not a file of its own."""
    return picture.video is not None or (type(picture.extra.get("page")) is int and "#" in picture.name)


def shown_name(picture: Picture) -> str:
    """The picture's name, or its id where it has none."""
    return picture.name or str(picture.id)


def source_name(data: AnnotationSet, picture: Picture) -> str:
    """The name of a frame's video, or of the file of a page."""
    return picture.name.rpartition("#")[0] if picture.video is None else data.videos[picture.video].name


def place_of(data: AnnotationSet, picture: Picture) -> str:
    """A relative path for the picture's file: its name, or clip.mp4.frames/frame_000012.jpg for a frame.

    Drives, roots and .. of names are left out, so that no name leads out of a folder. Raises DataError where nothing is
    left of it.
    """
    if not is_frame(picture):
        return clean_name(shown_name(picture))
    index = picture.index if picture.video is not None else picture.extra["page"]
    return f"{clean_name(source_name(data, picture) + '.frames')}/frame_{index:06d}.jpg"


def clean_name(name: str) -> str:
    """A name as a relative path: without drive, root and .. parts. Raises DataError where nothing is left."""
    path = re.sub(r"^[A-Za-z]:(?=/)", "", name.replace("\\", "/"))
    parts = [shortened_name(part) for part in path.split("/") if part not in ("", ".", "..")]
    if not parts or "\0" in name:
        raise DataError(f"{name!a} is no name of a picture")
    return "/".join(parts)


def size_of(path: Path) -> tuple[int, int] | None:
    """(width, height) of an image as it stands upright; None where it is no image. Raises DataError."""
    try:
        with path.open("rb") as file:
            content = file.read(_START)
            size = stored_size(content)
            content += b"" if size is not None else file.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{quoted_name(path)}: {getattr(error, 'strerror', None) or error}") from error
    size = size or stored_size(content)
    if size is None:
        from posecli.media.images import decode_image  # slow to import

        try:
            pixels = decode_image(content, str(path))
        except MediaError:
            return None
        return int(pixels.shape[1]), int(pixels.shape[0])
    return size[::-1] if orientation_of(content) > 4 else size


def find_sources(data: AnnotationSet, folder: Path, report: Report) -> dict[int, Path]:
    """The files of the pictures by their places: photos, pictures of frames where they exist, else their video.

    Raises DataError where some are missing.
    """
    photos = [
        Image(place, picture.id, picture.name, picture.size)
        for place, picture in enumerate(data.pictures)
        if not is_frame(picture)
    ]
    found = find_files(photos, folder)
    report.notes += found.notes
    sources, missing = dict(found.there), list(found.missing.values())
    index: NameIndex[Path] | None = None
    for place, picture in enumerate(data.pictures):
        if not is_frame(picture):
            continue
        still, whole = folder / place_of(data, picture), folder / clean_name(source_name(data, picture))
        numbered = "%" in whole.name and whole.parent.is_dir()
        if is_there(still) or is_there(whole) or numbered:
            sources[place] = still if is_there(still) else whole
            continue
        # CVAT keeps the file name of a video without its folder.
        if index is None:
            index = NameIndex((path.relative_to(folder).as_posix(), path) for path, why in walk(folder) if why is None)
        meant = index.find(source_name(data, picture), strict=True)
        if len(meant) == 1:
            sources[place] = meant[0]
        else:
            missing.append(whole)
    if missing:
        raise DataError(missing_line(missing, len(data.pictures), "pictures of --images"))
    return sources


def write_pictures(
    data: AnnotationSet, sources: Mapping[int, Path], targets: Mapping[int, Path], report: Report
) -> None:
    """Write the pictures with a target, by their places: photos are copied, frames of videos decoded.

    sources: see find_sources. Raises DataError where a frame cannot be decoded, OSError.
    """
    of_videos: dict[Path, dict[int, int]] = {}
    for place, target in targets.items():
        picture, source = data.pictures[place], sources[place]
        if is_frame(picture) and not source.as_posix().endswith(place_of(data, picture)):
            index = picture.index if picture.video is not None else int(picture.extra["page"])
            of_videos.setdefault(source, {})[index] = place
        else:
            _copy(picture, source, target, report)
    for source, frames in of_videos.items():
        _extract(data, source, frames, targets, report)


def _copy(picture: Picture, source: Path, target: Path, report: Report) -> None:
    """Copy a photo. One that is annotated as stored, not as it stands upright, is written as stored."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as opened:
        content = opened.read()
    size = stored_size(content)
    if size is not None and picture.size == size != size[::-1] and orientation_of(content) > 4:
        from posecli.media.images import decode_image
        from posecli.media.write_images import write_image

        write_image(target, decode_image(content, str(source), ignore_orientation=True))
        report.notes.append(f"{quoted_name(source)}: annotated without its EXIF orientation: written without it")
        return
    with source.open("rb") as opened, AtomicFile(target) as file:
        shutil.copyfileobj(opened, file, 1 << 20)


def _extract(
    data: AnnotationSet, source: Path, frames: Mapping[int, int], targets: Mapping[int, Path], report: Report
) -> None:
    """Write frames (number → place) of a video or pages of a file."""
    from posecli.media.photos import PhotoReader
    from posecli.media.video import VideoReader
    from posecli.media.write_images import write_image

    left = dict(frames)
    photo = data.pictures[next(iter(frames.values()))].video is None
    reader = PhotoReader(source) if photo else VideoReader(source if is_there(source) else str(source))
    other = 0
    try:
        for frame in reader:
            place = left.pop(frame.index, None)
            if place is not None:
                write_image(targets[place], frame.pixels)
                other += data.pictures[place].size not in (None, (frame.width, frame.height))
            if not left:
                break
    finally:
        if isinstance(reader, VideoReader):
            reader.close()
    if left:
        raise DataError(f"{quoted_name(source)}: {len(left)} frames are not in it, first number {min(left)}")
    if other:
        report.notes.append(f"{quoted_name(source)}: {other} frames have another size than the annotations say")


def sized(data: AnnotationSet, pictures: Sequence[Picture], title: str) -> list[tuple[int, int]]:
    """The sizes of the pictures. Raises DataError where one is unknown; title: of the format that needs them."""
    sizes = []
    for picture in pictures:
        if picture.size is None or not all(picture.size):
            raise DataError(f"{title} needs the size of {quoted_name(shown_name(picture))}, which is unknown")
        sizes.append(picture.size)
    return sizes


def without_suffix(place: str) -> str:
    """A relative path without the suffix of its file name."""
    return str(PurePosixPath(place).with_suffix("")) if PurePosixPath(place).suffix else place
