"""index.html: the gallery of a run. One file that works offline and loads images as they scroll into view."""

import io
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import cv2

from posecli.atomic import AtomicFile
from posecli.media.scaling import scaled
from posecli.results import html
from posecli.results.curves import compact, read_curves
from posecli.results.manifest import Finished
from posecli.results.records import record_path
from posecli.results.tables import TABLES, table_path
from posecli.types import PixelArray

_THUMBNAIL = 480


def thumbnail_path(out: Path, record: Path) -> Path:
    """The path of an input's thumbnail."""
    return out / ".posecli" / "thumbnails" / f"{record.stem}.jpg"


def write_thumbnail(path: Path, pixels: PixelArray) -> None:
    """Write a small JPEG of an annotated image."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = scaled(pixels, *size)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    path.parent.mkdir(parents=True, exist_ok=True)
    with AtomicFile(path) as file:
        file.write(encoded.tobytes())


def write_gallery(
    out: Path, inputs: Iterable[tuple[Finished, Path | None]], totals: Mapping[str, Any], models: str
) -> None:
    """Write out/index.html. inputs: each with its thumbnail, if it has one.

    Tracked clips get a timeline of each track and curves of joint angles, from their records. Existing tables are
    linked.
    """
    with AtomicFile(out / "index.html") as whole, io.TextIOWrapper(whole, encoding="utf-8", newline="\n") as file:
        script = _text("gallery.js")
        file.write(html.head("posecli results", _text("gallery.css"), script))
        for piece in _top(totals, models):
            file.write(piece)
        file.write("<main>\n")
        for order, (item, thumbnail) in enumerate(inputs):
            file.write(_card(out, order, item, thumbnail))
        file.write(f"</main>\n{html.script_element(script)}</body></html>\n")


def _top(totals: Mapping[str, Any], models: str) -> Iterator[str]:
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
    yield '<a href="run.json">run.json</a></p></header>\n'
    yield '<div class=bar><input type=search placeholder="Filter by name" aria-label="Filter by name">'
    yield '<select aria-label="Sort"><option value=order>In order<option value=name>By name'
    yield "<option value=people>Most people<option value=failed>Failed first</select></div>\n"


def _card(out: Path, order: int, item: Finished, thumbnail: Path | None) -> str:
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
    tables = {table: table_path(out, table, item.place or item.name) for table in TABLES}
    facts += [f'<a href="{html.url(p.relative_to(out).as_posix())}">{t}</a>' for t, p in tables.items() if p.exists()]
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


def _text(name: str) -> str:
    return (resources.files("posecli.results") / name).read_text(encoding="utf-8")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
