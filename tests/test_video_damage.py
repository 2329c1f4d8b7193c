"""Damaged videos: nothing crashes, every decodable frame is kept, the loss is told to the frame."""

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError

from posecli.errors import MediaError
from posecli.media.lost_frames import FrameNumbers, Slots, Steps
from posecli.media.video import VideoReader
from tests.media_factory import picture, write_video

FRAMES = 80


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """80 noisy frames with a key frame every 10 and B-frames, in several containers and codecs."""
    folder = tmp_path_factory.mktemp("whole")
    noise = np.random.default_rng(0).integers(-20, 20, (FRAMES, 48, 64, 3))
    pictures = [np.clip(picture(seed=i) + noise[i], 0, 255).astype(np.uint8) for i in range(FRAMES)]
    h264 = {"g": "10", "bf": "2", "preset": "veryfast"}
    return {
        "h264.mp4": write_video(folder / "h264.mp4", FRAMES, options=h264, pictures=pictures),
        "h264.ts": write_video(folder / "h264.ts", FRAMES, options=h264, pictures=pictures),
        "h264.mkv": write_video(folder / "h264.mkv", FRAMES, options=h264, pictures=pictures),
        "mpeg4.avi": write_video(
            folder / "mpeg4.avi",
            FRAMES,
            codec="mpeg4",
            time_base=Fraction(1, 25),
            options={"g": "10"},
            pictures=pictures,
        ),
        "vp9.webm": write_video(folder / "vp9.webm", FRAMES, codec="libvpx-vp9", pictures=pictures),
    }


def plain(path: Path) -> list[int | None]:
    """Times of the frames that PyAV decodes, packet by packet."""
    times = []
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            for packet in container.demux(container.streams.video[0]):
                try:
                    times += [frame.pts for frame in packet.decode()]
                except FFmpegError:
                    continue
    except (FFmpegError, IndexError):
        pass
    return times


def cut(content: bytearray, chance: random.Random) -> None:
    del content[int(len(content) * chance.uniform(0.5, 0.9)) :]


def flip(content: bytearray, chance: random.Random) -> None:
    for _ in range(30):
        content[chance.randrange(len(content) // 4, len(content) * 3 // 4)] ^= 1 << chance.randrange(8)


def blank(content: bytearray, chance: random.Random) -> None:
    for _ in range(4):
        at = chance.randrange(len(content) // 4, len(content) * 3 // 4)
        content[at : at + 400] = bytes(400)


def head(content: bytearray, chance: random.Random) -> None:
    for _ in range(3):
        content[chance.randrange(400)] ^= 1 << chance.randrange(8)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.ts", "h264.mkv", "mpeg4.avi", "vp9.webm"])
@pytest.mark.parametrize("damage", [cut, flip, blank, head])
def test_what_can_be_decoded_is_kept(
    clips: dict[str, Path], tmp_path: Path, name: str, damage: Callable[[bytearray, random.Random], None]
) -> None:
    for seed in range(2):
        content = bytearray(clips[name].read_bytes())
        damage(content, random.Random(seed))
        path = tmp_path / name
        path.write_bytes(content)
        decodable = plain(path)
        try:
            with VideoReader(path) as reader:
                frames = list(reader)
        except MediaError as error:
            assert not decodable and "\n" not in str(error)
            continue
        assert len(frames) >= len(decodable)
        numbers = [frame.index for frame in frames]
        assert numbers == sorted(set(numbers))
        times = [frame.time for frame in frames]
        assert times == sorted(set(times))


def damaged(clip: Path, target: Path, packets: list[int]) -> Path:
    """The clip with some of its packets blank, by their place in decoding order."""
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for number in packets:
        position, size = places[number]
        content[position : position + size] = bytes(size)
    target.write_bytes(content)
    return target


def test_the_loss_is_told_to_the_frame_and_keeps_its_numbers(clips: dict[str, Path], tmp_path: Path) -> None:
    path = damaged(clips["h264.mp4"], tmp_path / "a.mp4", [15, 16, 42, 79])
    with VideoReader(clips["h264.mp4"]) as reader:
        times = [frame.time for frame in reader]
    with VideoReader(path) as reader:
        frames = list(reader)
        assert len(frames) + reader.lost_frames == FRAMES
        assert reader.lost_frames >= 4
    assert all(frame.time == times[frame.index] for frame in frames)


@pytest.mark.parametrize("share", [0.5, 0.7])
@pytest.mark.parametrize("suffix", ["mkv", "avi", "mp4"])
def test_a_cut_file_tells_how_much_it_lost(clips: dict[str, Path], tmp_path: Path, suffix: str, share: float) -> None:
    clip = clips["mpeg4.avi" if suffix == "avi" else f"h264.{suffix}"]
    if suffix == "mp4":  # its index must be in front
        clip = tmp_path / "front.mp4"
        with (
            av.open(str(clips["h264.mp4"])) as reader,
            av.open(str(clip), "w", options={"movflags": "faststart"}) as to,
        ):
            stream = to.add_stream_from_template(reader.streams.video[0])
            for packet in reader.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    to.mux(packet)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * share)])
    with VideoReader(path) as reader:
        kept = len(list(reader))
        assert 5 < kept < FRAMES
        assert kept + reader.lost_frames == FRAMES


def test_a_transport_stream_without_some_packets_tells_what_it_lost(clips: dict[str, Path], tmp_path: Path) -> None:
    content = clips["h264.ts"].read_bytes()
    parts = [content[i : i + 188] for i in range(0, len(content), 188)]
    middle = len(parts) // 2
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(parts[:middle] + parts[middle + 40 :]))
    with VideoReader(path) as reader:
        kept = len(list(reader))
        assert kept < FRAMES
        assert kept + reader.lost_frames == FRAMES


def test_whole_videos_lose_nothing(clips: dict[str, Path]) -> None:
    for path in clips.values():
        with VideoReader(path) as reader:
            assert len(list(reader)) == FRAMES
            assert not reader.lost


def test_a_variable_rate_is_no_loss(tmp_path: Path) -> None:
    times = [40 * i for i in range(60) if i not in (7, 8, 30, 51)]
    for suffix in (".mkv", ".mp4", ".ts"):
        base = Fraction(1, 90000) if suffix == ".ts" else Fraction(1, 1000)
        path = write_video(
            tmp_path / f"a{suffix}", len(times), times=[int(t / base / 1000) for t in times], time_base=base
        )
        with VideoReader(path) as reader:
            assert len(list(reader)) == len(times)
            assert not reader.lost


def test_the_ledger_numbers_frames_by_their_packets() -> None:
    frame_numbers = FrameNumbers(10)
    for pts in (0, 3, 1, 2, 4, 5):
        frame_numbers.send(pts)
    assert [frame_numbers.show(pts) for pts in (0, 1, 3, 5)] == [10, 11, 13, 15]
    assert frame_numbers.sent == 16
    for pts in (6, 7, 8):
        frame_numbers.send(pts)
    assert [frame_numbers.show(pts) for pts in (None, 9)] == [16, 18]


def test_gaps_count_where_the_rest_is_regular() -> None:
    regular, varying = Steps(), Steps()
    times = [33, 66, 100, 133, 166, 200, 233, 266, 300, 400, 433, 466, 500]
    for i, time in enumerate(times * 1):
        regular.add(time, i if time < 400 else i + 1)  # one of the two missing has a number
        varying.add(time + i * i * 3, i)
    for steps in (regular, varying):
        steps.close()
    assert regular.missing() == 1
    assert varying.missing() is None


def test_gaps_far_from_damage_are_the_video_s_own() -> None:
    known: set[int] = set()
    steps = Steps(lambda pts: pts in known)
    for number, time in enumerate(t for t in range(0, 400, 10) if t not in (100, 250, 260)):
        steps.add(time, number)
        if time == 130:
            known.add(110)  # told only after the frame came out
    steps.close()
    assert steps.missing() == 1


def test_decoding_times_tell_what_is_missing_where_packets_share_one() -> None:
    """Packed B-frames after remuxing: two frames of one time, then a packet that only keeps the next one's place."""
    packets = [
        (0, True),
        (10, True),
        (20, True),
        (20, True),
        (30, False),
        (40, True),
        (50, True),
        (50, True),
        (60, False),
    ]

    def missing(left_out: set[int], near: set[int]) -> int | None:
        slots = Slots(lambda dts: dts in near)
        for number, (dts, shown) in enumerate(packets):
            if number not in left_out:
                slots.add(dts, shown)
        return slots.missing()

    assert missing(set(), set()) == 0
    assert missing({3}, set()) == 1  # one of a pair
    assert missing({5}, {30, 50}) == 1  # a gap near damage
    assert missing({5}, set()) == 0  # a gap of the video's own


def test_a_damaged_time_in_matroska_is_no_loss(tmp_path: Path) -> None:
    """A packet is destroyed, and the last cluster comes two seconds later: one frame is lost, not eleven."""
    times = [200 * i for i in range(60)]
    path = write_video(tmp_path / "a.mkv", len(times), times=times, options={"g": "10", "bf": "0"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][15]
        assert packet.pos is not None
        inside = slice(packet.pos + 16, packet.pos + packet.size)  # the block's own header stays
        content[inside] = bytes(packet.size - 16)
    # The cluster's Timestamp element: E7, its size, the value in milliseconds.
    place = content.index(b"\xe7", content.rindex(b"\x1f\x43\xb6\x75"))
    size = content[place + 1] & 0x7F
    time = int.from_bytes(content[place + 2 : place + 2 + size], "big") + 2000
    content[place + 2 : place + 2 + size] = time.to_bytes(size, "big")
    path.write_bytes(content)
    with VideoReader(path) as reader:
        assert len(list(reader)) + reader.lost_frames == len(times)


def test_frames_that_an_edit_list_hides_are_told_and_no_loss(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30, options={"bf": "0"})
    with VideoReader(path) as reader:
        assert (len(list(reader)), reader.hidden, reader.warnings) == (30, 0, [])
        ticks = int(1 / 25 / reader.time_base)
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 16  # after version, flags, count and the entry's duration: where it starts
    content[place : place + 4] = (7 * ticks).to_bytes(4, "big")
    path.write_bytes(content)
    with VideoReader(path) as reader:
        assert (len(list(reader)), reader.hidden, reader.lost_frames) == (23, 7, 0)
        assert reader.warnings == ["7 frames hidden by its edit list: left out, as players do"]
