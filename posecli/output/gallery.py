"""index.html: what a person opens first. One file, works offline, loads pictures as they scroll into view."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2

from posecli.output.manifest import Finished
from posecli.types import PixelArray

_THUMBNAIL = 480

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>posecli results</title>
<style>
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --text: #1a1d21; --soft: #667; --line: #dde1e7;
  --left: #0a84d6; --bad: #c0392b; --warn: #b7791f; }
@media (prefers-color-scheme: dark) { :root { --back: #14161a; --card: #1e2127; --text: #e8eaed; --soft: #9aa3ad;
  --line: #2d323a; --left: #4db2ff; --bad: #ff7b6b; --warn: #f0b850; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif }
header { padding: 28px clamp(16px, 4vw, 48px) 12px }
h1 { margin: 0 0 4px; font-size: 24px; letter-spacing: -.01em }
header p { margin: 0; color: var(--soft) }
a { color: var(--left) }
.bar { display: flex; gap: 10px; flex-wrap: wrap; padding: 12px clamp(16px, 4vw, 48px); position: sticky; top: 0;
  background: var(--back); z-index: 1; align-items: center }
.bar input, .bar select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 7px 11px }
.bar input { flex: 1 1 220px; max-width: 420px }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 18px;
  padding: 8px clamp(16px, 4vw, 48px) 48px }
article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden;
  content-visibility: auto; contain-intrinsic-size: 300px 300px }
article img, article video { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #0b0c0e }
article div { padding: 10px 14px 13px }
h2 { margin: 0 0 3px; font-size: 14px; font-weight: 600; overflow-wrap: anywhere }
.facts { color: var(--soft); font-size: 13px }
.bad { color: var(--bad) } .warn { color: var(--warn) }
.cause { margin: 6px 0 0; font-size: 13px; overflow-wrap: anywhere }
.none { aspect-ratio: 4 / 3; display: grid; place-items: center; color: var(--bad); background: color-mix(in srgb, var(--bad) 9%, var(--card)) }
</style></head><body>
"""

_SCRIPT = """<script>
const grid = document.querySelector('main'), cards = [...grid.children];
const text = document.querySelector('input'), sort = document.querySelector('select');
function show() {
  const wanted = text.value.toLowerCase();
  for (const c of cards) c.hidden = !c.dataset.name.toLowerCase().includes(wanted);
  const key = sort.value;
  const by = { order: c => +c.dataset.order, people: c => -c.dataset.people, failed: c => -c.dataset.failed,
               name: null }[key];
  cards.sort(by ? (a, b) => by(a) - by(b) || a.dataset.order - b.dataset.order
                : (a, b) => a.dataset.name.localeCompare(b.dataset.name));
  grid.append(...cards);
}
text.oninput = sort.onchange = show;
</script></body></html>
"""


def thumbnail_path(out: Path, record: Path) -> Path:
    """Where the thumbnail of the input with this record lies."""
    return out / ".posecli" / "thumbnails" / f"{record.stem}.jpg"


def write_thumbnail(path: Path, pixels: PixelArray) -> None:
    """A small JPEG of an annotated picture."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())


def write_gallery(
    out: Path, inputs: Iterable[tuple[Finished, Path | None]], totals: Mapping[str, Any], models: str
) -> None:
    """Write out/index.html. inputs: each with its thumbnail, if it has one."""
    part = out / "index.html.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(_HEAD)
        for piece in _top(totals, models):
            file.write(piece)
        file.write("<main>\n")
        for order, (item, thumbnail) in enumerate(inputs):
            file.write(_card(out, order, item, thumbnail))
        file.write("</main>\n" + _SCRIPT)
    part.replace(out / "index.html")


def _top(totals: Mapping[str, Any], models: str) -> Iterator[str]:
    status = totals["status"]
    failed = status.get("failed", 0)
    facts = [_count(totals["inputs"], "input"), _count(totals["frames"], "frame")]
    facts.append(f"{totals['people']:,} {'person' if totals['people'] == 1 else 'people'}")
    if totals["lost_frames"]:
        facts.append(f"<span class=warn>{_count(totals['lost_frames'], 'frame')} lost</span>")
    if failed:
        facts.append(f"<span class=bad>{failed} failed</span>")
    yield f"<header><h1>Poses</h1><p>{' · '.join(facts)} · {escape(models)}</p>"
    yield '<p><a href="coco.json">coco.json</a> · <a href="coco_results.json">coco_results.json</a> · '
    yield '<a href="run.json">run.json</a></p></header>\n'
    yield '<div class=bar><input type=search placeholder="Filter by name" aria-label="Filter by name">'
    yield '<select aria-label="Sort"><option value=order>In order<option value=name>By name'
    yield "<option value=people>Most people<option value=failed>Failed first</select></div>\n"


def _card(out: Path, order: int, item: Finished, thumbnail: Path | None) -> str:
    summary = item.summary
    name = escape(item.name)
    media = next(iter(summary.outputs), None)
    poster = _url(thumbnail.relative_to(out).as_posix()) if thumbnail is not None else ""
    if media is not None and item.kind == "video":
        shown = f'<video controls preload=none poster="{poster}" src="{_url(media)}"></video>'
    elif poster:
        picture = f'<img loading=lazy src="{poster}" alt="{name}">'
        shown = f'<a href="{_url(media)}">{picture}</a>' if media else picture
    else:
        shown = "<div class=none>no picture</div>"
    facts = [f"{summary.people:,} {'person' if summary.people == 1 else 'people'}"]
    if item.kind == "video":
        facts.append(_count(summary.frames, "frame"))
    if summary.width:
        facts.append(f"{summary.width}×{summary.height}")
    facts.append(f"{summary.seconds:.1f} s")
    cause = ""
    if summary.error:
        cause = f'<p class="cause bad">{escape(summary.error)}</p>'
    elif summary.lost_frames:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.lost.items())
        cause = f'<p class="cause warn">{_count(summary.lost_frames, "frame")} lost: {escape(reasons)}</p>'
    cause += "".join(f'<p class="cause warn">{escape(w)}</p>' for w in summary.warnings)
    return (
        f'<article data-name="{name}" data-order={order} data-people={summary.people} '
        f"data-failed={int(summary.status == 'failed')}>{shown}"
        f"<div><h2>{name}</h2><span class=facts>{' · '.join(facts)}</span>{cause}</div></article>\n"
    )


def _url(path: str) -> str:
    return escape(quote(path))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
