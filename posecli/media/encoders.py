"""Codecs of annotated videos: what a quality and a preset mean to each encoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# x264's names, from quick to thorough; the other encoders' own speeds are found by their place here.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class VideoEncoder:
    """An encoder. settings: (crf on x264's scale of 0 to 51, preset) → its options. tag: MP4's name for the stream.

    chroma: where decoders take chroma to sit, left of the middle unless the stream says otherwise.
    The options fix the number of threads: with it the same frames give the same bytes on any machine.
    """

    encoder: str
    settings: Callable[[int, str], Mapping[str, str]]
    tag: str | None = None
    chroma: str = "left"


def _h264(crf: int, preset: str) -> Mapping[str, str]:
    # With real timestamps x264's macroblock tree races the lookahead thread for the durations of frames.
    return {"crf": str(crf), "preset": preset, "threads": "2", "x264-params": "threads=2:mbtree=0"}


def _hevc(crf: int, preset: str) -> Mapping[str, str]:
    # x265 looks like x264 at about 2 more.
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


ENCODERS: dict[str, VideoEncoder] = {
    "h264": VideoEncoder("libx264", _h264),
    "hevc": VideoEncoder("libx265", _hevc, "hvc1"),
    "av1": VideoEncoder("libsvtav1", _av1),
    "vp9": VideoEncoder("libvpx-vp9", _vp9, chroma="unspecified"),
}
