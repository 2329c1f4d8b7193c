"""Photos' files that hold several pictures, or show theirs turned or cropped."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import pytest

from posecli.errors import MediaError
from posecli.media.pages import append_page
from posecli.media.photos import PhotoReader, decode_photo
from posecli.media.write_images import write_image
from tests.entry_points import QUICK, posecli
from tests.media_factory import exif_orientation, picture, write_photo
from tests.picture_factory import avif, clap, encoded, imir, irot, tiff, with_properties, write


def read(path: Path, content: bytes) -> tuple[list[np.ndarray], PhotoReader]:
    write(path, content)
    reader = PhotoReader(path)
    return [frame.pixels for frame in reader], reader


PAGES = [np.full((48, 64, 3), 255, np.uint8), picture(64, 48, 1), picture(30, 80, 2)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_all_pages_of_a_tiff_are_read(tmp_path: Path, order: str, big: bool) -> None:
    found, reader = read(tmp_path / "a.tif", tiff(PAGES, order=order, big=big))
    assert len(found) == 3 and all(np.array_equal(a, b) for a, b in zip(found, PAGES, strict=True))
    assert reader.damage is None and not reader.lost


def test_pages_that_opencv_wrote(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "a.tif"), [page[..., ::-1] for page in PAGES])
    found, _ = read(tmp_path / "b.tif", (tmp_path / "a.tif").read_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(found, PAGES, strict=True))


def test_thumbnails_masks_and_smaller_copies_are_no_pages(tmp_path: Path) -> None:
    small, large = picture(16, 12), picture(64, 48)
    for content in (
        tiff([small, large], tags=[{254: 1}, {}]),
        tiff([large, small], tags=[{}, {254: 1}]),
        tiff([large, large], tags=[{}, {254: 4}]),
        tiff([small, large], tags=[{255: 2}, {255: 1}]),
        tiff([small, large], tags=[{254: 1}, {}], inner={0: [1]}),
        tiff([small, large], tags=[{}, {}], inner={0: [1]}),
        tiff([large, small, small], tags=[{}, {254: 1}, {254: 1}], inner={0: [1, 2]}),
        tiff([small, large], tags=[{254: 1}, {}], inner={0: [1]}, big=True),
    ):
        found, _ = read(tmp_path / "a.tif", content)
        assert len(found) == 1 and np.array_equal(found[0], large)


def test_a_file_with_nothing_but_a_small_copy_is_read(tmp_path: Path) -> None:
    found, _ = read(tmp_path / "a.tif", tiff([picture()], tags=[{254: 1}]))
    assert np.array_equal(found[0], picture())


@pytest.mark.parametrize("tags", [{50706: 0x01040000}, {262: 32803}, {262: 34892}])
def test_raw_files_are_refused_with_a_word(tmp_path: Path, tags: dict[int, int]) -> None:
    small, large = picture(16, 12), picture(64, 48)
    for inner in ({0: [1]}, None):
        content = tiff([small, large], tags=[{254: 1}, tags], inner=inner)
        with pytest.raises(MediaError, match=r"raw file .*: convert it to JPEG or TIFF first"):
            read(tmp_path / "a.dng", content)


def test_a_damaged_page_costs_only_itself(tmp_path: Path) -> None:
    content = tiff(PAGES, tags=[{}, {259: 8}, {}])  # page 2 is not compressed as it says
    found, reader = read(tmp_path / "a.tif", content)
    assert [page.shape for page in found] == [(48, 64, 3), (80, 30, 3)]
    assert dict(reader.lost) == {"pages cannot be decoded": 1}
    reader = PhotoReader(tmp_path / "a.tif", max_pixels=2000)
    with pytest.raises(MediaError, match=r"page 1: 64x48 pixels are over the limit"):
        list(reader)


def test_a_tiff_with_a_damaged_strip_is_told(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (400, 300, 3), np.uint8)
    content = bytearray(encoded(".tif", pixels, cv2.IMWRITE_TIFF_COMPRESSION, 8))
    assert read(tmp_path / "a.tif", bytes(content))[1].damage is None
    place = len(content) // 2
    content[place : place + 300] = bytes(300)
    found, reader = read(tmp_path / "a.tif", bytes(content))
    assert found[0].shape == pixels.shape and reader.damage is not None and "strips cannot be read" in reader.damage


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    content = bytearray(tiff(PAGES[:2]))
    second = content.rindex((64).to_bytes(4, "little") + b"\x01\x01\x04\0") - 10  # its first entry: the width
    content[-4:] = content[4:8]
    assert second > 0
    assert len(read(tmp_path / "a.tif", bytes(content))[0]) == 2


def test_a_tiff_without_its_last_rows_is_told(tmp_path: Path) -> None:
    pixels = picture(64, 48)
    content = tiff([pixels], at=len(tiff([pixels], at=0))) + pixels.tobytes()
    assert np.array_equal(read(tmp_path / "a.tif", content)[0][0], pixels)
    with pytest.raises(MediaError, match=r"cut off: [\d,]+ of [\d,]+ bytes are there"):
        read(tmp_path / "a.tif", content[: -pixels.nbytes // 3])


TURNS = [([irot(q)], lambda p, q=q: np.rot90(p, q)) for q in range(4)]
MIRRORS = [([imir(0)], lambda p: p[::-1]), ([imir(1)], lambda p: p[:, ::-1])]
BOTH = [
    ([irot(1), imir(0)], lambda p: np.rot90(p)[::-1]),
    ([imir(0), irot(1)], lambda p: np.rot90(p[::-1])),
    ([clap(30, 20, (0, 1), (0, 1))], lambda p: p[14:34, 17:47]),
    ([clap(30, 20, (-4, 1), (5, 1)), irot(3)], lambda p: np.rot90(p[19:39, 13:43], 3)),
    ([clap(300, 20, (0, 1), (0, 1))], lambda p: p),
]


@pytest.mark.parametrize(("properties", "shown"), [*TURNS, *MIRRORS, *BOTH])
def test_avif_is_shown_as_its_properties_say(properties: list[bytes], shown: Any) -> None:
    plain = avif()
    stored, _ = decode_photo(plain, "a.avif")
    assert np.abs(stored.astype(int) - picture()).mean() < 6
    turned, damage = decode_photo(with_properties(plain, properties), "a.avif")
    assert damage is None and np.array_equal(turned, shown(stored)) and turned.flags.c_contiguous


def test_kinds_of_pixels() -> None:
    pixels = picture()
    deep = bytes(cv2.imencode(".tif", pixels[..., ::-1].astype(np.uint16) * 257)[1].data)
    assert np.abs(decode_photo(deep, "a.tif")[0].astype(int) - pixels).max() <= 1
    grey = np.dstack([pixels[..., 0]] * 3 + [np.full((48, 64), 7, np.uint8)])
    assert np.array_equal(decode_photo(encoded(".png", grey), "a.png")[0], grey[..., :3])
    content = exif_orientation(encoded(".jpg", pixels), 8)
    assert decode_photo(content, "a.jpg")[0].shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.heic", b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf", "HEIC, .* convert it to JPEG first"),
        ("a.heif", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC, .* convert it to JPEG first"),
        ("a.jxl", b"\xff\x0a" + bytes(50), "JPEG XL, .* convert it to JPEG first"),
        ("b.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL, .* convert it to JPEG first"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0" + bytes(50), "raw file, .* convert it"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "raw file, .* convert it"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201", "raw file, .* convert it"),
        ("a.psd", b"8BPS\0\x01" + bytes(50), "Photoshop document .*: export it"),
        ("a.svg", b"<?xml version='1.0'?>\n<svg></svg>", "SVG, .*: export it"),
        ("a.pdf", b"%PDF-1.7\n", "PDF document, .*: export"),
    ],
)
def test_formats_that_are_not_read_are_named(
    name: str, content: bytes, words: str, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / name, content)
    out = tmp_path / "out"
    result = posecli(capfd, "run", path, "-o", out, "--weights", tiny_weights, *QUICK, "--json")
    (row,) = orjson.loads(result.out)["inputs"]
    assert result.code == 1 and row["status"] == "failed"
    with pytest.raises(MediaError, match=words):
        raise MediaError(row["error"])


def test_a_run_tells_damage_and_draws_all_pages(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    write(root / "pages.tif", tiff(PAGES))
    write(root / "pages", tiff(PAGES[:2]))
    whole = write_photo(root / "whole.jpg", picture(200, 200)).read_bytes()
    write(root / "hole.jpg", whole[:-1500] + whole[-200:])
    write(root / "end.jpg", whole[:-2])
    command = ("run", root, "-o", out, "--weights", tiny_weights, *QUICK, "--json", "--format", "openpose")
    result = posecli(capfd, *command)
    rows = {row["name"]: row for row in orjson.loads(result.out)["inputs"]}
    assert result.code == 0
    assert [rows[name]["frames"] for name in ("pages.tif", "pages", "whole.jpg")] == [3, 2, 1]
    assert {name: row["status"] for name, row in rows.items()} == {
        "pages.tif": "done", "pages": "done", "whole.jpg": "done", "end.jpg": "done", "hole.jpg": "partial"
    }  # fmt: skip
    assert any("damaged" in words for words in rows["hole.jpg"]["warnings"])
    assert any("1 more pages are not drawn" in words for words in rows["pages"]["warnings"])
    lines = result.err.splitlines()
    assert any(line.startswith("partial: ") and "hole.jpg: damaged" in line for line in lines)
    assert any(line.startswith("note: ") and "1 more pages are not drawn" in line for line in lines)
    drawn, _ = read(tmp_path / "drawn.tif", (out / "pages.tif").read_bytes())
    assert [page.shape for page in drawn] == [page.shape for page in PAGES]
    assert np.abs(drawn[2].astype(int) - PAGES[2]).mean() < 60  # with a skeleton on it
    images = orjson.loads((out / "coco.json").read_bytes())["images"]
    assert len({image["id"] for image in images}) == len({image["file_name"] for image in images}) == 8
    again = orjson.loads(posecli(capfd, *command).out)["inputs"]
    assert {row["status"] for row in again} == {"skipped"}


def test_pages_named_by_numbers_have_ids_of_their_own(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "000000000042.tif", tiff(PAGES))
    out = tmp_path / "out"
    posecli(capfd, "run", tmp_path / "in", "-o", out, "--weights", tiny_weights, *QUICK)
    assert [image["id"] for image in orjson.loads((out / "coco.json").read_bytes())["images"]] == [1, 2, 3]


def test_a_page_is_appended_to_any_tiff_of_opencv(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pages = [picture(3, 3), picture(1, 1), picture(600, 500), picture(64, 48, 3)]
    write_image(path, pages[0])
    for page in pages[1:]:
        append_page(path, page)
    found, _ = read(tmp_path / "b.tif", path.read_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(found, pages, strict=True))
    ok, opened = cv2.imreadmulti(str(path))
    assert ok and len(opened) == 4
