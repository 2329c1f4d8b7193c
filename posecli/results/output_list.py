"""What posecli wrote into an output folder, and from which inputs: OUT/.posecli/outputs.json.

It is written before the first output: a file of the folder that is not in the list was not written by posecli.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from posecli.atomic import AtomicFile
from posecli.results.names import page_name


@dataclass(frozen=True)
class OutputList:
    """files: names relative to the folder. sources: name of each input → its path.

    complete: False where an older posecli left results without such a list.
    """

    files: frozenset[str] = frozenset()
    sources: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True

    def owns(self, file: str) -> bool:
        """Whether posecli may replace the file, if it exists."""
        return not self.complete or file in self.files

    def joined(self, files: Iterable[str], sources: Mapping[str, str]) -> "OutputList":
        """The list with the files and sources of a new run added."""
        return OutputList(self.files | frozenset(files), {**self.sources, **sources}, self.complete)


def read_output_list(out: Path) -> OutputList:
    """The list of an output folder; empty for a new folder."""
    try:
        document = orjson.loads(_path(out).read_bytes())
        return OutputList(frozenset(document["files"]), dict(document["sources"]), bool(document["complete"]))
    except FileNotFoundError:
        records = out / ".posecli" / "records"
        return OutputList(complete=not (records.is_dir() and any(records.iterdir())))
    except (OSError, ValueError, KeyError, TypeError):
        return OutputList(complete=False)


def write_output_list(out: Path, output_list: OutputList) -> None:
    """Write the list atomically. Raises OSError."""
    document = {
        "files": sorted(output_list.files),
        "sources": dict(output_list.sources),
        "complete": output_list.complete,
    }
    with AtomicFile(_path(out)) as file:
        file.write(orjson.dumps({"schema": 1, **document}))


def remove_pages(out: Path, pages: int) -> None:
    """Remove the pages of an earlier gallery that had more of them, where they are in the list. Raises OSError."""
    number, stale = pages + 1, []
    while (out / page_name(number)).is_file():
        stale.append(page_name(number))
        number += 1
    if not stale:
        return
    output_list = read_output_list(out)
    ours = [name for name in stale if name in output_list.files]
    for name in ours:
        (out / name).unlink(missing_ok=True)
    write_output_list(out, replace(output_list, files=output_list.files - {*ours}))


def _path(out: Path) -> Path:
    return out / ".posecli" / "outputs.json"
