"""What is opened: whatever FFmpeg reads, and nothing that would read something else."""

import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import pytest

from posecli.errors import MediaError
from posecli.media.inputs import find_inputs
from posecli.media.sniff import sniff
from posecli.media.sources import source_of
from posecli.media.video import VideoReader
from tests.media_factory import picture, write_photo, write_video

FRAMES = 6


def raw(path: Path, codec: str, form: str, pix_fmt: str = "yuv420p", size: tuple[int, int] = (64, 48)) -> Path:
    """A clip in a format that its suffix need not name."""
    options = {"libx264": {"g": "5", "bf": "2"}, "libx265": {"x265-params": "log-level=none"}}.get(codec, {})
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(*size, i), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


RAW = [
    ("libx264", "h264", "yuv420p", (64, 48)),
    ("libx265", "hevc", "yuv420p", (64, 48)),
    ("libvpx", "ivf", "yuv420p", (64, 48)),
    ("wrapped_avframe", "yuv4mpegpipe", "yuv420p", (64, 48)),
    ("mpeg4", "nut", "yuv420p", (64, 48)),
    ("dvvideo", "dv", "yuv420p", (720, 576)),
    ("mpeg2video", "mpeg2video", "yuv420p", (64, 48)),
    ("mpeg2video", "vob", "yuv420p", (64, 48)),
    ("mjpeg", "mjpeg", "yuvj420p", (64, 48)),
    ("mjpeg", "mpjpeg", "yuvj420p", (64, 48)),
]


@pytest.mark.parametrize(("codec", "form", "pix_fmt", "size"), RAW)
def test_raw_streams_are_videos_whatever_they_are_called(
    tmp_path: Path, codec: str, form: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    path = raw(tmp_path / f"clip.{form}", codec, form, pix_fmt, size)
    nameless = path.with_name("nameless")
    nameless.write_bytes(path.read_bytes())
    assert {item.name: item.kind for item in find_inputs([str(tmp_path)])} == {path.name: "video", "nameless": "video"}
    for file in (path, nameless):
        assert find_inputs([str(file)])[0].kind == "video"
        with VideoReader(file) as reader:
            assert (len(list(reader)), reader.lost_frames) == (FRAMES, 0)


BOXES = [b"free", b"skip", b"styp", b"pnot", b"uuid", b"junk", b"wide"]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip"])
def test_mp4_may_begin_with_any_box(tmp_path: Path, box: bytes, name: str) -> None:
    content = write_video(tmp_path / "whole.mp4", FRAMES).read_bytes()
    ftyp = int.from_bytes(content[:4], "big")
    # In front of an ftyp the places that the index holds would be wrong: the box takes the place of one.
    filled = content[8:16] if box == b"styp" else b"\0" * (16 if box == b"uuid" else 8)
    first = (8 + len(filled)).to_bytes(4, "big") + box + filled
    rest = (ftyp - len(first)).to_bytes(4, "big") + b"free" + b"\0" * (ftyp - len(first) - 8)
    path = tmp_path / name
    path.write_bytes(first + rest + content[ftyp:])
    assert sniff(path) == "video"
    with VideoReader(path) as reader:
        assert len(list(reader)) == FRAMES


def test_what_stands_before_a_stream_does_not_hide_it(tmp_path: Path) -> None:
    program = raw(tmp_path / "a.mpg", "mpeg2video", "vob").read_bytes()
    transport = raw(tmp_path / "a.ts", "mpeg2video", "mpegts").read_bytes()
    for name, content in {
        "dvr.dat": b"IMKH" + bytes(range(36)) + program,
        "dvr.ps": b"IMKH" + bytes(range(36)) + program,
        "late.ts": b"\x01\x02junk\0" * 40 + transport,
        "late.bin": b"\x01\x02junk\0" * 40 + transport,
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert sniff(path) == "video"
        with VideoReader(path) as reader:
            assert len(list(reader)) == FRAMES


def jpegs(count: int, size: tuple[int, int] = (64, 48)) -> list[bytes]:
    return [cv2.imencode(".jpg", picture(*size, seed))[1].tobytes() for seed in range(count)]


def test_jpegs_in_a_row_are_a_video_and_views_of_one_photo_are_not(tmp_path: Path) -> None:
    def kind(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return sniff(tmp_path / name)

    parts = jpegs(4)
    other = jpegs(1, (32, 24))[0]
    mpo = parts[0][:2] + b"\xff\xe2\0\x0cMPF\0II*\0\0\0" + parts[0][2:]
    thumbnail = parts[0][:2] + b"\xff\xe1" + (len(other) + 8).to_bytes(2, "big") + b"Exif\0\0" + other + parts[0][2:]
    assert kind("a.mjpeg", b"".join(parts)) == "video"
    assert kind("filled.mjpg", b"\0\0\0".join(parts[:2])) == "video"
    assert kind("named.jpg", b"".join(parts)) == "video"
    assert kind("one.mjpg", parts[0]) == "photo"
    assert kind("one.jpg", parts[0]) == "photo"
    assert kind("cut.jpg", parts[0][:-20]) == "photo"
    assert kind("portrait.jpg", parts[0] + parts[1]) == "photo"  # a second view, as some phones append it
    assert kind("depth.jpg", parts[0] + other * 3) == "photo"
    assert kind("a.mpo", mpo + parts[1]) == "photo"
    assert kind("thumbnail.jpg", thumbnail) == "photo"
    with VideoReader(tmp_path / "named.jpg") as reader:
        assert len(list(reader)) == 4


TEXTS = {
    "code.ts": "export const frames: number[] = [];\n" * 30,
    "module.mts": "import {a} from './a'\n",
    "umlaut.ts": "// größer\nexport {}\n" * 400,
    "qt.ts": '<?xml version="1.0"?><!DOCTYPE TS><TS version="2.1"></TS>',
    "a.json": "{}",
    "a.csv": "x,y\n" * 400,
    "a.py": "print(1)\n",
    "BMI_table.csv": "BMI,kg\n",
    "P1 notes.txt": "P1 notes about a patient\n",
    "free.txt": "the free world\n",
    "subtitles.srt": "1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    "art.nfo": "\x1b[31mhello\x1b[0m\n" * 50,
}


def test_texts_and_documents_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 3)
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "wide.ts").write_text("export {}\n", "utf-16")
    (tmp_path / "latin.ts").write_bytes("// größer\nexport {}\n".encode("latin-1"))
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + os.urandom(2000))
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + os.urandom(2000))
    (tmp_path / "noise").write_bytes(os.urandom(2000))
    write_video(tmp_path / "song.m4a", sound="aac", picture_stream=False).rename(tmp_path / "song2.m4a")
    assert [item.name for item in find_inputs([str(tmp_path)])] == ["clip.mp4"]
    for name in TEXTS:
        item = find_inputs([str(tmp_path / name)])[0]
        assert item.kind == "unknown" and item.error


def test_a_damaged_transport_stream_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(bytes(range(256)) * 8)
    assert [item.name for item in find_inputs([str(tmp_path)])] == ["a.ts"]


PLAYLISTS = {
    "a.ffconcat": "ffconcat version 1.0\nfile clip.mp4\n",
    "b.mp4": "ffconcat version 1.0\nfile clip.mp4\n",
    "c.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.mp4\n#EXT-X-ENDLIST\n",
    "d.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "e.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>clip.mp4</BaseURL></MPD>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_file_cannot_have_other_files_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", 3)
    (tmp_path / name).write_text(PLAYLISTS[name])
    assert find_inputs([name])[0].kind == "unknown"
    with pytest.raises(MediaError, match="cannot be opened"):
        VideoReader(tmp_path / name)


def through_pipe(path: Path, content: bytes) -> threading.Thread:
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb") as file:
            file.write(content)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["back.mp4", "a.mkv", "a.jpg", "a.mjpeg", "a.ts"])
def test_pipes_are_read_from_their_first_byte(tmp_path: Path, name: str) -> None:
    if name.endswith("jpg"):
        content, frames = write_photo(tmp_path / name).read_bytes(), 1
    elif name.endswith("mjpeg"):
        content, frames = b"".join(jpegs(FRAMES)), FRAMES
    else:
        content, frames = write_video(tmp_path / name, FRAMES, time_base=Fraction(1, 90000)).read_bytes(), FRAMES
    pipe = tmp_path / "pipe"
    writer = through_pipe(pipe, content)
    item = find_inputs([str(pipe)])[0]
    assert (item.kind, item.live, item.name, item.error) == ("video", True, "pipe", None)
    with VideoReader(item.source) as reader:
        assert len(list(reader)) == frames
    writer.join()


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no descriptors as files here")
def test_descriptors_that_the_shell_opened_are_pipes() -> None:
    read, write = os.pipe()
    try:
        source = source_of(f"/dev/fd/{read}")
        assert (source.kind, source.name, source.live) == ("pipe", f"pipe-{read}", True)
    finally:
        os.close(read)
        os.close(write)
