"""Whether a file is a photo or a video: by its first bytes, and where these do not decide, by FFmpeg."""

import codecs
import contextlib
import re
from pathlib import Path

from posecli.media.animation import is_animation
from posecli.media.headers import photo_format

_PHOTO = "jpg jpeg jpe png webp bmp dib tif tiff avif heic heif jp2 jxl pgm ppm pbm pnm"
_VIDEO = (
    "mp4 m4v mov qt f4v 3gp 3g2 mkv mk3d webm avi divx gif mpg mpeg mpe m1v m2v m2p vob ts mts m2ts m2t trp wmv asf "
    "flv ogv ogm mxf gxf rm rmvb nut dv dav y4m ivf obu h264 264 h265 265 hevc mjpeg mjpg wtv amv"
)
_AUDIO = "mp3 m4a m4b mka aac ac3 eac3 dts flac wav aif aiff oga ogg opus wma amr caf ape wv mid spx"
# Suffixes of files in folders that FFmpeg does not need to try.
_NEITHER = (
    "zip gz bz2 xz zst 7z rar tar jar apk whl exe dll so dylib o a pyc pyd class wasm npy npz pt pth ckpt bin onnx "
    "safetensors pkl pickle h5 hdf5 mat parquet arrow feather tfrecord db sqlite sqlite3 pdf doc docx xls xlsx ppt "
    "pptx odt ods odp ttf otf woff woff2 eot ico cur icc iso img dmg pack idx blend psd xcf ai"
)
PHOTO_SUFFIXES = frozenset(f".{suffix}" for suffix in _PHOTO.split())
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEO.split())
_AUDIO_SUFFIXES = frozenset(f".{suffix}" for suffix in _AUDIO.split())
_NO_SUFFIXES = frozenset(f".{suffix}" for suffix in _NEITHER.split())
# Suffixes of videos that are also those of source code: TypeScript, Squirrel.
_SOURCE_SUFFIXES = frozenset([".ts", ".mts", ".nut"])

_START = 4096
# Bytes in which the second image of an MJPEG stream is searched, with and without a photo's suffix.
_REACH = 1 << 20
_FAR_REACH = 1 << 26
# Consecutive JPEGs that are a stream whatever the suffix; two may be a photo with a second view.
_STREAM = 3

_BOXES = frozenset(
    b"ftyp moov mdat wide free skip pnot styp sidx ssix moof uuid junk emsg prft PICT pdin mfra".split(b" ")
)
_MAGIC = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"OggS",
    b"GIF87a",
    b"GIF89a",
    b"\0\0\x01\xba",  # MPEG program stream
    b"\0\0\x01\xb3",  # MPEG-1 and -2 video
    b"0&\xb2u\x8ef\xcf\x11",  # ASF
    b"\x06\x0e+4",  # MXF
    b"DKIF\0\0",  # IVF
    b"YUV4MPEG2 ",
    b"nut/multimedia container",
    b".RMF\0\0\0",
)
_MULTIPART = re.compile(
    rb"\s*--[^\r\n]{1,100}\r?\n(?:[\w-]+:[^\r\n]*\r?\n)*?content-type:\s*image/jpe?g", re.IGNORECASE
)


def sniff(path: Path, *, in_folder: bool = False) -> str:
    """ "photo", "video" or "unknown".

    Where the first bytes do not decide, FFmpeg tries to open it. in_folder: the file was found in a folder; text and
    files with the suffix of another format are then not tried. Raises OSError where it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_START)
        file.seek(0)
        animated = is_animation(file)
    suffix = path.suffix.lower()
    kind = "video" if animated else _by_start(start, size)
    if kind == "photo" and start.startswith(b"\xff\xd8\xff"):
        named = suffix not in PHOTO_SUFFIXES
        return "video" if _is_mjpeg(path, _FAR_REACH if named else _REACH, 2 if named else _STREAM) else "photo"
    if kind == "video" and in_folder and suffix in _AUDIO_SUFFIXES:
        return "video" if _opens(path) else "unknown"
    if kind != "unknown" or not start:
        return kind
    if in_folder and (is_text(start) or suffix in _NO_SUFFIXES | _AUDIO_SUFFIXES):
        return "unknown"
    return "video" if _opens(path) else "unknown"


def has_media_suffix(path: Path) -> bool:
    """Whether a file that is neither photo nor video has the suffix of one, so that it is reported and not skipped.

    Unreadable files are reported, too.
    """
    suffix = path.suffix.lower()
    if suffix in _SOURCE_SUFFIXES:
        with contextlib.suppress(OSError), path.open("rb") as file:
            start = file.read(_START)
            return not start or not is_text(start)
    return suffix in PHOTO_SUFFIXES | VIDEO_SUFFIXES


def is_text(start: bytes) -> bool:
    """Whether the first bytes of a file are text, in UTF-8, UTF-16 or an 8-bit encoding."""
    if start.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    control = sum(start.count(code) for code in range(32) if code not in b"\t\n\f\r\x1b")
    if control:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        # Letters of an 8-bit Latin encoding are isolated among many ASCII ones.
        return sum(code > 127 for code in start) < 0.3 * len(start)
    return True


def _by_start(start: bytes, size: int) -> str:
    if photo_format(start) is not None:
        return "photo"
    return "video" if is_video(start, size) else "unknown"


def is_video(start: bytes, size: int) -> bool:
    """Whether a file with these first bytes and size is a video; False means unknown."""
    if start[4:8] in _BOXES:
        box = int.from_bytes(start[:4], "big")
        # A box to the end of the file has size 0, one of more than 4 GB size 1; mdat is often incomplete.
        if box in (0, 1) or 8 <= box <= size or start[4:8] in (b"ftyp", b"mdat"):
            return True
    if start.startswith(_MAGIC) or (start[:4] == b"RIFF" and start[8:12] in (b"AVI ", b"AVIX", b"AMV ")):
        return True
    for first in (0, 4):  # transport streams, plain and with a timestamp before each packet
        step = 188 + first
        if start[first : first + 2 * step + 1 : step] == b"GGG" and not is_text(start):
            return True
    return _MULTIPART.match(start) is not None


def _is_mjpeg(path: Path, reach: int, fewest: int) -> bool:
    """Whether at least `fewest` JPEGs of one size follow each other and are not views of one photo (MPO)."""
    with path.open("rb") as file:
        content = file.read(reach)
    place, found = 0, 0
    first: tuple[int, int] | None = None
    while content.startswith(b"\xff\xd8\xff", place):
        end, size, views = _jpeg(content, place)
        if views or size is None or (first is not None and size != first):
            return False
        first, found = size, found + 1
        if found >= fewest:
            return True
        if end is None:
            return False
        place = end
        while content[place : place + 1] == b"\0":  # padding of AVI and some cameras
            place += 1
    return False


def _jpeg(content: bytes, place: int) -> tuple[int | None, tuple[int, int] | None, bool]:
    """The end of the JPEG at an offset, its (height, width), and whether it declares further views."""
    size, views = None, False
    place += 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return None, size, views
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker == 0xD9:
            return place + 2, size, views
        elif marker in (0x01, *range(0xD0, 0xD9)):
            place += 2
        else:
            length = int.from_bytes(content[place + 2 : place + 4], "big")
            body = content[place + 4 : place + 2 + length]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            views = views or (marker == 0xE2 and body.startswith(b"MPF\0"))
            place += 2 + length
            if marker == 0xDA:
                # Compressed data end at a marker that is neither a stuffed FF nor a restart.
                after = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL).search(content, place)
                place = after.start() if after else len(content)
    if content[place : place + 2] == b"\xff\xd9":
        return place + 2, size, views
    return None, size, views


def _opens(path: Path) -> bool:
    """Whether FFmpeg finds a video stream and decodes a frame of it."""
    from av.error import FFmpegError

    from posecli.media.sources import VideoSource, open_source
    from posecli.media.streams import main_video_stream

    try:
        with open_source(VideoSource("file", str(path))) as container:
            stream = main_video_stream(container)
            if stream is None or stream.codec_context is None or container.format.name.endswith("_pipe"):
                return False
            return next(container.decode(stream), None) is not None
    except (FFmpegError, OSError, ValueError, IndexError):
        return False
