"""The files about all inputs: coco.json, coco_results.json, run.json, index.html and tables."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from posecli.keypoints import KeypointSet
from posecli.results.coco import Recorded, write_coco
from posecli.results.gallery import thumbnail_path, write_gallery
from posecli.results.manifest import Finished, lost_reasons, manifest, write_manifest
from posecli.results.output_list import remove_pages
from posecli.results.records import record_path
from posecli.results.tables import write_tables

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """What a run ended with. document: run.json without its list of inputs. lost: lost frames by reason."""

    document: Mapping[str, Any]
    lost: Mapping[str, int]

    @property
    def totals(self) -> Mapping[str, Any]:
        """Numbers of inputs, frames and people: the entry of that name in run.json."""
        totals: Mapping[str, Any] = self.document["totals"]
        return totals


def write_results(
    out: Path,
    finished: Sequence[Finished],
    keypoint_set: KeypointSet,
    described: Mapping[str, Any],
    tables: Sequence[str] = (),
) -> Results:
    """Write them from the records of finished inputs, of which one at a time is in memory.

    described: run.json's entries about the run. tables: names of formats.
    """
    recorded = _Recorded(out, finished)
    failed: dict[str, str] = {}
    written = write_tables(out, tables, recorded, keypoint_set, failed)
    if failed:
        for reason in failed.values():
            LOG.warning("failed: %s", reason)
        finished = [_without_table(item, failed.get(item.name)) for item in finished]
        recorded = _Recorded(out, finished)
    write_coco(out, recorded, keypoint_set)
    document = manifest(finished, {**described, "tables": written})
    write_manifest(out, document, finished)
    thumbnails = ((item, thumbnail_path(out, record_path(out, item.name))) for item in finished)
    cards = ((item, path if path.is_file() else None) for item, path in thumbnails)
    pose = document["models"]["pose"]
    failures = [place for place, item in enumerate(finished) if item.summary.status == "failed"]
    pages = write_gallery(out, cards, document["totals"], f"{pose['backbone']} on {pose['runtime']}", failures)
    remove_pages(out, pages)
    return Results(document, lost_reasons(finished))


class _Recorded(Sequence[Recorded]):
    """The inputs that have a record, each made when it is asked for: paths of a million records need much memory."""

    def __init__(self, out: Path, finished: Sequence[Finished]) -> None:
        self._out, self._finished = out, [item for item in finished if item.summary.status != "failed"]

    def __len__(self) -> int:
        return len(self._finished)

    @overload
    def __getitem__(self, index: int) -> Recorded: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Recorded]: ...

    def __getitem__(self, index: int | slice) -> Recorded | Sequence[Recorded]:
        if isinstance(index, slice):
            return _Recorded(self._out, self._finished[index])
        item = self._finished[index]
        return Recorded(item.name, item.kind, record_path(self._out, item.name), item.place, item.summary)


def _without_table(item: Finished, reason: str | None) -> Finished:
    """An input whose table failed has failed; its record is kept, so that a later run writes only the table."""
    if reason is None:
        return item
    return replace(item, summary=replace(item.summary, status="failed", error=reason), skipped=False)
