"""The files about all inputs: coco.json, coco_results.json, run.json, index.html and tables."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posecli.keypoints import KeypointSet
from posecli.results.coco import Recorded, write_coco
from posecli.results.gallery import thumbnail_path, write_gallery
from posecli.results.manifest import Finished, manifest, write_manifest
from posecli.results.tables import write_tables

LOG = logging.getLogger(__name__)


def write_results(
    out: Path,
    finished: Sequence[Finished],
    records: Mapping[str, Path],
    keypoint_set: KeypointSet,
    described: Mapping[str, Any],
    tables: Sequence[str] = (),
) -> dict[str, Any]:
    """Write them from the records of finished inputs; returns the document of run.json.

    records: name of each input → its record. described: run.json's entries about the run. tables: names of formats.
    """
    recorded = _recorded(finished, records)
    failed: dict[str, str] = {}
    written = write_tables(out, tables, recorded, keypoint_set, failed)
    if failed:
        for reason in failed.values():
            LOG.warning("failed: %s", reason)
        finished = [_without_table(item, failed.get(item.name)) for item in finished]
        recorded = _recorded(finished, records)
    write_coco(out, recorded, keypoint_set)
    document = manifest(finished, {**described, "tables": written})
    write_manifest(out, document)
    thumbnails = {item.name: thumbnail_path(out, records[item.name]) for item in finished}
    cards = [(item, path if (path := thumbnails[item.name]).is_file() else None) for item in finished]
    pose = document["models"]["pose"]
    write_gallery(out, cards, document["totals"], f"{pose['backbone']} on {pose['runtime']}")
    return document


def _recorded(finished: Sequence[Finished], records: Mapping[str, Path]) -> list[Recorded]:
    return [
        Recorded(item.name, item.kind, records[item.name], item.place)
        for item in finished
        if item.summary.status != "failed"
    ]


def _without_table(item: Finished, reason: str | None) -> Finished:
    """An input whose table failed has failed; its record is kept, so that a later run writes only the table."""
    if reason is None:
        return item
    return replace(item, summary=replace(item.summary, status="failed", error=reason), skipped=False)
