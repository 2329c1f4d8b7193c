"""Whether an encoder that needs a device works: found out before a run, by a frame."""

from fractions import Fraction

from posecli.errors import MachineError
from posecli.media.encoders import ENCODERS

# NVENC refuses smaller frames.
_SIDE = 256


def check_encoder(name: str) -> None:
    """Raise MachineError where the encoder, a name in ENCODERS, needs a device that is not there or does not work."""
    encoder = ENCODERS[name]
    if not encoder.hardware:
        return
    import av
    from av.error import FFmpegError
    from av.video.codeccontext import VideoCodecContext

    try:
        context = av.CodecContext.create(encoder.name, "w")
        assert isinstance(context, VideoCodecContext)
        context.width = context.height = _SIDE
        context.pix_fmt, context.framerate = "yuv420p", Fraction(25)
        context.options = dict(encoder.settings(20, "veryfast"))
        frame = av.VideoFrame(_SIDE, _SIDE, "yuv420p")
        frame.pts = 0
        packets = [*context.encode(frame), *context.encode(None)]
    except (FFmpegError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise MachineError(
            f"--encoder {name}: FFmpeg cannot use {encoder.name} here ({reason[:80]}); choose h264"
        ) from error
    if not packets:
        raise MachineError(f"--encoder {name}: {encoder.name} gives no packet here; choose h264")
