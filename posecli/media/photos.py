"""Reading of all pages of a photo, upright, with damage and lost pages."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from posecli.errors import MediaError
from posecli.media import tiff
from posecli.media.damage import CUT_OFF, cut_jpeg, examine_jpeg, repair_png
from posecli.media.headers import REFUSED, START, photo_format, stored_size
from posecli.media.heif import apply_transforms
from posecli.media.images import DEFAULT_MAX_PIXELS, decode_image
from posecli.types import Frame, PixelArray


class PhotoReader:
    """Iterate it once for the images of a photo's file: one, or the pages of a TIFF.

    damage: damage of an image that is used nevertheless, else None. lost: reason → number of pages that could not be
    read. Both are complete after the last image.

    Raises MediaError during iteration in the same cases as read_image.
    """

    def __init__(self, path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self._path, self._max_pixels = path, max_pixels
        self.damage: str | None = None
        self.lost: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Frame]:
        """Frames without times; index: the page, from 0."""
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise MediaError(f"{self._path}: {error.strerror}") from error
        name = str(self._path)
        if photo_format(content[:START]) == "TIFF":
            yield from self._pages(content, name)
            return
        pixels, self.damage = decode_photo(content, name, max_pixels=self._max_pixels)
        del content
        yield Frame(pixels)

    def _pages(self, content: tiff.Data, name: str) -> Iterator[Frame]:
        if tiff.is_raw(content):
            raise MediaError(f"{name}: a camera's raw file (DNG, NEF, ARW …): convert it to JPEG or TIFF first")
        pages = tiff.pages(content)
        if len(pages) <= 1:
            pixels, self.damage = self._page(content, pages[0] if pages else None, name)
            del content
            yield Frame(pixels)
            return
        content = bytearray(content)
        reasons: list[str] = []
        for index, page in enumerate(pages):
            try:
                pixels, damage = self._page(content, page, f"{name}: page {index + 1}")
            except MediaError as error:
                reasons.append(str(error))
                self.lost["pages cannot be decoded"] += 1
                continue
            if damage is not None:
                self.damage = self.damage or f"page {index + 1}: {damage}"
            yield Frame(pixels, index)
            del pixels
        if len(reasons) == len(pages):
            raise MediaError(reasons[0])

    def _page(self, content: tiff.Data, page: tiff.Directory | None, name: str) -> tuple[PixelArray, str | None]:
        if page is None:
            return decode_image(content, name, max_pixels=self._max_pixels), None
        if page.area > self._max_pixels:
            limit = f"over the limit of {self._max_pixels} (--max-pixels)"
            raise MediaError(f"{name}: {page.width}x{page.height} pixels are {limit}")
        data, damage = tiff.starting_with(content, page), None
        if page.end > len(data):
            raise MediaError(f"{name}: damaged, cut off: {len(data):,} of {page.end:,} bytes are there")
        if broken := tiff.broken_strips(content, page):
            if broken == len(page.strips):
                raise MediaError(f"{name}: damaged, its compressed data cannot be read")
            damage = f"damaged: {broken} of its {len(page.strips)} strips cannot be read"
        return decode_image(data, name, max_pixels=self._max_pixels), damage


def decode_photo(content: bytes, name: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[PixelArray, str | None]:
    """The upright image of an encoded photo (height, width, 3) uint8 RGB, and its damage, if any.

    A damaged image is used if a part of it can be decoded. Raises MediaError otherwise, and for a truncated file.
    """
    kind = photo_format(content[:START])
    if kind in REFUSED:
        raise MediaError(f"{name}: {REFUSED[kind]}")
    damage: str | None = None
    if kind == "JPEG":
        size = stored_size(content)
        if size is None or size[0] * size[1] <= max_pixels:
            content, damage = examine_jpeg(content)
            if damage == CUT_OFF:
                raise MediaError(f"{name}: {CUT_OFF}")
    if kind == "AVIF":
        stored = decode_image(content, name, max_pixels=max_pixels, ignore_orientation=True)
        return apply_transforms(stored, content), None
    try:
        return decode_image(content, name, max_pixels=max_pixels), damage
    except MediaError:
        size = stored_size(content)
        if size is not None and size[0] * size[1] > max_pixels:
            raise
        if kind == "JPEG" and damage is not None and (cut := cut_jpeg(content)) is not None:
            content = cut
        elif kind == "PNG" and (repaired := repair_png(content, 8 * max_pixels)) is not None:
            content, damage = repaired
        else:
            raise
    return decode_image(content, name, max_pixels=max_pixels), damage
