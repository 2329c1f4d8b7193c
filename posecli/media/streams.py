"""Choice of a container's main video stream."""

from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

# Attached still images, and streams that depend on another one.
_ASIDE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent | Disposition.still_image
_IMAGES = frozenset(["mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpeg2000", "jpegls"])


def main_video_stream(container: InputContainer) -> VideoStream | None:
    """The container's main video: FFmpeg's best stream without cover images and thumbnails; None without any.

    FFmpeg considers default flags, bit rates and numbers of frames. Where these are equal, the stream with the largest
    frames is taken, like ffmpeg without -map.
    """
    videos = [stream for stream in container.streams.video if stream.codec_context is not None]
    found = [stream for stream in videos if not stream.disposition & _ASIDE]
    found = found or [stream for stream in videos if not stream.disposition & Disposition.attached_pic]
    if len(found) < 2:
        return found[0] if found else None
    best = container.streams.best("video")
    default = [stream for stream in found if stream.disposition & Disposition.default] or found
    if best not in default:
        best = max(default, key=_frames)
    assert isinstance(best, VideoStream)
    for stream in default:
        alike = stream.frames == best.frames or (_frames(stream) > 1 and stream.bit_rate == best.bit_rate)
        if alike and _is_moving(stream) >= _is_moving(best) and _area(stream) > _area(best):
            best = stream
    return best


def _frames(stream: VideoStream) -> int:
    return stream.frames or 1 << 62  # unknown in containers without an index


def _is_moving(stream: VideoStream) -> bool:
    return stream.codec_context.name not in _IMAGES


def _area(stream: VideoStream) -> int:
    return stream.codec_context.width * stream.codec_context.height
