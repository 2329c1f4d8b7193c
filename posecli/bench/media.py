"""Core time of decoding and encoding alone, with the run's own readers and writers.

FFmpeg works in threads of its own, whose time no stage of a run sees.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from posecli.bench.costs import Duration, scaled, timed
from posecli.media.exif import metadata_of
from posecli.media.inputs import Input
from posecli.media.photos import PhotoReader
from posecli.media.video import VideoReader
from posecli.media.write_images import photo_name, write_image
from posecli.media.write_video import VideoWriter
from posecli.pipeline.run_options import RunOptions
from posecli.types import Frame

# Bytes of frames that are kept in memory to be encoded; the time of longer videos is scaled up.
MOST_BYTES = 400_000_000


@dataclass(frozen=True)
class MediaTime:
    """Time of decoding and encoding of inputs. sizes: (height, width) → number of frames."""

    decode: Duration = field(default_factory=Duration)
    encoding: Duration = field(default_factory=Duration)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __add__(self, other: "MediaTime") -> "MediaTime":
        return MediaTime(self.decode + other.decode, self.encoding + other.encoding, self.sizes + other.sizes)


def measure_media(item: Input, options: RunOptions, folder: Path) -> MediaTime:
    """Decode an input, then encode its frames into a folder, nothing else running. Raises MediaError."""
    return _photo(item, options, folder) if item.kind == "photo" else _video(item, options, folder)


def first_frames(item: Input, options: RunOptions, count: int = 1) -> list[Frame]:
    """The first frames of an input. Raises MediaError."""
    if item.kind == "photo":
        return list(islice(PhotoReader(item.path, max_pixels=options.max_pixels), count))
    with VideoReader(item.source, span=options.span) as reader:
        return list(islice(reader, count))


def _video(item: Input, options: RunOptions, folder: Path) -> MediaTime:
    sizes: Counter[tuple[int, int]] = Counter()

    def decode() -> None:
        with VideoReader(item.source, span=options.span) as reader:
            for frame in reader:
                sizes[frame.height, frame.width] += 1

    # Frames are not kept here: new memory for each would take time of its own.
    decoding = timed(decode)
    with VideoReader(item.source, span=options.span) as reader:
        kept = list(_within(MOST_BYTES, reader))

        def encode() -> None:
            with VideoWriter(folder / "alone.mp4", reader, options.encoding) as writer:
                for frame in kept:
                    if frame.time is not None:
                        writer.write(frame.pixels, frame.time)

        encoding = scaled(timed(encode), len(kept), sizes.total())
    return MediaTime(decoding, encoding, sizes)


def _within(most: int, frames: VideoReader) -> Iterator[Frame]:
    """The first frames that together have at most this many bytes, at least one."""
    for frame in frames:
        yield frame
        most -= frame.pixels.nbytes
        if most < frame.pixels.nbytes:
            return


def _photo(item: Input, options: RunOptions, folder: Path) -> MediaTime:
    whole, pages = MediaTime(), iter(PhotoReader(item.path, max_pixels=options.max_pixels))
    path = folder / f"alone{Path(photo_name(item.path.name)).suffix}"
    while True:
        read: list[Frame] = []

        def decode(read: list[Frame] = read) -> None:
            read.extend(islice(pages, 1))

        decoding = timed(decode)
        if not read:
            return whole + MediaTime(decoding)
        frame = read[0]
        encoding = timed(lambda frame=frame: write_image(path, frame.pixels, metadata=metadata_of(item.path)))  # type: ignore[misc]
        whole += MediaTime(decoding, encoding, Counter({(frame.height, frame.width): 1}))
