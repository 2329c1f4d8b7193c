"""Sources of videos: a file, numbered images, standard input, a pipe, a network stream, a webcam."""

import glob
import math
import os
import re
import stat
import sys
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

from posecli.media.pipes import is_fragmented, open_forward_only, open_pipe
from posecli.remote import FFMPEG_SCHEMES

if TYPE_CHECKING:
    from av.container import InputContainer

Kind = Literal["file", "images", "stdin", "pipe", "url", "webcam"]

# Frame rate of numbered images, FFmpeg's default.
IMAGES_RATE = Fraction(25)
# Images whose numbers are this far apart on average are not consecutive: numbers between them are not missing.
_SPARSE = 10
# Seconds without data after which a network source is closed.
NETWORK_TIMEOUT = 20.0

# Formats that files are not opened as. Playlists and session descriptions refer to other files and addresses, which an
# attacker could choose; texts and raw data would be decoded as images.
_REFUSED_NAMES = (
    "concat hls applehttp dash sdp imf webm_dash_manifest image2 image2pipe lavfi rtsp rtp rtp_mpegts sap avisynth "
    "vapoursynth vobsub tty bin xbin adf idf aqtitle ass jacosub lrc mcc microdvd mpl2 mpsub pjs realtext sami scc srt "
    "stl subviewer subviewer1 tedcaptions vplayer webvtt ttml ffmetadata svg_pipe xpm_pipe xbm_pipe txd rawvideo "
    "bitpacked v210 v210x data"
)
_REFUSED = frozenset(_REFUSED_NAMES.split())

_NUMBER = re.compile(r"%(?:0(\d+))?d")
_IMAGES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".pgm", ".ppm", ".pbm", ".tga"])
_WEBCAM = re.compile(r"webcam:(\d+)")


@dataclass(frozen=True)
class VideoSource:
    """A source of frames. address: as the user gave it. shown: the same without a password."""

    kind: Kind
    address: str

    @property
    def live(self) -> bool:
        """Whether it is a live source, which can be read only once."""
        if self.kind == "url":
            return not self.address.lower().startswith("http")
        return self.kind in ("stdin", "pipe", "webcam")

    @property
    def shown(self) -> str:
        """The address without a password, for messages."""
        if self.kind == "stdin":
            return "standard input"
        if self.kind != "url":
            return self.address
        parts = urlsplit(self.address)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))

    @property
    def name(self) -> str:
        """The file name for its output."""
        if self.kind == "stdin" or self.address == "/dev/stdin":
            return "stdin"
        if self.kind == "pipe":
            path = Path(self.address)
            return f"pipe-{path.name}" if path.name.isdigit() else path.name
        if self.kind == "webcam":
            return re.sub(r"\W+", "-", self.address.removeprefix("/dev/"))
        if self.kind == "url":
            parts = urlsplit(self.address)
            words = f"{parts.hostname or parts.scheme} {PurePosixPath(parts.path).name}"
            return re.sub(r"[^\w.]+", "-", words).strip("-.")
        path = Path(self.address)
        if self.kind == "file":
            return path.name
        stem = _NUMBER.sub("", path.stem).rstrip("_-. ") or path.absolute().parent.name
        return f"{stem}{path.suffix}"

    def numbered_images(self) -> dict[int, Path]:
        """The files of numbered images by their index in the clip, in order; empty for other kinds.

        The lowest number has index 0; missing numbers leave gaps. Numbers with a constant step, or far apart without
        one (see `sparse`), only define the order.
        """
        files = self._numbered()
        return dict(zip(_places([*files]), files.values(), strict=True))

    @property
    def sparse(self) -> bool:
        """Whether the images' numbers are far apart, such as timestamps, so that gaps are not missing images."""
        return _is_sparse([*self._numbered()])

    def _numbered(self) -> dict[int, Path]:
        if self.kind != "images":
            return {}
        path = Path(self.address)
        start, end = _place(path.name)
        numbered = re.compile(re.escape(path.name[:start]) + r"([0-9]+)" + re.escape(path.name[end:]))
        found = [
            (numbered.fullmatch(file.name), file) for file in path.parent.glob(f"{glob.escape(path.name[:start])}*")
        ]
        files = {int(match[1]): file for match, file in found if match and file.name == path.name % int(match[1])}
        return {number: files[number] for number in sorted(files)}


def _places(numbers: list[int]) -> list[int]:
    if _is_sparse(numbers):
        return [*range(len(numbers))]
    return [(number - numbers[0]) // _step(numbers) for number in numbers]


def _is_sparse(numbers: list[int]) -> bool:
    return bool(numbers) and (numbers[-1] - numbers[0]) // _step(numbers) >= _SPARSE * len(numbers)


def _step(numbers: list[int]) -> int:
    return math.gcd(*(b - a for a, b in pairwise(numbers))) if len(numbers) > 2 else 1


def _place(name: str) -> tuple[int, int]:
    match = _NUMBER.search(name)
    assert match is not None
    return match.span()


def source_of(text: Path | str) -> VideoSource:
    """The source of a path or an argument, without accessing the network. A Path, or an existing path, is a file."""
    address = str(text)
    if isinstance(text, Path):
        return VideoSource("file", address)
    if address == "-":
        return VideoSource("stdin", address)
    if _WEBCAM.fullmatch(address) or re.fullmatch(r"/dev/video\d+", address):
        return VideoSource("webcam", address)
    scheme, colon, _ = address.partition("://")
    if colon and scheme.lower() in FFMPEG_SCHEMES:
        return VideoSource("url", address)
    path = Path(address)
    if _is_pipe(path):
        return VideoSource("pipe", address)
    there = os.path.exists(path)  # noqa: PTH110 - Path.exists raises for names that are too long
    if len(_NUMBER.findall(path.name)) == 1 and path.suffix.lower() in _IMAGES and not there:
        return VideoSource("images", address)
    return VideoSource("file", address)


def _is_pipe(path: Path) -> bool:
    """Whether it is read like standard input: a named pipe, or a descriptor that the shell opened."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    opened = path.is_relative_to("/dev/fd") or path.is_relative_to("/proc/self/fd") or path == Path("/dev/stdin")
    return stat.S_ISFIFO(mode) or (opened and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode)))


def open_source(source: VideoSource, rate: Fraction = IMAGES_RATE) -> "InputContainer":
    """Open a source with FFmpeg. rate: frames per second of numbered images.

    Raises FFmpegError, OSError or ValueError where that fails.
    """
    import av

    options: dict[str, str]
    if source.kind in ("stdin", "pipe"):
        options = {"format_whitelist": _formats(), "protocol_whitelist": "pipe"}
        return av.open(open_pipe(source.address), "r", options=options, metadata_errors="ignore")
    if source.kind == "url":
        options = {"rtsp_transport": "tcp"} if source.address.lower().startswith("rtsp") else {}
        return av.open(source.address, "r", options=options, timeout=NETWORK_TIMEOUT, metadata_errors="ignore")
    if source.kind == "webcam":
        return _open_webcam(source.address)
    if source.kind == "images":
        first = next(iter(source.numbered_images().values()), None)
        if first is None:
            raise FileNotFoundError("no file matches this pattern")
        # Only for the stream's parameters: the decoder reads the images one by one, since FFmpeg ends at the first gap.
        options = {"framerate": str(rate), "pattern_type": "none"}
        return av.open(f"file:{first}", "r", format="image2", options=options, metadata_errors="ignore")
    return _open_file(Path(source.address))


def _open_file(path: Path) -> "InputContainer":
    import av

    from posecli.media.animation import convert_animation

    if (other := convert_animation(path)) is not None:
        return av.open(other[0], "r", format=other[1], metadata_errors="ignore")
    with path.open("rb") as file:
        jpeg = file.read(3) == b"\xff\xd8\xff"
    options = {"format_whitelist": _formats(), "protocol_whitelist": "file"}
    # With the protocol prefix a colon in a file name is not taken for a protocol.
    # A stream of JPEGs, which FFmpeg might open as a single image because of its suffix.
    form = "mjpeg" if jpeg else None
    try:
        return av.open(f"file:{path}", "r", format=form, options=options, metadata_errors="ignore")
    except av.InvalidDataError:
        # The index of a truncated fragmented MP4 lists missing fragments, which FFmpeg reads only if it can seek.
        if not is_fragmented(path):
            raise
        return av.open(open_forward_only(path), "r", options=options, metadata_errors="ignore")


@cache
def _formats() -> str:
    """The formats that FFmpeg may open files as."""
    import av

    return ",".join(sorted(av.formats_available - _REFUSED))


def _open_webcam(address: str) -> "InputContainer":
    import av

    match = _WEBCAM.fullmatch(address)
    number = match[1] if match else address.removeprefix("/dev/video")
    if sys.platform == "darwin":
        return av.open(number, "r", format="avfoundation", options={"framerate": "30"})
    if sys.platform == "win32":
        devices = [d.name for d in av.enumerate_input_devices("dshow") if "video" in d.media_types]
        if int(number) >= len(devices):
            raise ValueError(f"there is no webcam {number}")
        return av.open(f"video={devices[int(number)]}", "r", format="dshow")
    return av.open(f"/dev/video{number}", "r", format="v4l2")
