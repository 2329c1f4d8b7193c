"""The lock of a folder that is written to."""

import errno
import os
from pathlib import Path

import pytest

from posecli.errors import MachineError
from posecli.results import lock
from posecli.results.lock import locked


def test_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "out", "--out"):
        with pytest.raises(MachineError, match="another posecli"), locked(tmp_path / "new" / "out", "--out"):
            pass
        with locked(tmp_path / "other", "--out"):
            pass
    with locked(tmp_path / "new" / "out", "--out"):
        pass


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without(file: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_lock", without)
    with locked(tmp_path, "--out"):
        assert "has no locks" in caplog.text and len(caplog.messages) == 1


def test_a_lock_that_is_a_link_or_a_folder_is_not_opened(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".posecli-lock").symlink_to(precious)
    with pytest.raises(MachineError, match="cannot be written"), locked(tmp_path, "--out"):
        pass
    assert precious.read_text() == "mine"
    with pytest.raises(MachineError, match="cannot be written"), locked(precious, "--out"):
        pass
