"""Pages show names, ids and messages from outside; none of them may become an element, an attribute or a script."""

import hashlib
import json
import re
import shutil
import subprocess
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.evaluate.table import _cell
from posecli.keypoints import COCO17
from posecli.results import html
from posecli.results.charts import Panel, Series
from posecli.results.gallery import thumbnail_path, write_gallery, write_thumbnail
from posecli.results.manifest import Finished, manifest
from posecli.results.records import Summary
from posecli.results.svg_charts import svg
from tests.entry_points import posecli
from tests.media_factory import picture
from tests.test_output import write_record
from tests.test_output_curves import write_clip

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

RUNS = "document.documentElement.setAttribute('pwned','1')"
HOSTILE = [
    f'1"><script>{RUNS}</script>',
    f"</script><script>{RUNS}</script>",
    f"</title></style><script>{RUNS}</script>",
    f"<img src=x onerror={RUNS}>",
    f'" onload="{RUNS}" onerror="{RUNS}" x="',
    f"' onmouseover='{RUNS}",
    f"<svg onload={RUNS}>",
    f"--><script>{RUNS}</script><!--",
    f"<!--<script>{RUNS}",
    f"]]><script>{RUNS}</script>",
    f"javascript:{RUNS}",
    f"&lt;script&gt;{RUNS}&lt;/script&gt;",
    "$\\frac{$ [/bold] [red]",
    "a\u2028b\u202egpj.exe",
    "\x1b[31mred\x00\x07",
    "100%#1?&amp;.jpg",
]
ELEMENTS = set(
    re.findall(
        r"\S+",
        "html head meta title style body header h1 h2 h3 p a span div input select option main article script img "
        "video section table thead tbody tr th td br small b figure figcaption svg g defs path use text tspan clippath "
        "rect metadata rdf:rdf cc:work dc:type cc:agent dc:title dc:format dc:date dc:creator",
    )
)


class Page(HTMLParser):
    """Everything in a page: elements, attributes, addresses, scripts, text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.policy = ""
        self.words: list[str] = []
        self._inside: list[Any] | None = None
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        values = dict(attrs)
        self.attributes |= set(values)
        self.addresses += [str(values[key]) for key in ("src", "href", "poster") if values.get(key)]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(values["content"])
        if tag == "script":
            self._inside = [values.get("type"), ""]

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._inside:
            self.scripts.append((self._inside[0], self._inside[1]))
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._inside[1] += data
        self.words.append(data)


def check(path: Path, own_scripts: int) -> Page:
    page = Page(path)
    assert page.elements <= ELEMENTS, page.elements - ELEMENTS
    assert not {name for name in page.attributes if name.startswith("on") or name in ("pwned", "srcdoc")}
    for address in page.addresses:
        assert urlsplit(address).scheme in ("", "data") and not address.startswith("//"), address
        assert address.startswith("data:image/jpeg;base64,") or ":" not in address, address
    executable = [content for kind, content in page.scripts if kind != "application/json"]
    assert len(executable) == own_scripts
    allowed = re.search(r"script-src ([^;]*)", page.policy)
    assert allowed is not None and "default-src 'none'" in page.policy
    assert "base-uri 'none'" in page.policy and "form-action 'none'" in page.policy
    digests = [b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in executable]
    assert allowed[1] == (f"'sha256-{digests[0]}'" if digests else "'none'")
    for kind, content in page.scripts:
        if kind == "application/json":
            json.loads(content)
            assert not set(content) & set("<>&\u2028\u2029")
    return page


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """index.html of photos, clips and failures with hostile names, reasons and messages."""
    out = tmp_path_factory.mktemp("gallery")
    cards: list[tuple[Finished, Path | None]] = []
    for name in ("clip \udcff<i>.mp4", *HOSTILE[:2]):
        stored = name.encode("utf-8", "backslashreplace").decode()
        write_clip(out, [[(1, 90.0, True), (3, 80.0, True)]] * 5, stored)
        tracked = Summary("done", 5, 10, outputs=(stored,), tracks=2)
        cards.append((Finished(stored, stored, "video", tracked), None))
    for number, name in enumerate(HOSTILE):
        safe = name.replace("\x00", "").replace("/", "\u2215")
        thumbnail = thumbnail_path(out, write_record(out, f"{number}", "photo", [1]).record)
        write_thumbnail(thumbnail, picture())
        (out / safe).write_bytes(b"x")
        done = Summary("done", 1, 1, outputs=(safe,), width=64, height=48, warnings=(name,))
        cards.append((Finished(safe, safe, "photo", done), thumbnail))
        lost = Summary("partial", 5, 2, lost_frames=2, lost={name: 2}, outputs=(safe,))
        cards.append((Finished(name, name, "video", lost), thumbnail))
        cards.append((Finished(f"{name}.png", name, "photo", Summary("failed", error=name)), None))
    # A run shows such a name printable; its output lies under the bytes.
    cards.append((Finished("\\xff<b>.jpg", "x", "photo", Summary("done", 1, 0, outputs=("\udcff<b>.jpg",))), None))
    write_gallery(out, cards, manifest([item for item, _ in cards], {})["totals"], HOSTILE[0])
    return out / "index.html"


def hostile_dataset(root: Path) -> list[object]:
    """A validation set whose ids, names and keypoints are hostile, and a results file; the arguments of eval."""
    names = [f"{name} {number}" for number, name in enumerate((HOSTILE * 2)[:17])]
    random = np.random.default_rng(1)
    images, annotations, results = [], [], []
    for number in range(1, 5):
        file = f"{number} {HOSTILE[number % 9]}.png".replace("/", "\u2215")
        (root / file).write_bytes(cv2.imencode(".png", picture(160, 160, number))[1].tobytes())
        images.append({"id": number, "file_name": file, "width": 160, "height": 160})
        points = random.uniform(20, 140, (17, 2)).round(1)
        keypoints = np.concatenate([points, np.full((17, 1), 2)], 1).ravel().tolist()
        person = {"image_id": number, "category_id": 1, "bbox": [10, 10, 140, 140], "area": 19600, "iscrowd": 0}
        annotations.append({**person, "id": f"{number}{HOSTILE[0]}", "keypoints": keypoints, "num_keypoints": 17})
        results.append({"image_id": number, "category_id": 1, "keypoints": keypoints, "score": 0.9})
    category = {"id": 1, "name": HOSTILE[0], "keypoints": names, "skeleton": [], "sigmas": list(COCO17.sigmas or ())}
    truth = root / 'truth"><b>.json'
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    arguments: list[object] = ["eval", "--ann", truth, "--images", root, "--bootstrap", 20]
    for number in (1, 2):
        file_name = root / f"{number} [red] {HOSTILE[0].replace('/', chr(0x2215))}`|.json"
        file_name.write_text(json.dumps(results))
        arguments += ["--results", file_name]
    return arguments


def test_nothing_from_outside_becomes_an_element_of_the_gallery(gallery: Path) -> None:
    page = check(gallery, own_scripts=1)
    words = "".join(page.words)
    assert all(html.printable(name) in words for name in HOSTILE)
    files = {unquote(address, errors="surrogateescape") for address in page.addresses}
    assert {name.replace("\x00", "").replace("/", "\u2215") for name in HOSTILE} <= files


def test_nothing_from_outside_becomes_an_element_of_the_report(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = posecli(capfd, *hostile_dataset(tmp_path), "--out", tmp_path / "out")
    assert result.code == 0, result.err
    page = check(tmp_path / "out" / "report.html", own_scripts=0)
    assert html.printable(HOSTILE[0]) in "".join(page.words)
    table = (tmp_path / "out" / "comparison.md").read_text()
    fence = re.search(r"^(`{3,})\n.*\n\1$", table, re.MULTILINE)
    assert fence is not None and "<script" not in table.replace(fence[0], "")


def browse(page: Path, folder: Path, *options: str) -> str:
    """The page's document after its scripts have run, in a browser without a network."""
    line = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    line += ["--proxy-server=127.0.0.1:9", "--virtual-time-budget=4000", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([*line, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    assert "<html" in done.stdout, done.stderr
    return done.stdout


@needs_browser
def test_in_a_browser_only_the_gallerys_own_script_runs(gallery: Path, tmp_path: Path) -> None:
    document = browse(gallery, tmp_path, "--window-size=1200,2000")
    assert not re.search(r"<html[^>]*pwned", document)
    assert "Who is seen when" in document and 'class="joint"' in document  # its own did


@needs_browser
def test_in_a_browser_no_script_runs_in_the_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert posecli(capfd, *hostile_dataset(tmp_path), "--out", tmp_path / "out").code == 0
    assert not re.search(r"<html[^>]*pwned", browse(tmp_path / "out" / "report.html", tmp_path))


@needs_browser
def test_the_policy_stops_scripts_that_are_not_the_pages_own(tmp_path: Path) -> None:
    """Also if escaping were forgotten: elements, handlers, addresses and files beside the page."""
    (tmp_path / "beside.js").write_text(RUNS)
    inside = f'<script>{RUNS}</script><img src=x onerror="{RUNS}"><script src=beside.js></script>'
    inside += f'<svg onload="{RUNS}"></svg><iframe src="javascript:parent.{RUNS}"></iframe>'
    own = "document.title = 'own'"
    for script in ("", own):
        page = tmp_path / f"page{len(script)}.html"
        element = html.script_element(script) if script else ""
        page.write_text(f"{html.head('t', 'p { color: red }', script)}{inside}{element}</body></html>")
        document = browse(page, tmp_path)
        assert not re.search(r"<html[^>]*pwned", document)
        assert ("<title>own" in document) == bool(script)


@needs_browser
def test_pictures_and_style_are_loaded_from_a_file(gallery: Path, tmp_path: Path) -> None:
    """Seen from a probe with the page's own policy: a picture beside it has its pixels, the style is applied."""
    thumbnail = next((gallery.parent / ".posecli" / "thumbnails").glob("*/*.jpg"))
    shutil.copy(thumbnail, tmp_path / "a #1%.jpg")
    script = """addEventListener('load', () => { const i = document.images[0];
      document.title = [i.naturalWidth > 0, getComputedStyle(document.body).color].join(' ') })"""
    page = tmp_path / "probe.html"
    picture_element = f'<img src="{html.url("a #1%.jpg")}">'
    page.write_text(
        f"{html.head('t', 'body { color: rgb(1, 2, 3) }', script)}{picture_element}{html.script_element(script)}"
    )
    assert "<title>true rgb(1, 2, 3)" in browse(page, tmp_path)


@given(st.text() | st.sampled_from(HOSTILE))
def test_escaped_text_is_text(value: str) -> None:
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag == "p" and len(attrs) == 1
            found.append(str(attrs[0][1]))

        def handle_data(self, data: str) -> None:
            found.append(data)

    reader = Reader()
    reader.feed(f'<p title="{html.text(value)}">{html.text(value)}</p>')
    reader.close()
    assert found[0] == "".join(found[1:]) == html.printable(value)
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e\u2028]", found[0])
    found[0].encode()


@given(st.text(st.characters(exclude_characters="\x00")))
def test_an_address_leads_to_the_file_of_that_name(path: str) -> None:
    address = html.url(path)
    assert address.isascii() and not set(address) & set("\"'<> ?#:\\")
    split = urlsplit(address)
    assert not split.scheme and not split.netloc
    if not re.search("[\ud800-\udc7f\udd00-\udfff]", path):
        kept = unquote(address, errors="surrogateescape")
        assert kept.removeprefix("." if path.startswith("/") else "").encode("utf-8", "surrogateescape") == path.encode(
            "utf-8", "surrogateescape"
        )


@given(st.recursive(st.text() | st.sampled_from(HOSTILE), lambda inner: st.lists(inner, max_size=3)))
def test_a_json_island_holds_what_it_was_given(document: Any) -> None:
    data = html.json_for_script(document)
    assert data.isascii() and not set(data) & set("<>&")
    assert json.loads(data) == document


@pytest.mark.parametrize("name", [*HOSTILE, "", "\n", "x" * 3000, "\ud800"])
def test_charts_take_any_name(name: str, recwarn: pytest.WarningsRecorder) -> None:
    drawn = svg([Panel(name, name, name, [Series("a", [name, f"{name}2"], [1.0, 2.0])], kind="bars")])
    assert "<script" not in drawn and "<img" not in drawn
    drawn.encode()
    assert not recwarn.list


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cell_of_markdown_is_one_cell(name: str) -> None:
    cell = _cell(f"{name}\n|")
    assert "\n" not in cell and "<" not in cell and not re.search(r"(?<!\\)\|", cell)
