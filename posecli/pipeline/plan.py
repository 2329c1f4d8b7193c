"""The plan of a run: output files of each input, and the checks, before any work, that they may be written."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from posecli.atomic import temporary
from posecli.errors import MachineError, UsageError
from posecli.media.identity import name_key
from posecli.media.inputs import Input, content_key, printable
from posecli.media.sources import source_of
from posecli.media.write_images import photo_name
from posecli.media.write_video import video_name
from posecli.pipeline.events import Job
from posecli.remote import identity
from posecli.results.lock import locked
from posecli.results.names import OutputPlaces, page_count, page_name, sibling_name
from posecli.results.output_list import OutputList, read_output_list, write_output_list
from posecli.results.protect import Protected, refuse_replacing
from posecli.results.records import move_to_subfolders, read_header, record_path
from posecli.results.tables import TABLES, table_suffix
from posecli.text import printed

# The files about all inputs.
RESULTS = ("coco.json", "coco_results.json", "run.json", "index.html")
# The folder of records, journals and lock; posecli owns all files in it.
HIDDEN = ".posecli"


def plan(inputs: Sequence[Input], out: Path) -> list[Job]:
    """Assign each input its output and record. No two inputs share a file, whatever tables are written."""
    places = OutputPlaces((*RESULTS, HIDDEN), _files_of)
    jobs = []
    for number, item in enumerate(inputs):
        place = places.assign(item.name, item.kind)
        output = _media(place, item.kind)
        # Equal texts are kept once.
        jobs.append(Job(number, item, place if output == place else output, out, place))
    return jobs


def _media(place: str, kind: str) -> str:
    named = video_name(place) if kind == "video" else photo_name(place)
    return sibling_name(place, named[len(place) :])


def _files_of(place: str, kind: str) -> list[str]:
    return [_media(place, kind), *(sibling_name(place, table_suffix(table)) for table in TABLES)]


def refuse_replacing_inputs(
    jobs: Sequence[Job], out: Path, tables: Sequence[str], *, media: bool = True, reads: Iterable[Path] = ()
) -> None:
    """Raise UsageError where a file that the jobs would write is one of their sources or another file in reads."""
    protected = Protected([*_sources(jobs), *reads])
    refuse_replacing(protected, (out / file for file in _planned(jobs, tables, media)), "--out")
    # A file with the name of a temporary file may have been given as an input.
    refuse_replacing(protected, (temporary(out / name) for name in RESULTS), "--out")
    for job in jobs:
        if job.input.path.name.startswith(".posecli-") and job.input.address is None and not job.input.error:
            parts = {temporary(out / other.output).absolute() for other in jobs}
            refuse_replacing(protected, sorted(parts), "--out")
            break


def refuse_replacing_remote_inputs(jobs: Sequence[Job], address: str, tables: Sequence[str], *, media: bool) -> None:
    """Raise UsageError where a file that the jobs would write to this address is one of their inputs."""
    inputs = {}
    for job in jobs:
        if job.input.remote is not None and job.input.error is None:
            inputs[name_key("/".join(identity(job.input.remote.address) or ()))] = job
    if not inputs or (place := identity(address)) is None:
        return
    out = "/".join(place)
    for name in _planned(jobs, tables, media):
        replaced = inputs.get(name_key(f"{out}/{name}"))
        if replaced is not None:
            raise UsageError(f"--out would replace the input {printed(replaced.input.shown)}: choose another folder")


def _sources(jobs: Sequence[Job]) -> Iterator[Path]:
    for job in jobs:
        if job.input.remote is not None:
            continue
        if job.input.address is None:
            yield job.input.path
            continue
        source = source_of(job.input.address)
        yield from source.numbered_images().values()
        if source.kind == "stdin":
            # `< clip.mp4`: only the descriptor is known.
            with suppress(OSError, ValueError, AttributeError):
                yield Path(f"/dev/fd/{sys.stdin.fileno()}")


def _planned(jobs: Sequence[Job], tables: Sequence[str], media: bool) -> Iterator[str]:
    yield from (*RESULTS, HIDDEN)
    yield from _further_pages(jobs)
    for job in jobs:
        if media:
            yield job.output
        for table in tables:
            yield sibling_name(job.place, table_suffix(table))


def _further_pages(jobs: Sequence[Job]) -> Iterator[str]:
    return (page_name(page) for page in range(2, page_count(len(jobs)) + 1))


@contextmanager
def output_folder(
    jobs: Sequence[Job], out: Path, tables: Sequence[str], *, overwrite: bool, media: bool = True
) -> Iterator[tuple[str, ...]]:
    """Prepare and lock the output folder; gives remarks on earlier results in it.

    Raises MachineError where it cannot be written or another run writes there, UsageError where files that posecli did
    not write, or results of other inputs with the same names, would be replaced without overwrite.
    """
    if not overwrite:
        # Checked before anything is created, so that a refused folder is not changed.
        _refuse_foreign(_planned(jobs, tables, media), out, read_output_list(out))
    prepare_output(out)
    with locked(out, "--out", f"{HIDDEN}/lock"):
        try:
            move_to_subfolders(out)
            remarks = _update_list(jobs, out, tables, overwrite, media)
        except OSError as error:
            raise MachineError(f"--out {printed(out)}: cannot be written ({error.strerror})") from error
        yield remarks


def _update_list(
    jobs: Sequence[Job], out: Path, tables: Sequence[str], overwrite: bool, media: bool
) -> tuple[str, ...]:
    """Add what is planned to the output list; remarks on earlier results. Raises as output_folder, OSError."""
    output_list = read_output_list(out)
    if not overwrite:
        _refuse_namesakes(jobs, output_list)
    remarks = _remarks(jobs, out, output_list, overwrite)
    joined = output_list.joined(_planned(jobs, tables, media), {job.input.name: _where(job.input) for job in jobs})
    if joined != output_list:
        write_output_list(out, joined)
    return remarks


def prepare_output(out: Path) -> None:
    """Check that the output can be written. Raises MachineError."""
    probe = temporary(out / f"probe-{os.getpid()}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.unlink(missing_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
        blocked = [name for name in RESULTS if (out / name).is_dir()]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MachineError(f"--out {printed(out)}: cannot be written ({reason})") from error
    if blocked:
        raise MachineError(f"--out {printed(out)}: cannot be written ({blocked[0]} is a folder there)")


def _refuse_foreign(planned: Iterable[str], out: Path, output_list: OutputList) -> None:
    """Raise UsageError where existing files that no run wrote would be replaced."""
    root = os.fspath(out)
    foreign = [file for file in planned if not output_list.owns(file) and file != HIDDEN and _is_replaced(root, file)]
    if foreign:
        raise UsageError(
            f"--out {printed(out)}: {_some(foreign)} there {'are' if len(foreign) > 1 else 'is'} not posecli's: "
            "choose another folder, or replace with --overwrite"
        )


def _is_replaced(root: str, file: str) -> bool:
    """Whether writing the output would replace an existing file. A folder can only be replaced by a folder."""
    try:
        found = os.lstat(f"{root}/{file}")
    except (OSError, ValueError):
        return False
    return not stat.S_ISDIR(found.st_mode) or file.endswith(table_suffix("openpose"))


def _refuse_namesakes(jobs: Sequence[Job], output_list: OutputList) -> None:
    """Raise UsageError where results of another input with the same name would be replaced."""
    others = [job.input.name for job in jobs if _is_namesake(job, output_list)]
    if others:
        was = output_list.sources[others[0]]
        raise UsageError(
            f"--out holds the results of other inputs with the same name, {_some(others)} (of {printed(was)}): "
            "choose another folder, or replace them with --overwrite"
        )


def _is_namesake(job: Job, output_list: OutputList) -> bool:
    before = output_list.sources.get(job.input.name)
    if before is None or job.input.error is not None or job.input.live or before == _where(job.input):
        return False
    header = read_header(job.record)
    if job.input.remote is not None:
        return header is not None and header.get("version") != job.input.remote.version
    # Inputs that are not files, such as pipes, can be read only once.
    if header is None or (job.input.address is None and not os.path.isfile(job.input.path)):  # noqa: PTH113
        return False
    try:
        # A file that was moved is the same input.
        return bool(header.get("content") != content_key(job.input.source))
    except OSError:
        return False


def _remarks(jobs: Sequence[Job], out: Path, output_list: OutputList, overwrite: bool) -> tuple[str, ...]:
    names = {job.input.name for job in jobs}
    others = [name for name in output_list.sources if name not in names and record_path(out, name).is_file()]
    remarks = []
    if others:
        remarks.append(
            f"{printed(out)} holds results of {_count(len(others))} not given now ({_some(others)}): their media and "
            "records stay, but coco.json, run.json and index.html are replaced by those of the inputs given now"
        )
    replaced = [job.input.name for job in jobs if overwrite and _is_namesake(job, output_list)]
    replaced += [job.input.name for job in jobs if job.input.live and job.record.is_file()]
    if replaced:
        remarks.append(f"{printed(out)}: earlier results of {_some(replaced)} are replaced")
    return tuple(remarks)


def _where(item: Input) -> str:
    """The resolved path of an input, which distinguishes inputs of the same name."""
    if item.remote is not None:
        return printable(item.shown)
    if item.address is not None and source_of(item.address).kind != "images":
        return printable(item.shown)
    path = item.path if item.address is None else Path(item.address)
    folder, name = os.path.split(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118
    place = f"{_real_folder(folder).rstrip('/')}/{name}"
    return printable(os.path.realpath(place) if os.path.islink(place) else place)  # noqa: PTH114


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return printed(names[0]) + more


def _count(number: int) -> str:
    return f"{number:,} input{'' if number == 1 else 's'}"
