"""The formats, by name, and which one a file has."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from posecli.annotations.document import quoted_name
from posecli.convert import (
    coco,
    cvat_read,
    cvat_write,
    label_studio_read,
    label_studio_write,
    yolo_read,
    yolo_write,
)
from posecli.convert.dataset import AnnotationSet, Report
from posecli.convert.options import ReadOptions, WriteOptions
from posecli.errors import DataError, NoInputError

# Largest file that is read; objects in memory take some ten times as much.
MOST_BYTES = 2 << 30
_START = 1 << 16


@dataclass(frozen=True)
class Format:
    """A format. title: its name in messages. files: what write writes, for the check that nothing is replaced.

    copies: whether write copies the pictures of WriteOptions.images.
    """

    title: str
    read: Callable[[Path, ReadOptions], AnnotationSet]
    files: Callable[[AnnotationSet, Path, WriteOptions], list[Path]]
    write: Callable[[AnnotationSet, Path, WriteOptions, Report], None]
    copies: bool = False


FORMATS = {
    "coco": Format("COCO", coco.read, coco.files, coco.write),
    "cvat": Format("CVAT's XML", cvat_read.read, cvat_write.files, cvat_write.write),
    "cvat-coco": Format("COCO for CVAT", coco.read, coco.files_for_cvat, coco.write_for_cvat),
    "label-studio": Format("Label Studio", label_studio_read.read, label_studio_write.files, label_studio_write.write),
    "yolo-pose": Format("YOLO-pose", yolo_read.read, yolo_write.files, yolo_write.write, copies=True),
}


def find_file(path: Path) -> tuple[Path, str]:
    """The file to read of a path, and its format by its content. Raises NoInputError, DataError."""
    if path.is_dir():
        # An output folder of run, an export of CVAT's, a YOLO-pose data set.
        for name in ("coco_corrected.json", "coco.json", "annotations.xml"):
            if (path / name).is_file():
                return path / name, "cvat" if name.endswith(".xml") else "coco"
        if any(file.suffix.lower() in (".yaml", ".yml") for file in path.iterdir()):
            return path, "yolo-pose"
        found = sorted((path / "annotations").glob("*.json")) or sorted(path.glob("*.json"))
        if len(found) != 1:
            raise NoInputError(f"{quoted_name(path)}: neither annotations nor data.yaml: give a file")
        path = found[0]
    return path, _format_of(path)


def _format_of(path: Path) -> str:
    check_size(path)
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError as error:
        raise NoInputError(f"{quoted_name(path)}: {error.strerror}") from error
    if start.startswith(b"PK\x03\x04"):
        raise DataError(f"{quoted_name(path)}: a ZIP archive: unpack it, and give the annotations in it")
    if path.suffix.lower() in (".yaml", ".yml"):
        return "yolo-pose"
    text = start.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if text.startswith(b"<"):
        return "cvat"
    if text.startswith(b"["):
        if b'"image_id"' in text and b'"data"' not in text:
            raise DataError(f"{quoted_name(path)}: results of COCO's without images: give a dataset, such as coco.json")
        return "label-studio"
    if text.startswith(b"{"):
        # The keys of a COCO file come first or are long lists; a single task of Label Studio has data.
        task = re.search(rb'"data"\s*:', text) is not None
        return "coco" if not task or re.search(rb'"(images|categories|info)"\s*:', text) else "label-studio"
    raise DataError(f"{quoted_name(path)}: none of the formats {', '.join(FORMATS)}")


def check_size(path: Path) -> None:
    """Raise NoInputError where the path is no file, DataError where it is too large."""
    try:
        size = path.stat().st_size
        regular = path.is_file()
    except (OSError, ValueError) as error:
        raise NoInputError(f"{quoted_name(path)}: {getattr(error, 'strerror', None) or error}") from error
    if not regular:
        raise NoInputError(f"{quoted_name(path)}: not a file")
    if size > MOST_BYTES:
        raise DataError(f"{quoted_name(path)}: {size >> 20} MiB, more than {MOST_BYTES >> 20}: convert it in parts")
