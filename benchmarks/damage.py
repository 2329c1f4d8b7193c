"""Sixty damaged variants of real clips: none may crash or hang, every decodable frame is kept, losses are counted.

    python benchmarks/damage.py CLIPS > results/damage.md

Each of the folder's clips (the first 12 by name) is damaged in five ways, seeded by its name:

- truncated: the file's first 40 to 90 % (an MP4's index moved to the front, else nothing could be read);
- flipped: 200 bits, anywhere after the first 2 % of the media data;
- packets: 1 in 25 of the clip's packets zeroed in place;
- header: 3 bits flipped in the first 1,000 bytes;
- transport: as MPEG-TS, 1 in 150 of its 188-byte packets left out (VP9 and AV1, which MPEG-TS does not support: as
  Matroska, pieces of 188 bytes left out).

Every variant is read by VideoReader in its own process, and by plain PyAV, packet by packet, in another. An edit list
hides frames, intentionally or because it is damaged, which cannot be distinguished. So each frame of the clip must be
kept, or reported as lost or hidden: "lost" and "hidden" are VideoReader's figures, "not kept" is the difference between
the undamaged clip's frames, hidden ones included, and those kept.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av

TIMEOUT = 120.0

READER = """
import json, sys
from pathlib import Path
from posecli.errors import MediaError
from posecli.media.video import VideoReader
try:
    with VideoReader(Path(sys.argv[1])) as reader:
        frames = [frame.index for frame in reader]
        ordered = frames == sorted(set(frames))
        lost = dict(reader.lost)
        print(json.dumps({"frames": len(frames), "lost": lost, "hidden": reader.hidden, "ordered": ordered}))
except MediaError as error:
    print(json.dumps({"frames": 0, "lost": {}, "hidden": 0, "error": str(error)}))
"""

PLAIN = """
import sys, av
frames = hidden = 0
try:
    with av.open(sys.argv[1], metadata_errors="ignore") as container:
        hidden = sum(entry.is_discard for entry in container.streams.video[0].index_entries)
        for packet in container.demux(container.streams.video[0]):
            try:
                frames += len(packet.decode())
            except av.error.FFmpegError:
                pass
except (av.error.FFmpegError, IndexError):
    pass
print(frames, hidden)
"""


def remux(source: Path, target: Path, options: dict[str, str] | None = None) -> Path:
    """The same packets in another container, without audio where the container does not support it."""
    with av.open(str(source)) as reader, av.open(str(target), "w", options=options or {}) as writer:
        streams = {}
        for stream in (*reader.streams.video[:1], *reader.streams.audio[:1]):
            try:
                streams[stream.index] = writer.add_stream_from_template(stream, opaque=True)
            except ValueError:
                continue
        for packet in reader.demux([reader.streams[index] for index in streams]):
            if packet.dts is not None or packet.size:
                packet.stream = streams[packet.stream_index]
                writer.mux(packet)
    return target


def streamable(clip: Path, folder: Path) -> Path:
    """The clip with its index at the front."""
    if clip.suffix != ".mp4":
        return clip
    return remux(clip, folder / f"front-{clip.name}", {"movflags": "faststart"})


def truncated(clip: Path, target: Path, chance: random.Random, folder: Path) -> None:
    content = streamable(clip, folder).read_bytes()
    target.write_bytes(content[: int(len(content) * chance.uniform(0.4, 0.9))])


def flipped(clip: Path, target: Path, chance: random.Random, folder: Path) -> None:
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    first, last = min(pos for pos, _ in places), max(pos + size for pos, size in places)
    for _ in range(200):
        content[chance.randrange(first + (last - first) // 50, last)] ^= 1 << chance.randrange(8)
    target.write_bytes(content)


def packets(clip: Path, target: Path, chance: random.Random, folder: Path) -> None:
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    for pos, size in places[1:]:
        if chance.random() < 1 / 25:
            content[pos : pos + size] = bytes(size)
    target.write_bytes(content)


def header(clip: Path, target: Path, chance: random.Random, folder: Path) -> None:
    content = bytearray(streamable(clip, folder).read_bytes())
    for _ in range(3):
        content[chance.randrange(1000)] ^= 1 << chance.randrange(8)
    target.write_bytes(content)


def transport(clip: Path, target: Path, chance: random.Random, folder: Path) -> None:
    content = remux(clip, folder / f"whole{target.suffix}").read_bytes()
    parts = [content[i : i + 188] for i in range(0, len(content), 188)]
    target.write_bytes(b"".join(part for i, part in enumerate(parts) if i < 20 or chance.random() > 1 / 150))


def transport_suffix(clip: Path) -> str:
    with av.open(str(clip)) as container:
        return ".mkv" if container.streams.video[0].codec_context.name in ("libdav1d", "av1", "vp9") else ".ts"


DAMAGES: dict[str, Callable[[Path, Path, random.Random, Path], None]] = {
    "truncated": truncated,
    "flipped": flipped,
    "packets": packets,
    "header": header,
    "transport": transport,
}


def held(path: Path) -> tuple[int, int]:
    """Numbers of an undamaged clip's frames that plain PyAV shows, and that its edit list hides."""
    shown, hidden = map(int, run(PLAIN, path).split())
    return shown, hidden


def run(program: str, path: Path) -> str:
    """Output of a program; "hangs" or "crashes" where it fails."""
    try:
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return "hangs"
    return done.stdout.decode().strip() if done.returncode == 0 else f"crashes ({done.returncode})"


@dataclass
class Totals:
    """Counts over all variants. fewer: with fewer frames than plain PyAV decodes."""

    variants: int = 0
    wrong: int = 0
    fewer: int = 0
    refused: int = 0
    exact: int = 0
    near: int = 0

    def line(self) -> str:
        """The closing sentence of the table."""
        read = self.variants - self.refused
        return (
            f"{self.variants} variants: {self.wrong} crashed, hung or gave frames out of order; {self.fewer} with "
            f"fewer frames than plain PyAV decodes; {self.refused} refused in one line. Of the {read} read, the loss "
            f"was reported exactly in {self.exact}, within one frame in {self.near}."
        )


def row_of(clip: Path, name: str, target: Path, held_frames: tuple[int, int], totals: Totals) -> str:
    """The table's row of one damaged clip, read by plain PyAV and by posecli. held_frames: see held."""
    whole, hidden_before = held_frames
    plain, answer = run(PLAIN, target).split()[0], run(READER, target)
    totals.variants += 1
    all_frames = whole + hidden_before
    if not answer.startswith("{"):
        totals.wrong += 1
        return f"| {clip.name} | {name} | {all_frames} | {hidden_before} | {plain} | **{answer}** |" + " |" * 5
    found = json.loads(answer)
    kept, said, hidden = found["frames"], sum(found["lost"].values()), found["hidden"]
    totals.fewer += plain.isdigit() and kept < int(plain)
    if "error" in found:
        totals.refused += 1
        reasons, off, reported_text = found["error"].replace(f"{target}: ", "refused: "), "–", "all"
    else:
        reasons = ", ".join(f"{n} {why}" for why, n in found["lost"].items())
        difference = said + hidden - (all_frames - kept)
        off, reported_text = f"{difference:+d}" if difference else "0", str(said)
        totals.exact += difference == 0
        totals.near += abs(difference) <= 1
        totals.wrong += not found["ordered"]
    numbers = (all_frames, hidden_before, plain, kept, all_frames - kept, reported_text, hidden, off)
    return f"| {' | '.join(map(str, (clip.name, name, *numbers, reasons)))} |"


def measure(clip: Path, name: str, folder: Path, options: argparse.Namespace, totals: Totals) -> str:
    """Make one variant of a clip in folder, read it, and give its row."""
    suffix = transport_suffix(clip) if name == "transport" else clip.suffix
    target, frames = folder / f"{clip.stem}-{name}{suffix}", held(clip)
    try:
        DAMAGES[name](clip, target, random.Random(f"{clip.name} {name}{options.seed}"), folder)
    except (av.error.FFmpegError, ValueError) as error:
        target.unlink(missing_ok=True)
        return f"| {clip.name} | {name} | {sum(frames)} |" + " – |" * 7 + f" cannot be made: {error} |"
    # In another container a clip may show frames that its edit list hides.
    copy = folder / (f"whole{suffix}" if name == "transport" else f"front-{clip.name}")
    if name in ("transport", "truncated", "header") and copy.is_file():
        frames = held(copy)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        shutil.copy(target, options.keep)
    row = row_of(clip, name, target, frames, totals)
    target.unlink()
    return row


def main() -> None:
    """Make the variants, read them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--only", choices=DAMAGES)
    parser.add_argument("--seed", default="", help="for other damages than those of the table")
    parser.add_argument("--keep", type=Path, help="a folder for the damaged files")
    options = parser.parse_args()
    clips = sorted(path for path in options.clips.iterdir() if path.is_file())[:12]
    print("# Damaged videos\n\n    python benchmarks/damage.py CLIPS > results/damage.md\n")
    print(
        "Frames: those in the undamaged clip, those its edit list hides of them; of the damaged one those kept, those"
    )
    print("reported as lost and as hidden. The script describes the damages.\n")
    print(
        "| clip | damage | held | hidden | plain PyAV | kept | not kept "
        "| reported lost | reported hidden | off by | reasons |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")
    totals = Totals()
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips:
            for name in DAMAGES:
                if options.only in (None, name):
                    print(measure(clip, name, Path(folder), options, totals), flush=True)
    print(f"\n{totals.line()}")


if __name__ == "__main__":
    main()
