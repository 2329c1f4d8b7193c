"""Images in the orientation that their annotations refer to."""

import struct
from pathlib import Path

from posecli.annotations.document import Repairs, quoted_name
from posecli.errors import MediaError
from posecli.types import PixelArray

# Remarks on images; each is reported with its count.
TURNED = "stored turned (EXIF) without a width and height that tell how they are annotated: taken upright"
OTHER = "whose size is not the width and height in the file: annotations taken as of the picture as it stands upright"


def read_pixels(path: Path, size: tuple[int, int] | None) -> tuple[PixelArray, str]:
    """An image (height, width, 3) RGB in the pixel space of its annotations, and a remark: TURNED, OTHER or "".

    size: (width, height) according to the annotations. It decides whether the EXIF orientation is applied: not where
    only the stored image has this size; else, also without a size, it is, as in labelling tools and cv2.imread.
    Raises MediaError where it cannot be read.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise MediaError(f"{quoted_name(path)}: {getattr(error, 'strerror', None) or error}") from error
    from posecli.media.images import decode_image  # imports av, which training on packed crops does without

    pixels = decode_image(content, str(path))
    height, width = pixels.shape[:2]
    if size == (width, height):
        return pixels, TURNED if orientation_of(content) in (
            (2, 3, 4, 5, 6, 7, 8) if width == height else (2, 3, 4)
        ) else ""
    if size is None:
        return pixels, TURNED if orientation_of(content) > 1 else ""
    if size == (height, width):
        stored = decode_image(content, str(path), ignore_orientation=True)
        if stored.shape[:2] == (width, height):
            return stored, ""
    return pixels, OTHER


def orientation_of(content: bytes) -> int:
    """The EXIF orientation of an encoded image, 1 to 8; 1 where it has none."""
    place = content.find(b"Exif\0\0", 0, 1 << 17)
    tiff = content[place + 6 :][: 1 << 16] if place >= 0 else b""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def add_remark(repairs: Repairs, remark: str, path: Path) -> None:
    """Count a remark of read_pixels."""
    if remark:
        repairs.add("image", remark, quoted_name(path))
