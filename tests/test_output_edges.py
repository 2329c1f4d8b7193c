"""Corners of records, COCO files, drawing and the gallery."""

from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import orjson
import pytest

from posecli.draw.skeleton import draw_poses
from posecli.keypoints import COCO17
from posecli.results.coco import write_coco
from posecli.results.gallery import thumbnail_path, write_gallery, write_thumbnail
from posecli.results.manifest import Finished, manifest
from posecli.results.records import RecordWriter, Summary, read_summary
from posecli.types import Frame, Poses
from tests.media_factory import picture
from tests.test_output import some_poses, write_record


class Links(HTMLParser):
    """Collects every address of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if key in ("src", "href", "poster") and value]


def test_a_record_cut_anywhere_is_not_whole(tmp_path: Path) -> None:
    record = write_record(tmp_path, "clip.mp4", "video", [1, 0]).record
    whole = record.read_bytes()
    for length in range(len(whole)):
        record.write_bytes(whole[:length])
        assert read_summary(record) is None, length
    record.write_bytes(whole)
    assert read_summary(record) is not None


def test_an_error_inside_the_writer_leaves_the_former_record(tmp_path: Path) -> None:
    record = write_record(tmp_path, "a.jpg", "photo", [1]).record
    before = record.read_bytes()
    with pytest.raises(RuntimeError), RecordWriter(record, {"name": "a.jpg"}, 0.3) as writer:
        writer.write(Frame(picture(), 0, Fraction(0)), Poses.empty(17))
        raise RuntimeError
    assert record.read_bytes() == before
    assert [path.name for path in record.parent.iterdir()] == [record.name]


def test_photos_beside_a_video_or_with_equal_numbers_count_from_one(tmp_path: Path) -> None:
    numbered = write_record(tmp_path, "000000000785.jpg", "photo", [1])
    for other in (write_record(tmp_path, "c.mp4", "video", [1]), write_record(tmp_path, "b/000785.jpg", "photo", [1])):
        write_coco(tmp_path, [numbered, other], COCO17)
        images = orjson.loads((tmp_path / "coco.json").read_bytes())["images"]
        assert [image["id"] for image in images] == [1, 2]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_small_and_thin_pictures_have_drawings_and_thumbnails(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    pixels.flags.writeable = False
    drawn = draw_poses(pixels, some_poses(1, size=300), COCO17, show_boxes=True)
    write_thumbnail(tmp_path / "t.jpg", drawn)
    assert drawn.shape == pixels.shape and (tmp_path / "t.jpg").stat().st_size > 0


def test_drawing_is_the_same_each_time() -> None:
    assert np.array_equal(draw_poses(picture(), some_poses(3), COCO17), draw_poses(picture(), some_poses(3), COCO17))


def test_every_link_of_the_gallery_leads_to_a_file_whatever_its_name(tmp_path: Path) -> None:
    names = ["a b.jpg", "100%#1?.jpg", "ü/漢.jpg", "line\nbreak.jpg", "\"'&<i>.jpg", "javascript:alert(1).jpg"]
    cards = []
    for name in names:
        thumbnail = thumbnail_path(tmp_path, write_record(tmp_path, name, "photo", [1]).record)
        write_thumbnail(thumbnail, picture())
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        summary = Summary("done", 1, 1, outputs=(name,), width=64, height=48)
        cards.append((Finished(name, name, "photo", summary), thumbnail))
    for document in ("coco.json", "coco_results.json", "run.json"):
        (tmp_path / document).write_bytes(b"{}")
    write_gallery(tmp_path, cards, manifest([item for item, _ in cards], {})["totals"], "<model>")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert len(links.found) == 3 + 2 * len(names)
    assert all((tmp_path / unquote(link)).is_file() for link in links.found)
    assert (
        "<i>" not in page and "<model>" not in page and not any(link.startswith("javascript:") for link in links.found)
    )
