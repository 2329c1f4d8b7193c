"""Atomic files: missing folders, what killed runs left, errors."""

from pathlib import Path

import pytest

from posecli.atomic import AtomicFile, create, temporary


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    with AtomicFile(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_a_killed_run_left_is_replaced(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    part = temporary(path)
    other.write_bytes(b"kept")
    if kind == "file":
        part.write_bytes(b"old")
    elif kind == "folder":
        (part / "inside").mkdir(parents=True)
    else:
        part.symlink_to(other)
    with create(part) as file:
        file.write(b"new")
    assert part.read_bytes() == b"new" and not part.is_symlink() and other.read_bytes() == b"kept"


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="halfway"), AtomicFile(path) as file:
        file.write(b"new")
        raise ValueError("halfway")
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]


def test_a_file_that_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError), AtomicFile(path) as file:
        file.write(b"new")
    assert [*tmp_path.iterdir()] == [path] and (path / "inside").is_dir()
