"""Copy photos without people out of packages of Debian 12: recipes/fit_presence.py --nobody.

    apt-get download gcompris-qt-data libjxl-testdata lomiri-wallpapers-16.04 mate-backgrounds opencv-doc \
        palapeli-data plasma-workspace-wallpapers
    for package in *.deb; do dpkg-deb -x $package packages/${package%%_*}; done
    python recipes/photos_of_nobody.py --packages packages --out nobody

photos_of_nobody.txt names them, a package and a path a line: animals, tools, food, buildings, landscapes. They were
looked at; pictures of statues, dolls and people were left out. All packages are in Debian's main section, whose
licences allow this; each package's copyright file says which. GCompris keeps its pictures in Qt resource files.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np

LONGEST = 640
LIST = Path(__file__).with_suffix(".txt")
# Qt's resource format: flags of a node, and the bytes that a node takes in each version.
COMPRESSED, FOLDER = 1, 2
NODE = {1: 14, 2: 22, 3: 22}


def read_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a Qt resource file (.rcc), those with zstd compression left out."""
    content = path.read_bytes()
    magic, version, tree, data, names = struct.unpack_from(">4s4I", content)
    if magic != b"qres" or version not in NODE:
        raise click.ClickException(f"{path}: not a Qt resource file of version 1 to 3")

    def walk(number: int, folder: str) -> Iterator[tuple[str, bytes]]:
        node = tree + number * NODE[version]
        name_at, flags = struct.unpack_from(">IH", content, node)
        length = struct.unpack_from(">H", content, names + name_at)[0] if number else 0
        name = content[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
        place = f"{folder}/{name}" if folder else name
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", content, node + 6)
            for child in range(first, first + count):
                yield from walk(child, place)
        elif flags in (0, COMPRESSED):
            (data_at,) = struct.unpack_from(">I", content, node + 10)
            (size,) = struct.unpack_from(">I", content, data + data_at)
            stored = content[data + data_at + 4 : data + data_at + 4 + size]
            # Qt puts the uncompressed size in front.
            yield place, zlib.decompress(stored[4:]) if flags & COMPRESSED else stored

    yield from walk(0, "")


def read_photos(packages: Path, wanted: dict[str, set[str]]) -> Iterator[tuple[str, str, bytes]]:
    """Package, path and contents of the wanted files: {package: paths}."""
    for package, paths in sorted(wanted.items()):
        root = packages / package
        for path in sorted(paths):
            if (root / path).is_file():
                yield package, path, (root / path).read_bytes()
        for resources in sorted(root.rglob("*.rcc")):
            for path, stored in read_resources(resources):
                if path in paths:
                    yield package, path, stored


@click.command()
@click.option("--packages", type=click.Path(path_type=Path, exists=True), required=True, help="One folder a package.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(packages: Path, out: Path) -> None:
    """Write the photos to OUT, at most LONGEST pixels long."""
    wanted: dict[str, set[str]] = {}
    for line in LIST.read_text().splitlines():
        package, path = line.split(" ", 1)
        wanted.setdefault(package, set()).add(path)
    out.mkdir(parents=True, exist_ok=True)
    written: set[tuple[str, str]] = set()
    for package, path, stored in read_photos(packages, wanted):
        if (package, path) in written:
            continue
        pixels = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise click.ClickException(f"{package}: {path} is not a photo")
        scale = min(1.0, LONGEST / max(pixels.shape[:2]))
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        name = f"{package}-{path.replace('/', '-')}"
        cv2.imwrite(str((out / name).with_suffix(".jpg")), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
        written.add((package, path))
    missing = sum(map(len, wanted.values())) - len(written)
    click.echo(f"{len(written)} photos in {out}, {missing} not found", err=True)


if __name__ == "__main__":
    main()
