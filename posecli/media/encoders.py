"""Encoders of annotated videos and their options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from posecli.errors import UsageError

# x264's presets from fast to slow; other encoders' speeds are derived from the index.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class VideoEncoder:
    """An encoder of FFmpeg.

    name: FFmpeg's name. settings: (crf on x264's scale of 0 to 51, preset) → its options, which fix the number of
    threads, so that the same frames give the same bytes on any machine. tag: codec tag in MP4, None for FFmpeg's own.
    chroma: FFmpeg's name of the chroma sample location that is written into the stream. hardware: whether it needs a
    device (encoder_check); its bytes are those of that device and driver.
    """

    name: str
    settings: Callable[[int, str], Mapping[str, str]]
    tag: str | None = None
    chroma: str = "left"
    hardware: bool = False


def _h264(crf: int, preset: str) -> Mapping[str, str]:
    # With irregular timestamps x264's macroblock tree has a race with the lookahead thread about frame durations.
    params = "threads=2:mbtree=0"
    if preset == "veryfast":
        # A fifth to two fifths less time for 0.96 to 1.18 times the size and 0.1 to 0.8 dB: results/encoding.md.
        params += ":analyse=i4x4,i8x8:b-adapt=0"
    return {"crf": str(crf), "preset": preset, "threads": "2", "x264-params": params}


def _hevc(crf: int, preset: str) -> Mapping[str, str]:
    # x265 has about the quality of x264 at a crf that is higher by 2.
    params = "log-level=none:pools=2:frame-threads=1:info=0"
    return {"crf": str(min(51, crf + 2)), "preset": preset, "x265-params": params}


def _av1(crf: int, preset: str) -> Mapping[str, str]:
    speed = 12 - PRESETS.index(preset)
    return {"crf": str(max(1, min(63, round(crf * 1.4)))), "preset": str(speed), "svtav1-params": "lp=2"}


def _vp9(crf: int, preset: str) -> Mapping[str, str]:
    place = PRESETS.index(preset)
    speed = {"deadline": "realtime", "cpu-used": str(8 - place)} if place < 3 else {}
    speed = speed or {"deadline": "good", "cpu-used": str(8 - place)}
    return {"crf": str(min(63, round(crf * 1.5))), "b": "0", "threads": "2", "row-mt": "1", **speed}


def _nvenc(crf: int, preset: str) -> Mapping[str, str]:
    # p1 is the fastest, p7 the slowest.
    speed = 1 + round(PRESETS.index(preset) * 6 / (len(PRESETS) - 1))
    return {"rc": "constqp", "qp": str(crf), "preset": f"p{speed}", "bf": "0"}


ENCODERS: dict[str, VideoEncoder] = {
    "h264": VideoEncoder("libx264", _h264),
    "hevc": VideoEncoder("libx265", _hevc, "hvc1"),
    "av1": VideoEncoder("libsvtav1", _av1),
    "vp9": VideoEncoder("libvpx-vp9", _vp9, chroma="unspecified"),
    "h264_nvenc": VideoEncoder("h264_nvenc", _nvenc, hardware=True),
}


@dataclass(frozen=True)
class EncodeOptions:
    """How annotated videos are encoded. Field names are those of the command line's options.

    encoder: a name in ENCODERS. crf: quality on x264's scale, 0 to 51, lower is better, for each encoder. preset: a
    name in PRESETS. audio: keep the source's sound.

    Raises UsageError for values that do not exist.
    """

    encoder: str = "h264"
    crf: int = 20
    preset: str = "veryfast"
    audio: bool = True

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise UsageError(f"--encoder {self.encoder}: choose from {', '.join(ENCODERS)}")
        if not 0 <= self.crf <= 51:
            raise UsageError(f"--crf {self.crf}: must be 0 to 51")
        if self.preset not in PRESETS:
            raise UsageError(f"--preset {self.preset}: choose from {', '.join(PRESETS)}")
