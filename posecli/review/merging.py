"""coco_corrected.json is kept up to date while edits are made: some seconds after the last one, and at the end."""

import logging
import threading
import time
from pathlib import Path

from posecli.corrections.corrections import Corrections
from posecli.corrections.journal import journal_path
from posecli.corrections.merge import NAME, write_corrected
from posecli.errors import PosecliError

LOG = logging.getLogger(__name__)

# Seconds after the last edit; writing takes at most about this part of the time.
_PAUSE, _SHARE = 3.0, 0.1


class Merging:
    """Writes the file in a thread of its own. It can be killed at any time: the file is derived from the journal."""

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._edited = threading.Event()
        self._written = 0 if self._is_outdated() else corrections.seq
        self._last_edit = 0.0
        self._took = 0.0
        if self._written < corrections.seq:
            self.changed()
        if corrections.write:
            threading.Thread(target=self._work, name="merging", daemon=True).start()

    def _is_outdated(self) -> bool:
        """Whether a process that was killed left the file older than the journal."""
        try:
            journal = journal_path(self._corrections.out).stat().st_mtime_ns
            return (self._corrections.out / NAME).stat().st_mtime_ns < journal
        except OSError:
            return True

    def changed(self) -> None:
        """An edit was made."""
        self._last_edit = time.monotonic()
        self._edited.set()

    def write(self) -> tuple[Path, int]:
        """Write the file now; its path, and the number of people that were edited. Raises PosecliError."""
        self._write()
        return self._corrections.out / NAME, touched_people(self._corrections)

    def close(self) -> None:
        """Write the file if edits were made since it was written. Raises PosecliError."""
        self._ended.set()
        self._edited.set()
        if self._corrections.write and self._written < self._corrections.seq:
            self._write()

    def _write(self) -> None:
        with self._writing:
            seq, began = self._corrections.seq, time.monotonic()
            write_corrected(self._corrections)
            self._written, self._took = seq, time.monotonic() - began

    def _work(self) -> None:
        while True:
            self._edited.wait()
            pause = max(_PAUSE, self._took / _SHARE)
            while (left := self._last_edit + pause - time.monotonic()) > 0 and not self._ended.wait(left):
                pass
            if self._ended.is_set():
                return
            self._edited.clear()
            try:
                if self._written < self._corrections.seq:
                    self._write()
            except PosecliError as error:
                LOG.warning("%s", error)


def touched_people(corrections: Corrections) -> int:
    """The number of people, one in each frame, whom an edit in effect changed, added or accepted."""
    found = 0
    for name in {edit.input for edit in corrections.since(0) if edit.input is not None}:
        try:
            frames = corrections.run_inputs.frames(name)
        except PosecliError:  # no longer an input of this folder
            continue
        for index in range(frames):
            if corrections.changes(name, index):
                found += sum(person.touched for person in corrections.frame(name, index).people)
    return found
