"""Generated small sources for fuzz.py, and their mutations."""

import json
import math
import random
import struct
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
# Clips by name → encoder.
CLIPS = {
    "h264.mp4": "libx264", "fragmented.mp4": "libx264", "h264.mkv": "libx264", "h264.mov": "libx264",
    "h264.ts": "libx264", "h264.flv": "libx264", "raw.h264": "libx264", "mpeg4.avi": "mpeg4", "mpeg4.3gp": "mpeg4",
    "mjpeg.avi": "mjpeg", "raw.mjpeg": "mjpeg", "mpeg2.mpg": "mpeg2video", "vp8.webm": "libvpx", "vp8.ivf": "libvpx",
    "ffv1.nut": "ffv1", "raw.y4m": "wrapped_avframe",
}  # fmt: skip


def picture(seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [127 + 100 * np.sin(x / 12 + seed), 127 + 100 * np.sin(y / 9 + seed), x * 255 / WIDTH]
    return np.stack(waves, axis=-1).astype(np.uint8)


def make_pictures(folder: Path) -> None:
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    several: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 100}
    frames[0].save(folder / "exif.jpg", exif=exif)
    frames[0].save(folder / "progressive.jpg", progressive=True)
    frames[0].convert("L").save(folder / "grey.jpg")
    frames[0].convert("CMYK").save(folder / "cmyk.jpg")
    frames[0].save(folder / "plain.png", exif=exif)
    frames[0].convert("P").save(folder / "palette.png", transparency=3)
    frames[0].save(folder / "animated.png", **several)
    frames[0].save(folder / "plain.webp", exif=exif)
    frames[0].save(folder / "lossless.webp", lossless=True)
    frames[0].save(folder / "animated.webp", **several)
    frames[0].save(folder / "deflated.tif", compression="tiff_adobe_deflate", exif=exif)
    frames[0].save(folder / "pages.tif", **several)
    frames[0].save(folder / "plain.gif")
    frames[0].save(folder / "animated.gif", **several)
    frames[0].save(folder / "plain.bmp")
    frames[0].save(folder / "plain.ppm")
    frames[0].save(folder / "plain.jp2")
    cv2.imwrite(str(folder / "deep.png"), picture().astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "deep.tiff"), picture().astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "plain.avif"), picture())


def make_clips(folder: Path) -> None:
    for name, codec in CLIPS.items():
        pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        format_name = {".h264": "h264", ".mjpeg": "mjpeg"}.get(Path(name).suffix)
        flags = {"movflags": "frag_keyframe+empty_moov"} if name.startswith("frag") else {}
        try:
            with av.open(str(folder / name), "w", format=format_name, options=flags) as container:
                stream = container.add_stream(codec, rate=25, options={"g": "4"})
                assert isinstance(stream, av.VideoStream)
                stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
                stream.time_base = Fraction(1, 25)
                for number in range(10):
                    frame = av.VideoFrame.from_ndarray(picture(number), "rgb24").reformat(format=pix_fmt)
                    frame.pts = number
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        except (av.error.FFmpegError, ValueError) as error:
            (folder / name).unlink(missing_ok=True)
            print(f"{name} cannot be made here: {error}", file=sys.stderr)


def make_coco(folder: Path) -> None:
    from posecli.keypoints import COCO17

    chance = np.random.default_rng(0)
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.names), "skeleton": [[1, 2], [2, 3]]}
    images, annotations, results = [], [], []
    for number in range(1, 6):
        images.append({"id": number, "file_name": f"{number:012d}.png", "width": WIDTH, "height": HEIGHT})
        points = np.concatenate([chance.uniform(2, 40, (17, 2)).round(1), np.full((17, 1), 2)], axis=1).ravel().tolist()
        of_image = {"image_id": number, "category_id": 1, "bbox": [2, 2, 40, 40], "keypoints": points}
        annotations.append({**of_image, "id": number, "area": 1600, "iscrowd": 0, "num_keypoints": 17})
        results.append({**of_image, "score": 0.9, "keypoint_scores": [0.9] * 17})
        cv2.imwrite(str(folder / f"{number:012d}.png"), picture(number))
    document = {"images": images, "annotations": annotations, "categories": [category]}
    for kind in ("truth", "boxes", "train"):
        (folder / f"{kind}.json").write_text(json.dumps(document))
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "detections.json").write_text(json.dumps(results))


def make_weights(folder: Path) -> None:
    import torch

    from posecli.detect.person import build_fcos
    from posecli.detect.person_config import PersonConfig
    from posecli.pose.config import PoseConfig
    from posecli.pose.network import SimCC, initialise_head
    from posecli.weights.files import save_weights

    torch.manual_seed(0)
    config = PoseConfig(backbone="resnet18", deconv_channels=(), input_size=(64, 32), sigma=(1.5, 1.5))
    network = SimCC(config)
    initialise_head(network, config)
    save_weights(folder / "pose.safetensors", network.state_dict(), {"kind": "pose", "config": config.to_json()})
    person = PersonConfig(channels=32, convolutions=1, input_size=(192, 192))
    header = {"kind": "detector", "config": vars(person)}
    save_weights(folder / "detector.safetensors", build_fcos(person).state_dict(), header)


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    """A random mutation of a file's bytes; of large files, half of the time only in the first part."""
    data = bytearray(content)
    end = len(data) if len(data) < 100_000 or chance.random() < 0.5 else 20_000
    first = chance.randrange(end)
    length = min(chance.choice((1, 4, 16, 188, 512, 4096)), end - first)
    how = chance.randrange(9)
    if how == 0:
        for _ in range(chance.choice((1, 2, 5, 20, 100))):
            data[chance.randrange(end)] ^= 1 << chance.randrange(8)
    elif how == 1:
        del data[first:]
    elif how == 2:
        data[first : first + length] = bytes(length)
    elif how == 3:
        data[first:first] = data[first : first + length]
    elif how == 4:
        del data[first : first + length]
    elif how == 5:
        place = chance.randrange(end)
        data[place : place + length] = data[first : first + length]
    elif how == 6:
        for _ in range(chance.choice((1, 2, 4))):
            data[chance.randrange(min(64, len(data)))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    elif how == 7:
        data[first : first + length] = chance.randbytes(length)
    else:  # a field of four bytes, such as lengths, counts and offsets
        data[first : first + 4] = chance.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\1\0\0\0"))
    return bytes(data)


VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda c: c.choice((None, True, False, -1, 0, 0.5, 1, "", "1", "x" * 5000, "../../../etc/passwd")),
    lambda c: c.choice((math.nan, math.inf, -math.inf, 1e308, 10**9, 10**18, 2**63, 2**64, 10**30, 10**400)),
    lambda c: c.uniform(-1e3, 1e3),
    lambda c: "\ud800\u2028\x00\x1b[2J<b>[/x]",
    lambda c: c.choice(([], {}, [[]], [None] * 51, {"id": 1}, [1, 2, 3, 4], [0] * 51, [math.nan] * 4)),
)


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(part, (*place, key))


def mutated_json(document: Any, chance: random.Random) -> str:
    """The text of a document in which one to three values are replaced, removed or duplicated."""
    deep = ""
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_places(document))
        # As often a key of the first levels as one of the many coordinates.
        limit = chance.choice((1, 2, 3, 4, 9))
        place = chance.choice([p for p in places if len(p) <= limit])
        if not place:
            document = chance.choice(VALUES)(chance) if chance.random() < 0.2 else document
            continue
        parent = document
        for key in place[:-1]:
            parent = parent[key]
        how = chance.random()
        if how < 0.65:
            parent[place[-1]] = chance.choice(VALUES)(chance)
        elif how < 0.8:
            del parent[place[-1]]
        elif how < 0.9 and isinstance(parent, list):
            parent.insert(chance.randrange(len(parent) + 1), parent[place[-1]])
        elif isinstance(parent, dict):
            deep = chance.choice(("[" * 100_000 + "]" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000, '"' * 3))
            parent[place[-1]] = "DEEP"
    text = json.dumps(document).replace('"DEEP"', deep or '"DEEP"')
    if chance.random() < 0.1:  # a duplicate key: the last one counts
        text = text.replace(
            '"id":', f'"id": {json.dumps(chance.choice(VALUES)(chance))}, "id":', chance.randrange(1, 4)
        )
    if chance.random() < 0.05:
        text = f"\ufeff{text}"
    return text


def mutate(source: Path, target: Path, chance: random.Random) -> None:
    content = source.read_bytes()
    if source.suffix == ".json" and chance.random() < 0.85:
        target.write_text(mutated_json(json.loads(content), chance), encoding="utf-8")
        return
    if source.suffix == ".safetensors" and chance.random() < 0.6:
        start = 8 + struct.unpack("<Q", content[:8])[0]
        described = json.loads(content[8:start])
        if chance.random() < 0.8:
            own = json.loads(described["__metadata__"]["posecli"])
            described["__metadata__"]["posecli"] = mutated_json(own, chance)
            text = json.dumps(described)
        else:
            text = mutated_json(described, chance)
        header = text.encode("utf-8", "surrogatepass")
        target.write_bytes(struct.pack("<Q", len(header)) + header + content[start:])
        return
    target.write_bytes(mutated_bytes(content, chance))
