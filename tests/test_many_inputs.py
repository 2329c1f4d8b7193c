"""Results of very many inputs: records in subfolders, run.json written by rows, pages of the gallery, memory."""

import json
import re
import shutil
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.errors import UsageError
from posecli.media.inputs import Input, find_inputs
from posecli.pipeline.plan import output_folder, plan, refuse_replacing_inputs
from posecli.results import gallery, names
from posecli.results.gallery import write_gallery
from posecli.results.manifest import Finished, manifest, write_manifest
from posecli.results.output_list import read_output_list, remove_pages, write_output_list
from posecli.results.records import Summary
from tests.entry_points import posecli
from tests.media_factory import write_photo, write_video
from tests.test_run import QUICK


def test_an_older_folder_is_gone_on_with(tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Records and thumbnails once lay in one folder; they are moved, and nothing is computed again."""
    for number in range(3):
        write_photo(tmp_path / "in" / f"{number}.jpg", seed=number)
    write_video(tmp_path / "in" / "a.mp4", 4)
    out = tmp_path / "out"
    command = ("run", tmp_path / "in", "-o", out, "--weights", tiny_weights, *QUICK, "--kpt-thr", 0, "--json")
    posecli(capfd, *command)
    kept = {name: (out / name).read_bytes() for name in ("coco.json", "coco_results.json", "index.html")}
    for kind in ("records", "thumbnails"):
        for path in list((out / ".posecli" / kind).glob("*/*")):
            path.rename(path.parent.parent / path.name)
        for shard in [path for path in (out / ".posecli" / kind).iterdir() if path.is_dir()]:
            shard.rmdir()
    assert json.loads(posecli(capfd, *command).out)["totals"]["status"] == {"skipped": 4}
    for name, data in kept.items():
        assert (out / name).read_bytes() == data or name == "index.html"
    assert "thumbnails" in (out / "index.html").read_text()
    for kind in ("records", "thumbnails"):
        assert len(list((out / ".posecli" / kind).glob("??/*"))) == 4
        assert all(path.is_dir() for path in (out / ".posecli" / kind).iterdir())


words = st.text(st.characters(codec="utf-8"), max_size=6)
summaries = st.builds(
    Summary,
    status=st.sampled_from(["done", "partial", "failed"]),
    frames=st.integers(0, 9),
    people=st.integers(0, 9),
    lost=st.dictionaries(words, st.integers(1, 9), max_size=2),
    error=st.none() | words,
    outputs=st.lists(words, max_size=1).map(tuple),
    warnings=st.lists(words, max_size=2).map(tuple),
)
finished_inputs = st.builds(Finished, words, words, st.sampled_from(["photo", "video"]), summaries, st.booleans())


@given(st.lists(finished_inputs, max_size=4), st.dictionaries(words, words, max_size=2))
def test_rows_are_written_as_the_whole_document_would_be(
    tmp_path_factory: pytest.TempPathFactory, finished: list[Finished], described: dict[str, str]
) -> None:
    out = tmp_path_factory.mktemp("m")
    write_manifest(out, manifest(finished, {"options": described}), finished)
    data = (out / "run.json").read_bytes()
    document = orjson.loads(data)
    assert data == orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"
    assert [row["name"] for row in document["inputs"]] == [item.name for item in finished]
    assert sum(document["totals"]["status"].values()) == document["totals"]["inputs"] == len(finished)


class Links(HTMLParser):
    """Relative addresses of a page, and the names on its cards."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.names: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [unquote(str(values[name])) for name in ("href", "src") if values.get(name)]
        self.names += [str(values["data-name"])] if tag == "article" else []


def cards(count: int) -> list[tuple[Finished, Path | None]]:
    failed = Summary("failed", error="<broken>")
    summaries = [failed if number in (5, 21) else Summary("done", 1, 1) for number in range(count)]
    return [(Finished(f"{n:03d}.jpg", "p", "photo", summary), None) for n, summary in enumerate(summaries)]


def test_pages_have_every_input_once_and_lead_to_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PAGE_CARDS", 2)
    monkeypatch.setattr(gallery, "PAGE_CARDS", 2)
    for name in ("coco.json", "coco_results.json", "run.json"):
        (tmp_path / name).write_bytes(b"{}")
    inputs = cards(23)
    totals = manifest([item for item, _ in inputs], {})["totals"]
    assert write_gallery(tmp_path, inputs, totals, "<model>", [5, 21]) == 12
    pages = [Links(tmp_path / names.page_name(number)) for number in range(1, 13)]
    assert [name for page in pages for name in page.names] == [item.name for item, _ in inputs]
    assert all((tmp_path / link).is_file() for page in pages for link in page.found)
    for number, page in enumerate(pages, 1):
        beside = {number - 1, number + 1} & {*range(1, 13)}
        assert {names.page_name(n) for n in {1, 12, 3, 11, *beside} - {number}} <= {*page.found}
    text = (tmp_path / "index-6.html").read_text()
    assert "Filter this page" in text and "Failed on page" in text and "<model>" not in text
    policy = re.search(r"script-src ('sha256-[^']*')", text)
    assert policy is not None and policy[1] in (tmp_path / "index.html").read_text()


def test_a_gallery_of_one_page_has_no_links_to_others(tmp_path: Path) -> None:
    inputs = cards(names.PAGE_CARDS)
    totals = manifest([item for item, _ in inputs], {})["totals"]
    assert write_gallery(tmp_path, inputs, totals, "m", [5, 21]) == 1
    text = (tmp_path / "index.html").read_text()
    assert "<nav" not in text and "Failed on page" not in text and "Filter by name" in text


def test_pages_of_a_larger_gallery_are_removed_but_no_file_of_others(tmp_path: Path) -> None:
    for number in range(2, 7):
        (tmp_path / names.page_name(number)).write_text("old")
    (tmp_path / ".posecli").mkdir()
    files = frozenset(names.page_name(number) for number in (2, 3, 4, 5))
    write_output_list(tmp_path, read_output_list(tmp_path).joined(files, {}))
    remove_pages(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.glob("index*")) == ["index-2.html", "index-6.html"]
    assert read_output_list(tmp_path).files == {"index-2.html"}


def test_pages_are_planned_as_other_outputs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PAGE_CARDS", 2)
    out = tmp_path / "out"
    inputs = [Input(Path(f"{n}.jpg"), f"index-2.html/{n}.jpg", "photo") for n in range(3)]
    inputs.append(Input(Path("x.jpg"), "INDEX-77.html/x.jpg", "photo"))
    jobs = plan(inputs, out)
    assert [job.output.split("/")[0] for job in jobs] == ["index-2~2.html"] * 3 + ["INDEX-77~2.html"]
    out.mkdir()
    (out / "index-2.html").write_text("mine")
    with (
        pytest.raises(UsageError, match=r"index-2\.html there is not posecli's"),
        output_folder(jobs, out, (), overwrite=False),
    ):
        pass
    shutil.rmtree(out)
    with output_folder(jobs, out, (), overwrite=False):
        assert "index-2.html" in read_output_list(out).files


def test_memory_of_a_plan_is_small(tmp_path: Path) -> None:
    """In bytes an input, far from those of a path or a dictionary for each of its files."""
    count = 2000
    for number in range(count):
        path = tmp_path / "in" / f"{number // 100:03d}" / f"picture{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff\xe0" + number.to_bytes(4, "big"))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        jobs = plan(find_inputs([str(tmp_path / "in")], exclude=tmp_path / "out"), tmp_path / "out")
        refuse_replacing_inputs(jobs, tmp_path / "out", ())
        with output_folder(jobs, tmp_path / "out", (), overwrite=False):
            kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(jobs) == count
    assert (kept - before) / count < 1000 and (peak - before) / count < 2500
