"""What posecli wrote into an output folder, and from which inputs: OUT/.posecli/outputs.json.

It is written before the first output, so that a file that stands in the folder but not in it is somebody else's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from posecli.atomic import AtomicFile


@dataclass(frozen=True)
class Ledger:
    """files: names under the folder. sources: name of each input → the path it had.

    complete: False where an older posecli left results without such a list.
    """

    files: frozenset[str] = frozenset()
    sources: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True

    def owns(self, file: str) -> bool:
        """Whether posecli may replace the file, if it is there."""
        return not self.complete or file in self.files

    def joined(self, files: Iterable[str], sources: Mapping[str, str]) -> "Ledger":
        """With those of a run that begins."""
        return Ledger(self.files | frozenset(files), {**self.sources, **sources}, self.complete)


def read_ledger(out: Path) -> Ledger:
    """The ledger of an output folder; an empty one for a new folder."""
    try:
        document = orjson.loads(_path(out).read_bytes())
        return Ledger(frozenset(document["files"]), dict(document["sources"]), bool(document["complete"]))
    except FileNotFoundError:
        records = out / ".posecli" / "records"
        return Ledger(complete=not (records.is_dir() and any(records.iterdir())))
    except (OSError, ValueError, KeyError, TypeError):
        return Ledger(complete=False)


def write_ledger(out: Path, ledger: Ledger) -> None:
    """Write it atomically. Raises OSError."""
    document = {"files": sorted(ledger.files), "sources": dict(ledger.sources), "complete": ledger.complete}
    with AtomicFile(_path(out)) as file:
        file.write(orjson.dumps({"schema": 1, **document}))


def _path(out: Path) -> Path:
    return out / ".posecli" / "outputs.json"
