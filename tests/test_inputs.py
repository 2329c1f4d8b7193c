"""What counts as an input, and under which name."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.errors import NoInputError
from posecli.media.inputs import content_key, find_inputs, sniff
from tests.media_factory import write_photo, write_video


def names(arguments: list[str], exclude: Path | None = None) -> list[tuple[str, str]]:
    return [(item.name, item.kind) for item in find_inputs(arguments, exclude=exclude)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    write_photo(folder / "b.jpg")
    write_photo(folder / "sub dir" / "b.jpg")
    write_photo(folder / "ünï\ncode.png")
    write_video(folder / "clip.mp4", frames=3)
    (folder / "notes.txt").write_text("not media")
    (folder / "text.jpg").write_text("not a photo")
    (folder / ".hidden.jpg").write_bytes((folder / "b.jpg").read_bytes())
    (folder / "video_named.jpg").write_bytes((folder / "clip.mp4").read_bytes())
    (folder / "no_suffix").write_bytes((folder / "b.jpg").read_bytes())
    return folder


def test_folders_are_searched_and_kinds_told_by_content(tree: Path) -> None:
    assert names([str(tree)]) == [
        ("b.jpg", "photo"),
        ("clip.mp4", "video"),
        ("no_suffix", "photo"),
        ("text.jpg", "unknown"),
        ("video_named.jpg", "video"),
        ("ünï\ncode.png", "photo"),
        ("sub dir/b.jpg", "photo"),
    ]


def test_symlink_loops_end_and_the_output_is_left_out(tree: Path) -> None:
    (tree / "sub dir" / "loop").symlink_to(tree)
    out = tree / "results"
    write_photo(out / "b.jpg")
    assert len(names([str(tree)], exclude=out)) == 7


def test_inputs_of_one_name_get_their_own(tree: Path, tmp_path: Path) -> None:
    other = write_photo(tmp_path / "other" / "B.jpg")
    assert names([str(tree / "b.jpg"), str(tree / "sub dir" / "b.jpg"), str(other), str(tree / "b.jpg")]) == [
        ("b.jpg", "photo"),
        ("b~2.jpg", "photo"),
        ("B~3.jpg", "photo"),
    ]


def test_globs_lists_and_stdin(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names([str(tree / "**" / "b.jpg")]) == [("b.jpg", "photo"), ("b~2.jpg", "photo")]
    listing = tmp_path / "list.txt"
    listing.write_text(f"{tree / 'b.jpg'}\n\n{tree / 'clip.mp4'}\r\n")
    assert names([f"@{listing}"]) == [("b.jpg", "photo"), ("clip.mp4", "video")]
    stdin = type("Stdin", (), {"buffer": io.BytesIO(f"{tree}/ünï\ncode.png\0{tree}/b.jpg\0".encode())})
    monkeypatch.setattr("sys.stdin", stdin)
    assert names(["@-"]) == [("ünï\ncode.png", "photo"), ("b.jpg", "photo")]


def test_what_cannot_be_read_is_an_input_with_its_reason(tree: Path) -> None:
    (tree / "empty.jpg").touch()
    found = {item.name: item.error for item in find_inputs([str(tree / "gone.jpg"), str(tree), str(tree / "x*.jpg")])}
    assert found["gone.jpg"] == "No such file or directory"
    assert found["empty.jpg"] == "the file is empty"
    assert found["text.jpg"] == "neither a photo nor a video by its content"
    assert found["x*.jpg"] == "no file matches this pattern"
    assert found["b.jpg"] is None


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no photo or video"):
        find_inputs([str(tmp_path)])
    with pytest.raises(NoInputError, match="list"):
        find_inputs([f"@{tmp_path / 'none.txt'}"])


@given(start=st.binary(max_size=500))
def test_any_bytes_are_sniffed_without_a_crash(tmp_path_factory: pytest.TempPathFactory, start: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(start)
    assert sniff(path) in {"photo", "video", "unknown"}


def test_the_content_key_follows_the_content(tree: Path) -> None:
    assert content_key(tree / "b.jpg") == content_key(tree / "sub dir" / "b.jpg")
    assert content_key(tree / "b.jpg") != content_key(tree / "clip.mp4")
