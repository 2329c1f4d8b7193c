"""--out at an address: the run works in a local folder, its mirror, and copies what it wrote there.

Records and the output list are fetched at the start. Of other files that exist there the mirror has empty files of the
same names, by which a run sees that they exist. An input's files are uploaded when it ends, the record last.
"""

import hashlib
import os
import queue
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import orjson

from posecli.errors import MachineError, PosecliError
from posecli.pipeline.events import Job, Progress
from posecli.pipeline.remote_lock import remote_lock
from posecli.remote import RemoteError, RemoteFolder, without_password
from posecli.results.gallery import thumbnail_path
from posecli.results.lock import locked
from posecli.results.manifest import Finished
from posecli.results.records import Summary
from posecli.runtime.cache import cache_folder
from posecli.text import printed

# The mirror that wrote there last: its records need not be fetched again.
_TOKEN = ".posecli/mirror"
_RECORDS, _THUMBNAILS, _LIST = ".posecli/records/", ".posecli/thumbnails/", ".posecli/outputs.json"
# Connections that copy files of several inputs, and inputs that wait for one.
_CONNECTIONS, _WAITING = 4, 16

Ended = Callable[[Job, Finished], None]


def mirror_folder(address: str) -> Path:
    """The mirror of an address."""
    digest = hashlib.blake2b(without_password(address).rstrip("/").encode(), digest_size=16).hexdigest()
    return cache_folder() / "remote" / f"out-{digest}" / "files"


@contextmanager
def mirrored(address: str) -> Iterator["Mirror"]:
    """The mirror of --out, made equal to what is there, and locked. Errors name the address.

    Raises MachineError where it cannot be read or written, or another run writes there.
    """
    folder = mirror_folder(address)
    mirror = Mirror(address, folder)
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder.parent, "--out", "lock"))
                stack.enter_context(remote_lock(mirror.there, _name_of(folder.parent)))
                mirror.fetch()
            except RemoteError as error:
                raise MachineError(f"--out {error}") from error
            except OSError as error:
                raise MachineError(f"--out {folder}: cannot be written ({error.strerror})") from error
            try:
                yield mirror
            except KeyboardInterrupt:
                with suppress(MachineError):
                    mirror.publish()
                raise
    except PosecliError as error:
        if str(folder.parent) not in str(error):
            raise
        raise type(error)(mirror.named(str(error))) from error


class Mirror:
    """A local folder whose files are copied to an address; there: the folder at the address."""

    def __init__(self, address: str, folder: Path) -> None:
        self.folder, self.there = folder, RemoteFolder(address)
        # Name of each file that is there → what the mirror's file of this name was then.
        self._known: dict[str, tuple[int, int, int]] = {}
        # Files of inputs: they are copied when these end. Of those that failed to be, they stay for the next run.
        self._kept: set[str] = set()
        self._begun = False

    def named(self, text: str) -> str:
        """The text with the address for the mirror's path."""
        for folder in (self.folder, self.folder.parent):
            for written in (str(folder), printed(folder)):
                text = text.replace(written, self.there.shown)
        return text

    def fetch(self) -> None:
        """Make the mirror equal to what is there. Raises RemoteError, OSError."""
        token = self.there.read(_TOKEN)
        if self.folder.exists() and (token is None or token != _read(self.folder / _TOKEN)):
            # Another machine wrote there, or what was there was deleted.
            shutil.rmtree(self.folder)
        found = self.there.list()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._forget(found)
        records = [name for name in found if name.startswith(_RECORDS) and not (self.folder / name).is_file()]
        names = [*records, *([_LIST] if _LIST in found else [])]
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(self._fetch, names))
        for name in found:
            if not name.startswith(".posecli/") or name.startswith(_THUMBNAILS):
                with suppress(OSError):  # a name that no local file can have, and so no output
                    _empty(self.folder / name)
            if (state := _state(self.folder / name)) is not None:
                self._known[name] = state
        self._check_list()

    def _forget(self, found: dict[str, int]) -> None:
        """Delete empty files of the mirror whose files were deleted there; others wait to be copied."""
        for name in _names(self.folder):
            path = self.folder / name
            if name not in found and (path.stat().st_size == 0 or name == _LIST):
                path.unlink()

    def _fetch(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(".posecli-fetched.part" if name == _LIST else f"{path.name}.part")
        self.there.get(name, part)
        part.replace(path)

    def _check_list(self) -> None:
        """A list that was copied in part would let a run replace files that posecli did not write."""
        content = _read(self.folder / _LIST)
        with suppress(ValueError):
            if content is None or isinstance(orjson.loads(content), dict):
                return
        raise MachineError(
            f"--out {self.there.shown}: {_LIST} is damaged, perhaps by an interrupted upload: delete it, and start "
            "again with --overwrite"
        )

    def begin(self) -> None:
        """Before the first output: the output list is copied. Raises MachineError."""
        try:
            self._copy(_LIST)
            token = _read(self.folder / _TOKEN)
            if token is None:
                token = uuid.uuid4().hex.encode()
                self.there.write(_TOKEN, token)
                (self.folder / _TOKEN).write_bytes(token)
        except RemoteError as error:
            raise MachineError(f"--out {error}") from error
        self._begun = True

    @contextmanager
    def uploading(self, ended: Ended, progress: Progress) -> Iterator[tuple[Ended, Progress]]:
        """Functions that take inputs that ended, and pass them on when their files have been copied.

        All have been when the block ends, but after an error.
        """
        uploads = _Uploads(self, ended, progress)
        try:
            yield uploads.ended, uploads
            uploads.finish_all()
        finally:
            uploads.stop()

    def upload(self, job: Job, item: Finished) -> Finished:
        """Copy the files of an input that ended, the record last; the result, which may be that this failed."""
        thumbnail, record = thumbnail_path(self.folder, job.record), job.record
        names = [job.output, *(path.relative_to(self.folder).as_posix() for path in (thumbnail, record))]
        try:
            if self._known.get(names[-1]) != _state(record):
                self._remove(names[-1])  # else it would stand for new media as well
            for name in names:
                self._copy(name, empty=name != names[-1])
        except RemoteError as error:
            self._kept.update(names)
            problem = f"{printed(item.path)}: not uploaded to --out ({error})"
            return replace(item, summary=Summary("failed", error=problem), skipped=False)
        if item.summary.error is not None:
            item = replace(item, summary=replace(item.summary, error=self.named(item.summary.error)))
        return item

    def publish(self) -> None:
        """Copy the files about all inputs, run.json last, and delete there what was deleted here.

        Raises MachineError.
        """
        if not self._begun:
            return
        changed = [name for name in _names(self.folder) if not name.startswith((_RECORDS, _THUMBNAILS))]
        gone = [name for name in self._known if _state(self.folder / name) is None]
        try:
            for name in sorted({*changed, *gone} - self._kept, key=lambda name: (name == "run.json", name)):
                self._copy(name)
        except RemoteError as error:
            raise MachineError(f"--out {error}; the same command uploads what is missing") from error

    def _copy(self, name: str, *, empty: bool = False) -> None:
        """Copy a file where it was changed, delete it there where it was deleted. empty: its content is not needed."""
        path = self.folder / name
        state = _state(path)
        if state is None:
            self._remove(name)
        elif state != self._known.get(name):
            self.there.put(path, name)
            if empty:
                _empty(path)
            self._known[name] = _state(path) or state

    def _remove(self, name: str) -> None:
        if name in self._known:
            self.there.remove(name)
            del self._known[name]


class _Uploads:
    """Copies the files of inputs that ended in threads; it is the run's Progress."""

    def __init__(self, mirror: Mirror, ended: Ended, progress: Progress) -> None:
        self._mirror, self._ended, self._progress = mirror, ended, progress
        self._waiting: queue.Queue[tuple[Job, Finished] | None] = queue.Queue(_WAITING)
        self._stop, self._lock = threading.Event(), threading.RLock()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def ended(self, job: Job, item: Finished) -> None:
        """Take an input that ended; waits while many do."""
        while not self._stop.is_set():
            with suppress(queue.Full):
                return self._waiting.put((job, item), timeout=0.1)

    def begin(self, name: str, frames: int) -> None:
        """As Progress.begin."""
        with self._lock:
            self._progress.begin(name, frames)

    def advance(self, name: str, frames: int) -> None:
        """As Progress.advance."""
        with self._lock:
            self._progress.advance(name, frames)

    def finish(self, item: Finished) -> None:
        """The end of an input is told when its files have been copied."""

    def finish_all(self) -> None:
        """Wait until all have been copied."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.1)
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """Copy no more."""
        self._stop.set()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                with suppress(queue.Empty):
                    given = self._waiting.get(timeout=0.1)
                    if given is None:
                        return
                    item = self._mirror.upload(*given)
                    with self._lock:
                        self._ended(given[0], item)
                        self._progress.finish(item)
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()


def _name_of(folder: Path) -> str:
    """A name that no other mirror has, of this or another cache folder. Raises OSError."""
    name = _read(folder / "name")
    if not name:
        name = uuid.uuid4().hex.encode()
        (folder / "name").write_bytes(name)
    return name.decode("ascii", "replace")


def _names(folder: Path) -> Iterator[str]:
    """All files of a mirror that are copied, relative to it."""
    for here, folders, files in os.walk(folder):
        inside = Path(here).relative_to(folder)
        if inside == Path(".posecli"):
            folders[:] = [name for name in folders if name in ("records", "thumbnails")]
            files = [name for name in files if name == "outputs.json"]
        folders.sort()
        yield from ((inside / name).as_posix() for name in sorted(files) if not name.endswith(".part"))


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _empty(path: Path) -> None:
    """An empty file of this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def lines_named(mirror: Mirror | None, lines: Sequence[str]) -> list[str]:
    """Messages with the address for the mirror's path."""
    return list(lines) if mirror is None else [mirror.named(line) for line in lines]
