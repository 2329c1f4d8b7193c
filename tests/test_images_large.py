"""Large photos: decoded without a second copy, to the same pixels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from posecli.errors import MediaError
from posecli.media import images
from posecli.media.images import decode_image
from tests.media_factory import exif_orientation, picture, write_photo


def test_large_photos_are_decoded_as_small_ones_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in ("jpg", "png", "bmp", "tiff", "webp"):
        content = write_photo(tmp_path / f"a.{suffix}", picture(90, 61)).read_bytes()
        kinds = {"whole": content, "cut": content[: len(content) * 2 // 3], "short": content[:-2], "junk": content[:40]}
        if suffix == "jpg":
            kinds["turned"] = exif_orientation(content, 6)
        for kind, data in kinds.items():
            found: list[object] = []
            for large in (10**9, 1):
                monkeypatch.setattr(images, "_LARGE", large)
                try:
                    found.append(decode_image(data, "a"))
                except MediaError as error:
                    found.append(str(error))
            assert np.array_equal(found[0], found[1]), (suffix, kind)  # type: ignore[arg-type]
            assert isinstance(found[0], np.ndarray) or kind not in ("whole", "turned")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_a_large_photo_is_in_memory_once(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg", np.zeros((3000, 4000, 3), np.uint8))
    code = """
import sys
from posecli.media import images
def most(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
images._LARGE = int(sys.argv[2])
content = open(sys.argv[1], "rb").read()
before = most()
images.decode_image(content, "a")
print(most() - before)
"""
    taken = []
    for large in ("1", "1000000000"):
        command = [sys.executable, "-c", code, str(tmp_path / "a.jpg"), large]
        taken.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    pixels = 36_000_000 / 1024
    assert taken[0] < 1.4 * pixels < taken[1]
