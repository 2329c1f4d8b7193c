"""What a container's index promises, against what is there: fragments that were cut off, edit lists."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from posecli.media.span import Span
from posecli.media.video import VideoReader
from tests.media_factory import picture

FRAMES = 40


def fragmented(path: Path, flags: str, bf: int) -> Path:
    with av.open(str(path), "w", format="mp4", options={"movflags": flags}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10", "bf": str(bf)})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(seed=i), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def boxes(content: bytes) -> list[tuple[bytes, int, int]]:
    """Kind, first and last byte of each box."""
    place, found = 0, []
    while place + 8 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        found.append((content[place + 4 : place + 8], place, place + size))
        place += size
    return found


@pytest.mark.parametrize("bf", [0, 2])
@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe", "dash+frag_keyframe"])
def test_all_frames_of_a_fragment_that_was_cut_are_missing(tmp_path: Path, flags: str, bf: int) -> None:
    path = fragmented(tmp_path / "a.mp4", flags, bf)
    content = path.read_bytes()
    with VideoReader(path) as reader:
        assert (len(list(reader)), reader.lost_frames) == (FRAMES, 0)
    data = [(first, last) for kind, first, last in boxes(content) if kind == b"mdat"]
    for number, (first, last) in enumerate(data):
        path.write_bytes(content[: first + (last - first) // 2])
        with VideoReader(path) as reader:
            kept = len(list(reader))
            # Nothing tells of the fragments after this one.
            assert 10 * number <= kept < 10 * (number + 1)
            assert kept + reader.lost_frames == 10 * (number + 1)


def test_an_index_of_fragments_tells_of_those_that_are_gone(tmp_path: Path) -> None:
    path = fragmented(tmp_path / "a.mp4", "frag_keyframe+empty_moov+default_base_moof+global_sidx", 2)
    content = path.read_bytes()
    with VideoReader(path) as reader:
        assert (len(list(reader)), reader.lost_frames) == (FRAMES, 0)
    for kind, first, last in boxes(content):
        if kind in (b"mdat", b"moof") and first > 2000:
            path.write_bytes(content[: (first + last) // 2])
            with VideoReader(path) as reader:
                kept = len(list(reader))
                assert kept + reader.lost_frames == FRAMES


def test_a_cut_file_opens_where_its_index_leads_nowhere(tmp_path: Path) -> None:
    path = fragmented(tmp_path / "a.mp4", "dash+frag_keyframe", 2)
    content = path.read_bytes()
    for _, first, last in [box for box in boxes(content) if box[0] in (b"sidx", b"moof")][2:]:
        for cut in (first, first + 20, last):
            path.write_bytes(content[:cut])
            with VideoReader(path) as reader:
                assert len(list(reader)) % 10 == 0


def edited(path: Path, edits: list[tuple[int, int]], bf: int = 2) -> Path:
    """A clip of 24 frames whose edit list shows these frames: number of the first and how many."""
    with av.open(str(path), "w", options={"video_track_timescale": "25000"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "6", "bf": str(bf)})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(seed=i), format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    at = content.index(b"elst") - 4
    size = int.from_bytes(content[at : at + 4], "big")
    start = int.from_bytes(content[at + 20 : at + 24], "big")
    entries = b"".join(
        (40 * count).to_bytes(4, "big") + (start + 1000 * first).to_bytes(4, "big") + b"\0\1\0\0"
        for first, count in edits
    )
    table = b"elst" + bytes(4) + len(edits).to_bytes(4, "big") + entries
    grown = len(table) + 4 - size
    new = bytearray(content[:at] + (len(table) + 4).to_bytes(4, "big") + table + content[at + size :])
    for box in (b"moov", b"trak", b"edts"):  # it lies behind the pictures: their places stay
        place = new.index(box) - 4
        new[place : place + 4] = (int.from_bytes(new[place : place + 4], "big") + grown).to_bytes(4, "big")
    path.write_bytes(new)
    return path


EDITS = [
    ([(0, 24)], 0),
    ([(6, 18)], 6),
    ([(0, 9), (0, 9)], 15),
    ([(0, 9)] * 4, 15),
    ([(12, 12), (0, 12)], 0),
    ([(12, 6), (0, 6)], 12),
    ([(0, 6), (12, 6)], 12),
    ([(18, 6), (12, 6), (6, 6), (0, 6)], 0),
]


@pytest.mark.parametrize("bf", [0, 2])
@pytest.mark.parametrize(("edits", "hidden"), EDITS)
def test_hidden_frames_are_those_that_no_edit_shows(
    tmp_path: Path, edits: list[tuple[int, int]], hidden: int, bf: int
) -> None:
    path = edited(tmp_path / "a.mp4", edits, bf)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert (reader.hidden, reader.lost_frames) == (hidden, 0)
        assert any("hidden" in line for line in reader.warnings) == (hidden > 0)
    assert [frame.index for frame in frames] == list(range(sum(count for _, count in edits)))
    assert all(b.time > a.time for a, b in pairwise(frames))
    with VideoReader(path, Span(start=Fraction(1, 5))) as reader:
        assert [frame.index for frame in reader] == list(range(5, len(frames)))
