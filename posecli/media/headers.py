"""Format and size of an image from the first bytes of its file."""

import re
import struct

# Bytes that are needed to recognise a format.
START = 4096

_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Camera raw files that differ from TIFF in their first bytes; others are recognised by the TIFF's tags.
_RAW = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"HEAPCCDR")
_AVIF_BRANDS = frozenset([b"avif"])
_HEIF_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avci", b"vvic", b"j2ki", b"jpeg"])
_SEQUENCE_BRANDS = frozenset([b"avis", b"msf1", b"hevc", b"hevx", b"hevm", b"hevs", b"avcs"])
# Possible sizes of a BMP's DIB header.
_DIB_SIZES = frozenset([12, 16, 40, 52, 56, 64, 108, 124])

_GAP = rb"(?:\s|#[^\n]*\n)+"
_NUMBER = rb"0*[1-9]\d{0,9}"
_PNM_BITS = re.compile(rb"P([14])" + _GAP + _NUMBER + _GAP + _NUMBER + rb"\s")
_PNM_LEVELS = re.compile(rb"P([2356])" + _GAP + _NUMBER + _GAP + _NUMBER + _GAP + rb"0*[1-9]\d{0,4}\s")

# Photo formats that are recognised but not read.
REFUSED = {
    "HEIF": "HEIC, which this build does not read: convert it to JPEG first",
    "JPEG XL": "JPEG XL, which this build does not read: convert it to JPEG first",
    "RAW": "a camera's raw file, which is not read: convert it to JPEG or TIFF first",
}

# Other image formats that are not read. In folders they are skipped.
_OTHERS = (
    (b"8BPS", "a Photoshop document (PSD), which is not read: export it as JPEG, PNG or TIFF"),
    (b"%PDF", "a PDF document, which is not read: export its pictures as JPEG or PNG"),
    (b"v/1\x01", "OpenEXR, which is not read: convert it to JPEG or PNG"),
    (b"#?RADIANCE", "Radiance HDR, which is not read: convert it to JPEG or PNG"),
    (b"#?RGBE", "Radiance HDR, which is not read: convert it to JPEG or PNG"),
    (b"qoif", "QOI, which is not read: convert it to PNG"),
    (b"DDS ", "a DirectDraw texture (DDS), which is not read: convert it to PNG"),
    (b"AT&TFORM", "DjVu, which is not read: export its pictures as JPEG or PNG"),
    (b"gimp xcf", "a GIMP document (XCF), which is not read: export it as JPEG or PNG"),
)


def photo_format(start: bytes) -> str | None:
    """The format of a photo from the file's first START bytes, None for other files.

    One of JPEG, PNG, BMP, TIFF, WebP, PNM, JPEG 2000, AVIF, HEIF, JPEG XL, RAW; some of them cannot be read. Sequences
    of AVIF and HEIF images are videos.
    """
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start.startswith(_RAW) or (start.startswith(_TIFF) and start[8:10] == b"CR"):
        return "RAW"
    if start.startswith(_TIFF):
        return "TIFF"
    if start.startswith(_JPEG_2000) or start[4:12] == b"jP  \r\n\x87\n":
        return "JPEG 2000"
    if start.startswith(_JPEG_XL):
        return "JPEG XL"
    if start.startswith(b"BM"):
        return "BMP" if _is_bmp(start) else None
    if start.startswith(b"P"):
        return "PNM" if _is_pnm(start) else None
    return _of_boxes(start) if start[4:8] == b"ftyp" else None


def other_format(start: bytes) -> str | None:
    """A description of an image format that is neither a photo nor a video here; None where it is unknown."""
    for magic, words in _OTHERS:
        if start.startswith(magic):
            return words
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text):
        return "SVG, vector graphics, which are not read: export it as PNG"
    return None


def _of_boxes(start: bytes) -> str | None:
    """AVIF, HEIF or Canon's CR3 by the brands of an ISO base media file."""
    size = min(int.from_bytes(start[:4], "big"), len(start), 512)
    brands = {start[8:12], *(start[i : i + 4] for i in range(16, size, 4))}
    if b"crx " in brands:
        return "RAW"
    if brands & _SEQUENCE_BRANDS:
        return None
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None


def _is_bmp(start: bytes) -> bool:
    """Whether it is a BMP, not a text that starts with BM."""
    if len(start) < 26:
        return False
    offset, size = struct.unpack("<II", start[10:18])
    if size not in _DIB_SIZES or not 14 + size <= offset <= 1 << 20:
        return False
    planes = struct.unpack("<H", start[22:24] if size == 12 else start[26:28])[0] if len(start) >= 28 else 1
    return bool(planes == 1)


def _is_pnm(start: bytes) -> bool:
    """Whether it is a PNM, not a text that starts with P1."""
    match = _PNM_BITS.match(start) or _PNM_LEVELS.match(start)
    if match is None:
        return False
    rest = start[match.end() :]
    if match[1] in b"123":
        return re.fullmatch(rb"(?:[\d\s]|#[^\n]*(?:\n|$))*", rest) is not None
    if re.fullmatch(rb"[\t\r\n\x20-\x7e]+", rest) is None:
        return True
    # Pixel data that are valid text: only if their length is that of the header.
    return len(start) == min(data_length(start) or 0, START)


def data_length(content: bytes) -> int | None:
    """Expected number of bytes of an uncompressed BMP or a binary PNM; None for other files."""
    if content.startswith(b"BM") and len(content) >= 54:
        offset, size, width, height, _, bits, compression = struct.unpack("<IIiiHHI", content[10:34])
        if size < 40 or compression not in (0, 3):
            return None
        return int(offset + -(-abs(width) * bits // 32) * 4 * abs(height))
    match = _PNM_BITS.match(content) or _PNM_LEVELS.match(content)
    if match is None or match[1] in b"123":
        return None
    header = re.sub(rb"#[^\n]*\n", b"\n", match[0])
    width, height, most = (int(number) for number in [*header.split()[1:], b"1"][:3])
    row = -(-width // 8) if match[1] == b"4" else width * (3 if match[1] == b"6" else 1) * (2 if most > 255 else 1)
    return match.end() + row * height


def stored_size(content: bytes | bytearray) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG, JPEG, GIF, BMP, WebP or TIFF; None where it is not found."""
    if content.startswith(b"\x89PNG") and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return int(width), int(height)
    if content.startswith(b"GIF8") and len(content) >= 10:
        width, height = struct.unpack("<HH", content[6:10])
        return int(width), int(height)
    if content.startswith(b"BM") and len(content) >= 26:
        if content[14] == 12:
            width, height = struct.unpack("<HH", content[18:22])
            return int(width), int(height)
        width, height = struct.unpack("<ii", content[18:26])
        return abs(int(width)), abs(int(height))
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP" and len(content) >= 30:
        return _webp_size(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_size(content)
    if content[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(content)
    return None


def _webp_size(content: bytes | bytearray) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", content[26:30])
    return int(width) & 0x3FFF, int(height) & 0x3FFF


def _jpeg_size(content: bytes | bytearray) -> tuple[int, int] | None:
    place = 2
    while place + 9 < len(content):
        if content[place] != 0xFF:
            return None
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in (0x01, *range(0xD0, 0xD9)):
            place += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[place + 5 : place + 9])
            return int(width), int(height)
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def _tiff_size(content: bytes | bytearray) -> tuple[int, int] | None:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (place,) = struct.unpack(order + "I", content[4:8])
        (count,) = struct.unpack(order + "H", content[place : place + 2])
        sides = {}
        for i in range(count):
            entry = content[place + 2 + 12 * i : place + 14 + 12 * i]
            tag, kind = struct.unpack(order + "HH", entry[:4])
            if tag in (256, 257):
                sides[tag] = struct.unpack(order + ("H" if kind == 3 else "I"), entry[8 : 10 if kind == 3 else 12])[0]
        return int(sides[256]), int(sides[257])
    except (struct.error, KeyError):
        return None
