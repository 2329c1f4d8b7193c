"""index.html: the gallery of a run. It works offline and loads images as they scroll into view.

Of many inputs it has several pages: index.html, index-2.html and so on.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from posecli.atomic import AtomicFile
from posecli.media.scaling import scaled
from posecli.results import html
from posecli.results.curves import compact, read_curves
from posecli.results.manifest import Finished
from posecli.results.names import PAGE_CARDS, page_count, page_name, shortened_name
from posecli.results.records import record_path
from posecli.results.tables import TABLES, table_suffix
from posecli.types import PixelArray

_THUMBNAIL = 480
# Pages with failed inputs that are linked at the top.
_MOST_FAILED = 20


def thumbnail_path(out: Path, record: Path) -> Path:
    """The path of an input's thumbnail."""
    return out / ".posecli" / "thumbnails" / record.parent.name / f"{record.stem}.jpg"


def write_thumbnail(path: Path, pixels: PixelArray) -> None:
    """Write a small JPEG of an annotated image."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = scaled(pixels, *size)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    with AtomicFile(path) as file:
        file.write(encoded.tobytes())


def write_gallery(
    out: Path,
    inputs: Iterable[tuple[Finished, Path | None]],
    totals: Mapping[str, Any],
    models: str,
    failed: Sequence[int] = (),
) -> int:
    """Write out/index.html and its further pages, one input at a time; returns the number of pages.

    inputs: each with its thumbnail, if it has one. totals: as in run.json. failed: places of the failed ones, from 0.
    Tracked clips get a timeline of each track and curves of joint angles, from their records. Existing tables are
    linked.
    """
    pages, script, css = page_count(totals["inputs"]), _text("gallery.js"), _text("gallery.css")
    failed_pages = sorted({place // PAGE_CARDS + 1 for place in failed}) if pages > 1 else []
    cards, tables = enumerate(inputs), _Tables(out)
    for page in range(1, pages + 1):
        path = out / page_name(page)
        with AtomicFile(path) as whole, io.TextIOWrapper(whole, encoding="utf-8", newline="\n") as file:
            file.write(html.head("posecli results", css, script))
            links = _links(page, pages)
            for piece in _top(totals, models, links, failed_pages):
                file.write(piece)
            file.write("<main>\n")
            for order, (item, thumbnail) in islice(cards, PAGE_CARDS):
                file.write(_card(out, order, item, thumbnail, tables))
            file.write(f"</main>\n{links}{html.script_element(script)}</body></html>\n")
    return pages


def _links(page: int, pages: int) -> str:
    """Links to other pages: the first and last ones, those beside this one; empty for a single page."""
    if pages == 1:
        return ""
    shown = sorted({1, pages, *range(max(1, page - 3), min(pages, page + 3) + 1)})
    parts, before = [], 0
    for number in shown:
        parts += ["<span>…</span>"] if number > before + 1 else []
        parts.append(f"<b aria-current=page>{number}</b>" if number == page else _link(number, f"{number:,}"))
        before = number
    ends = [_link(page - 1, "← Previous")] if page > 1 else []
    parts = [*ends, *parts] + ([_link(page + 1, "Next →")] if page < pages else [])
    return f'<nav class=pages aria-label="Pages">{" ".join(parts)}</nav>\n'


def _link(page: int, text: str) -> str:
    return f'<a href="{html.url(page_name(page))}">{text}</a>'


def _top(totals: Mapping[str, Any], models: str, links: str, failed_pages: Sequence[int]) -> Iterator[str]:
    status = totals["status"]
    failed = status.get("failed", 0)
    facts = [_count(totals["inputs"], "input"), _count(totals["frames"], "frame")]
    facts.append(_count(totals["people"], "pose"))
    if totals["lost_frames"]:
        facts.append(f"<span class=warn>{_count(totals['lost_frames'], 'frame')} lost</span>")
    if failed:
        facts.append(f"<span class=bad>{failed} failed</span>")
    yield f"<header><h1>Poses</h1><p>{' · '.join(facts)} · {html.text(models)}</p>"
    yield '<p><a href="coco.json">coco.json</a> · <a href="coco_results.json">coco_results.json</a> · '
    yield '<a href="run.json">run.json</a></p>'
    if failed_pages:
        more = f" and {len(failed_pages) - _MOST_FAILED} more" if len(failed_pages) > _MOST_FAILED else ""
        yield f"<p>Failed on page {', '.join(_link(n, f'{n:,}') for n in failed_pages[:_MOST_FAILED])}{more}</p>"
    yield f"</header>\n{links}"
    wanted = "Filter this page by name" if links else "Filter by name"
    yield f'<div class=bar><input type=search placeholder="{wanted}" aria-label="{wanted}">'
    yield '<select aria-label="Sort"><option value=order>In order<option value=name>By name'
    yield "<option value=people>Most people<option value=failed>Failed first</select></div>\n"


def _card(out: Path, order: int, item: Finished, thumbnail: Path | None, tables: "_Tables") -> str:
    summary = item.summary
    name = html.text(item.name)
    curves = _curves(out, item)
    # Without track ids only the poses of a clip can be counted, not the people.
    counted = summary.people if summary.tracks is None else summary.tracks
    if item.kind == "video" and summary.tracks is None:
        facts = [_count(counted, "pose")]
    else:
        facts = [f"{counted:,} {'person' if counted == 1 else 'people'}"]
    if item.kind == "video":
        facts.append(_count(summary.frames, "frame"))
    if summary.width:
        facts.append(f"{summary.width}×{summary.height}")
    facts.append(f"{summary.seconds:.1f} s")
    facts += [f'<a href="{html.url(file)}">{table}</a>' for table, file in tables.of(item.place or item.name)]
    cause = ""
    if summary.error:
        cause = f'<p class="cause bad">{html.text(summary.error)}</p>'
    elif summary.lost_frames:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.lost.items())
        cause = f'<p class="cause warn">{_count(summary.lost_frames, "frame")} lost: {html.text(reasons)}</p>'
    cause += "".join(f'<p class="cause warn">{html.text(w)}</p>' for w in summary.warnings)
    return (
        f'<article{" class=clip" if curves else ""} data-name="{name}" data-order={order} data-people={counted} '
        f"data-failed={int(summary.status == 'failed')}><div>{_media(out, item, thumbnail)}"
        f"<div class=text><h2>{name}</h2><span class=facts>{' · '.join(facts)}</span>{cause}</div></div>"
        f"{curves}</article>\n"
    )


def _media(out: Path, item: Finished, thumbnail: Path | None) -> str:
    """The player of a clip, or the image of a photo."""
    media = next(iter(item.summary.outputs), None)
    poster = html.url(thumbnail.relative_to(out).as_posix()) if thumbnail is not None else ""
    if media is not None and item.kind == "video":
        return f'<video controls playsinline preload=none poster="{poster}" src="{html.url(media)}"></video>'
    if not poster:
        return "<div class=none>no picture</div>"
    image = f'<img loading=lazy src="{poster}" alt="{html.text(item.name)}">'
    return f'<a href="{html.url(media)}">{image}</a>' if media else image


def _curves(out: Path, item: Finished) -> str:
    """The data of timelines and curves for the script; empty without tracks."""
    if item.kind != "video" or not item.summary.tracks:
        return ""
    curves = read_curves(record_path(out, item.name))
    if curves is None:
        return ""
    return f'<div class=curves><script type="application/json">{html.json_for_script(compact(curves))}</script></div>'


class _Tables:
    """Which tables exist: a folder is listed once for all of its inputs, which follow each other."""

    def __init__(self, out: Path) -> None:
        self._out, self._folder = out, ""
        self._suffixes = {table: table_suffix(table) for table in TABLES}
        self._there = self._list("")

    def of(self, place: str) -> Iterator[tuple[str, str]]:
        """Name and path, relative to the output folder, of each table of the input that has this place."""
        folder, slash, name = place.rpartition("/")
        if folder != self._folder:
            self._folder, self._there = folder, self._list(folder)
        if self._there:
            for table, suffix in self._suffixes.items():
                if (file := shortened_name(name, suffix)) in self._there:
                    yield table, f"{folder}{slash}{file}"

    def _list(self, folder: str) -> frozenset[str]:
        try:
            with os.scandir(self._out / folder) as entries:
                return frozenset(e.name for e in entries if e.name.endswith(tuple(self._suffixes.values())))
        except OSError:
            return frozenset()


def _text(name: str) -> str:
    return (resources.files("posecli.results") / name).read_text(encoding="utf-8")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
