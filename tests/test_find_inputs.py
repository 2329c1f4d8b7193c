"""Folders, patterns and lists that hold more than photos and videos."""

import codecs
import os
import socket
import stat
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.cli.main import cli
from posecli.errors import NoInputError
from posecli.media.inputs import Input, find_inputs, sniff
from posecli.media.lists import paths_of
from posecli.media.walk import walk
from tests.media_factory import picture, write_photo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_photo(tmp_path / "in" / "a.jpg")
    return tmp_path / "in"


def found(*arguments: object) -> dict[str, str | None]:
    return {item.name: item.error for item in find_inputs([str(argument) for argument in arguments])}


def add_special(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.mp4").symlink_to("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket is short
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)


def test_pipes_sockets_and_devices_in_a_folder_are_never_opened(folder: Path) -> None:
    add_special(folder)
    assert found(folder) == {"a.jpg": None}
    assert found(folder / "*") == {"a.jpg": None}
    (folder / "sub").mkdir()
    os.mkfifo(folder / "sub" / "more.jpg")
    assert found(folder) == found(folder / "**") == {"a.jpg": None}
    result = CliRunner().invoke(cli, ["run", str(folder), "--dry-run", "--json"])
    assert result.exit_code == 0 and len(orjson.loads(result.output)) == 1


def test_a_pipe_in_a_list_is_told(folder: Path, tmp_path: Path) -> None:
    add_special(folder)
    listing = tmp_path / "list.txt"
    listing.write_text(f"{folder / 'a.jpg'}\n{folder / 'socket.png'}\n{folder / 'pipe.jpg'}\n")
    assert found(f"@{listing}") == {
        "a.jpg": None,
        "socket.png": "a socket, no file",
        "pipe.jpg": "a named pipe, no file",
    }


def test_a_locked_subfolder_is_an_input_with_its_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("locked", "open"):
        write_photo(folder / name / "b.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("posecli.media.walk.os.scandir", refuse)  # for root no folder is locked
    assert found(folder) == {
        "a.jpg": None,
        "locked": "the folder cannot be read (Permission denied)",
        "open/b.jpg": None,
    }
    monkeypatch.setattr("posecli.media.walk.os.scandir", lambda path: refuse(Path("locked")))
    assert found(folder) == {"in": "the folder cannot be read (Permission denied)"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every folder")
def test_a_really_locked_subfolder(folder: Path) -> None:
    locked = write_photo(folder / "locked" / "b.jpg").parent
    locked.chmod(0)
    try:
        assert found(folder)["locked"] == "the folder cannot be read (Permission denied)"
        locked.chmod(stat.S_IRUSR)  # its names can be read, but nothing in it
        assert found(folder)["locked/b.jpg"] == "Permission denied"
    finally:
        locked.chmod(0o700)


def test_links_to_nothing_to_themselves_and_in_circles(folder: Path) -> None:
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "gone").symlink_to("nowhere")
    (folder / "self.png").symlink_to("self.png")
    (folder / "up").symlink_to(folder)
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "sub" / "twin").symlink_to(folder / "sub")
    errors = found(folder)
    assert set(errors) == {"a.jpg", "gone.jpg", "self.png"}
    assert errors["gone.jpg"] == "No such file or directory" and "symbolic links" in str(errors["self.png"])


def test_a_file_that_vanishes_while_it_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photo(folder / "b.jpg")

    def walk_late(*arguments: Path) -> object:
        for path, problem in walk(*arguments):
            (folder / "b.jpg").unlink(missing_ok=True)
            yield path, problem

    monkeypatch.setattr("posecli.media.inputs.walk", walk_late)
    assert found(folder) == {"a.jpg": None, "b.jpg": "No such file or directory"}


def test_folders_deeper_than_recursion_goes(tmp_path: Path) -> None:
    here, deep = Path.cwd(), 1200
    write_photo(tmp_path / "a.jpg")
    os.chdir(tmp_path)
    try:
        for _ in range(deep):
            Path("d").mkdir()
            os.chdir("d")
        errors = found(tmp_path)
        for _ in range(deep):
            os.chdir("..")
            Path("d").rmdir()
    finally:
        os.chdir(here)
    assert errors["a.jpg"] is None


PATHS = ["photos/a.jpg", "Фото/я.jpg", "写真/人.png", "a b ü.jpg", "x.jpg"]
ENCODINGS = [
    (b"", "utf-8"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"", "utf-16-le"),
    (b"", "utf-16-be"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
]


@pytest.mark.parametrize(("mark", "encoding"), ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\0"])
def test_lists_of_every_encoding(mark: bytes, encoding: str, end: str) -> None:
    if end == "\0" and encoding != "utf-8":
        return  # such names do not occur
    assert paths_of(mark + (end.join(PATHS)).encode(encoding), "x") == PATHS
    assert paths_of(mark + (end + end.join(PATHS) + end + end).encode(encoding), "x") == PATHS


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=20)


@settings(max_examples=60)
@given(names=st.lists(NAMES.filter(lambda name: name.strip() and "\ufeff" not in name), min_size=1, max_size=8))
@pytest.mark.parametrize(("mark", "encoding"), ENCODINGS)
def test_any_paths_come_back(mark: bytes, encoding: str, names: list[str]) -> None:
    paths = [f"{name}.jpg" for name in names]
    assert paths_of(mark + "\n".join(paths).encode(encoding), "x") == paths


def test_a_utf16_list_whose_first_character_is_a_file() -> None:
    assert paths_of("/.jpg".encode("utf-16-le"), "x") == ["/.jpg"]
    assert paths_of("/Ā.jpg".encode("utf-16-le"), "x") == ["/Ā.jpg"]


def test_bytes_that_are_no_utf8_stay_as_they_are() -> None:
    assert [os.fsencode(path) for path in paths_of(b"caf\xe9.jpg\nb.jpg\n", "x")] == [b"caf\xe9.jpg", b"b.jpg"]
    assert paths_of(b"a\0b\0c\0", "x") == ["abc"]  # as UTF-16


def test_a_nul_separated_list_of_short_names_that_exist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in "xyz":
        write_photo(folder / "a.jpg").rename(folder / name)
    assert paths_of(b"x\0y\0z\0", "-") == ["x", "y", "z"]


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n", codecs.BOM_UTF8, codecs.BOM_UTF16_LE + b"\n\0", b"\0\0\0"])
def test_an_empty_list_is_one_line(content: bytes) -> None:
    with pytest.raises(NoInputError, match=r"list x\.txt: it is empty"):
        paths_of(content, "x.txt")


def test_a_photo_is_no_list(folder: Path) -> None:
    for suffix in (".jpg", ".png", ".webp"):
        path = write_photo(folder / f"large{suffix}", picture(300, 200))
        with pytest.raises(NoInputError, match=r"list .*: not a list of paths but binary data"):
            find_inputs([f"@{path}"])
    with pytest.raises(NoInputError, match="damaged UTF-16-LE"):
        paths_of(codecs.BOM_UTF16_LE + b"a\0\0\xd8", "x")


@pytest.mark.parametrize("line", ["/", "//", "/../", "/."])
def test_no_list_walks_the_whole_disk(folder: Path, line: str) -> None:
    listing = folder / "list.txt"
    listing.write_text(f"{line}\n{folder / 'a.jpg'}\n")
    errors = [(item.name, item.error) for item in find_inputs([f"@{listing}"])]
    assert errors == [("disk", "a whole disk in a list: name a folder of it"), ("a.jpg", None)]


TEXTS = {
    "BMI_table.csv": b"BMI,name\n22,a\n",
    "BM.txt": b"BM" + b"Some longer text about BMW cars and their owners. " * 5,
    "P1 notes.txt": b"P1 person one, session",
    "P2 plan.txt": b"P2 3 people and 4 dogs",
    "P3.csv": b"P3 10 20 30 people\n",
    "P4.txt": b"P4 10 20 went home\n",
    "P5.md": b"P5 10 20 200 went home\n",
    "P6": b"P6\n# heading\n",
}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_texts_that_begin_like_pictures_are_passed_over(folder: Path, name: str) -> None:
    (folder / name).write_bytes(TEXTS[name])
    assert found(folder) == {"a.jpg": None}


def test_pictures_of_these_formats_are_still_found(folder: Path) -> None:
    for suffix in (".bmp", ".ppm", ".pgm"):
        write_photo(folder / f"small{suffix}", picture(5, 4) if suffix != ".pgm" else picture(5, 4)[..., 0])
    (folder / "plain.pbm").write_bytes(b"P1 # by hand\n3 2\n101\n010\n")
    (folder / "text").write_bytes(b"P5 4 2 255\nabcdefgh")
    (folder / "deep.pgm").write_bytes(b"P5\n#made\n2 2\n65535\n\0\x01\0\x02\0\x03\0\x04")
    assert set(found(folder)) == {
        "a.jpg", "small.bmp", "small.ppm", "small.pgm", "plain.pbm", "text", "deep.pgm"
    }  # fmt: skip
    assert sniff(folder / "small.bmp") == "photo"


def test_every_input_is_a_plain_value(folder: Path) -> None:
    (item,) = find_inputs([str(folder)])
    assert item == Input(folder / "a.jpg", "a.jpg", "photo")
