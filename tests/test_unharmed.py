"""No input is ever written to, and nothing that is not posecli's is replaced without a word."""

import json
import os
from pathlib import Path

import pytest

from posecli.errors import UsageError
from posecli.results.protect import Protected, refuse_replacing
from posecli.text import printed
from tests.entry_points import QUICK, Result, posecli
from tests.media_factory import picture, write_photo, write_video


@pytest.fixture
def run(tiny_weights: Path, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def call(*arguments: object, command: str = "run") -> Result:
        return posecli(capfd, command, "--weights", tiny_weights, *QUICK, *arguments)

    return call


def snapshot(*folders: Path) -> dict[Path, tuple[bytes, int]]:
    files = (p for folder in folders for p in folder.rglob("*") if p.is_file() and ".posecli" not in p.parts)
    return {path: (path.read_bytes(), path.stat().st_ino) for path in files}


def refused(result: Result) -> None:
    """One line, exit 2, before any work."""
    assert result.code == 2, result
    assert len(result.err.splitlines()) == 1 and "would replace the input" in result.err and result.out == ""


def same_folder(root: Path) -> list[object]:
    return [root / "a.jpg", "--out", root]


def by_link(root: Path) -> list[object]:
    (root.parent / "link").symlink_to(root)
    return [root / "a.jpg", "--out", root.parent / "link"]


def input_through_link(root: Path) -> list[object]:
    (root.parent / "link").symlink_to(root)
    return [root.parent / "link" / "a.jpg", "--out", root]


def hard_link(root: Path) -> list[object]:
    (root.parent / "out").mkdir()
    os.link(root / "a.jpg", root.parent / "out" / "a.jpg")
    return [root / "a.jpg", "--out", root.parent / "out"]


def link_in_output(root: Path) -> list[object]:
    (root.parent / "out").mkdir()
    (root.parent / "out" / "a.jpg").symlink_to(root / "a.jpg")
    return [root / "a.jpg", "--out", root.parent / "out"]


def input_is_link(root: Path) -> list[object]:
    (root.parent / "out").mkdir()
    (root / "a.jpg").rename(root.parent / "out" / "a.jpg")
    (root / "a.jpg").symlink_to(root.parent / "out" / "a.jpg")
    return [root / "a.jpg", "--out", root.parent / "out"]


def other_case(root: Path) -> list[object]:
    (root / "sub").mkdir()
    (root / "a.jpg").rename(root / "sub" / "A.JPG")
    write_photo(root / "x" / "a.jpg")
    return [root / "x" / "a.jpg", root / "sub" / "A.JPG", "--out", root / "sub"]


def composed_otherwise(root: Path) -> list[object]:
    write_photo(root / "o" / "u\u0308.jpg")
    write_photo(root / "x" / "\u00fc.jpg")
    return [root / "x" / "\u00fc.jpg", root / "o" / "u\u0308.jpg", "--out", root / "o"]


def behind_a_link(root: Path) -> list[object]:
    (root / "sub").mkdir()
    (root.parent / "link").symlink_to(root / "sub")
    return [root / "a.jpg", "--out", root.parent / "link" / ".."]


def anothers_output(root: Path) -> list[object]:
    write_video(root / "clip.avi", 2, codec="mpeg4")
    write_video(root / "x" / "clip.avi.mp4", 2)
    (root / "clip.avi.mp4").hardlink_to(root / "x" / "clip.avi.mp4")
    return [root / "x" / "clip.avi.mp4", root / "clip.avi", "--out", root]


def folder_link_in_output(root: Path) -> list[object]:
    (root.parent / "tree" / "sub").mkdir(parents=True)
    write_photo(root.parent / "tree" / "sub" / "a.jpg")
    (root / "sub").mkdir()
    (root / "a.jpg").rename(root / "sub" / "a.jpg")
    (root.parent / "out").mkdir()
    (root.parent / "out" / "sub").symlink_to(root / "sub")
    return [root.parent / "tree", root / "sub" / "a.jpg", "--out", root.parent / "out"]


def named_as_a_result(root: Path) -> list[object]:
    (root / "a.jpg").rename(root / "coco.json")
    return [root / "coco.json", "--out", root]


def boxes_file(root: Path) -> list[object]:
    (root / "coco.json").write_text("[]")
    return [root / "a.jpg", "--detector", f"boxes:{root / 'coco.json'}", "--no-media", "--out", root]


def list_file(root: Path) -> list[object]:
    (root / "run.json").write_text(str(root / "a.jpg"))
    return [f"@{root / 'run.json'}", "--no-media", "--out", root]


def in_an_openpose_folder(root: Path) -> list[object]:
    write_photo(root / "a.jpg.openpose" / "b.jpg")
    return [root / "a.jpg", root / "a.jpg.openpose" / "b.jpg", "--no-media", "--format", "openpose", "--out", root]


def in_the_hidden_folder(root: Path) -> list[object]:
    write_photo(root / ".posecli" / "thumbnails" / "b.jpg")
    return [root / ".posecli" / "thumbnails" / "b.jpg", "--out", root]


def numbered(root: Path) -> list[object]:
    for i in range(3):
        write_photo(root / f"v_{i}.jpg")
    write_photo(root / "x" / "v_1.jpg")
    return [root / "v_%d.jpg", root / "x" / "v_1.jpg", "--out", root]


@pytest.mark.parametrize(
    "case",
    [same_folder, by_link, input_through_link, hard_link, link_in_output, input_is_link, other_case,
     composed_otherwise, behind_a_link, anothers_output, folder_link_in_output, named_as_a_result, boxes_file,
     list_file,
     in_an_openpose_folder, in_the_hidden_folder, numbered],
)  # fmt: skip
def test_an_output_that_means_an_input_is_refused(case, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path / "in"
    write_photo(root / "a.jpg")
    arguments = case(root)
    before = snapshot(tmp_path)
    for extra in ([], ["--dry-run"], ["--overwrite"]):
        refused(run(*arguments, *extra))
    assert snapshot(tmp_path) == before


def test_a_file_behind_a_link_is_no_other(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    """link/../x.jpg is not x.jpg, though it looks so."""
    write_photo(tmp_path / "x.jpg")
    write_photo(tmp_path / "far" / "x.jpg", picture(40, 40, 3))
    (tmp_path / "far" / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "sub")
    result = run(tmp_path / "x.jpg", tmp_path / "link" / ".." / "x.jpg", "-o", tmp_path / "out", "--json")
    assert [item["name"] for item in json.loads(result.out)["inputs"]] == ["x.jpg", "x~2.jpg"]


def test_from_the_folder_itself(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    write_photo(tmp_path / "a.jpg")
    write_video(tmp_path / "clip.mp4", 3)
    before = snapshot(tmp_path)
    monkeypatch.chdir(tmp_path)
    refused(run("a.jpg", "--out", "."))
    refused(run("clip.mp4", "-o", ".", command="video"))
    refused(run("./a.jpg", "--out", tmp_path / "nothing" / ".."))
    result = run(".", "--out", ".")
    assert result.code == 2 and "is the folder of the inputs" in result.err
    assert snapshot(tmp_path) == before
    result = run("", "--out", "sub")  # "$UNSET" is not this folder
    assert result.code == 2 and "empty text" in result.err
    # What means no input is written as ever.
    assert run("a.jpg", "--out", "sub").code == 0
    assert run("*", "--out", "sub").code == 0 and run("a.jpg", "clip.mp4", "sub", "--out", "sub").code == 0


def test_stdin_is_an_input_too(tmp_path: Path, tiny_weights: Path) -> None:
    from tests.entry_points import start

    clip = write_video(tmp_path / "stdin.mp4", 3)
    content = clip.read_bytes()
    with clip.open("rb") as file:
        process = start("video", "-", "-o", tmp_path, "--weights", tiny_weights, *QUICK, stdin=file.fileno())
        _, err = process.communicate(timeout=100)
    assert process.returncode == 2 and "would replace the input" in err and clip.read_bytes() == content


def test_a_link_in_the_output_is_replaced_not_written_through(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    write_photo(tmp_path / "in" / "a.jpg")
    write_video(tmp_path / "in" / "b.mp4", 3)
    precious = {name: tmp_path / f"precious-{name}" for name in ("a.jpg", "b.mp4", "coco.json", "run.json")}
    (tmp_path / "out").mkdir()
    for name, path in precious.items():
        path.write_bytes(name.encode())
        (tmp_path / "out" / name).symlink_to(path)
    assert run(tmp_path / "in", "-o", tmp_path / "out").code == 2
    assert run(tmp_path / "in", "-o", tmp_path / "out", "--overwrite").code == 0
    for name, path in precious.items():
        assert path.read_bytes() == name.encode() and not (tmp_path / "out" / name).is_symlink()


def test_somebody_elses_files_are_not_replaced(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    source, out = write_photo(tmp_path / "in" / "a.jpg"), tmp_path / "dataset"
    out.mkdir()
    for name in ("coco.json", "a.jpg", "a.jpg.csv"):
        (out / name).write_text("mine")
        result = run(source, "-o", out, "--format", "csv")
        assert result.code == 2 and "not posecli's" in result.err and "--overwrite" in result.err, result
        assert (out / name).read_text() == "mine" and list(out.iterdir()) == [out / name]
        (out / name).unlink()
    assert run(source, "-o", out).code == 0
    assert run(source, "-o", out, "--flip").code == 0  # its own results are
    (out / "a.jpg.csv").write_text("mine")
    assert run(source, "-o", out, "--format", "csv").code == 2


def test_results_of_other_inputs_are_told_and_kept(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    one, two = write_photo(tmp_path / "1" / "a.jpg"), write_photo(tmp_path / "2" / "b.jpg")
    out = tmp_path / "out"
    assert run(one, "-o", out).err.count("holds results") == 0
    media = (out / "a.jpg").read_bytes()
    result = run(two, "-o", out, "-q")
    assert result.code == 0 and "holds results of 1 input not given now (a.jpg)" in result.err
    assert result.err.index("holds results") == result.err.index(str(out)) + len(str(out)) + 1
    assert (out / "a.jpg").read_bytes() == media
    # Given together, the first is not done again.
    both = json.loads(run(one, two, "-o", out, "--json").out)
    assert both["totals"]["status"] == {"skipped": 2}


def test_another_input_of_the_same_name_does_not_replace_the_first(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    one, two = write_photo(tmp_path / "1" / "a.jpg"), write_photo(tmp_path / "2" / "a.jpg", picture(80, 60, 4))
    out = tmp_path / "out"
    assert run(one, "-o", out).code == 0
    before = snapshot(out)
    result = run(two, "-o", out)
    assert result.code == 2 and "results of other inputs with the same name" in result.err and str(one) in result.err
    assert snapshot(out) == before
    result = run(two, "-o", out, "--overwrite")
    assert result.code == 0 and "earlier results of a.jpg are replaced" in result.err
    # The same file, changed or moved, is no other input.
    write_photo(two, picture(60, 60, 5))
    assert run(two, "-o", out).code == 0
    (tmp_path / "3").mkdir()
    two.rename(tmp_path / "3" / "a.jpg")
    result = run(tmp_path / "3" / "a.jpg", "-o", out, "--json")
    assert json.loads(result.out)["totals"]["status"] == {"skipped": 1}


def test_another_recording_of_a_live_source_is_told(tmp_path: Path) -> None:
    from posecli.media.inputs import Input
    from posecli.pipeline.plan import output_folder, plan

    jobs = plan([Input(Path("webcam:0"), "webcam-0", "video", address="webcam:0")], tmp_path / "out")
    with output_folder(jobs, tmp_path / "out", (), overwrite=False) as remarks:
        assert remarks == ()
    jobs[0].record.parent.mkdir(parents=True)
    jobs[0].record.touch()
    with output_folder(jobs, tmp_path / "out", (), overwrite=False) as remarks:
        assert len(remarks) == 1 and "earlier results of webcam-0 are replaced" in remarks[0]


def test_many_files_are_compared_with_few_calls_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    files = [folder / f"{i:06d}.jpg" for i in range(1000)]
    for file in files:
        file.touch()
    calls = {"stat": 0, "lstat": 0, "readlink": 0}
    for name in calls:

        def counting(
            *arguments: object, _name: str = name, _real: object = getattr(os, name), **options: object
        ) -> object:
            calls[_name] += 1
            return _real(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(os, name, counting)
    protected = Protected(files)
    refuse_replacing(protected, [tmp_path / "out" / file.name for file in files], "--out")
    monkeypatch.undo()
    # One for each file and a constant: the folders above are looked at once.
    assert calls["lstat"] < 1100 and calls["stat"] < 1100 and calls["readlink"] < 10
    with pytest.raises(UsageError, match="000999"):
        refuse_replacing(protected, [files[-1]], "--out")
    with pytest.raises(UsageError):
        refuse_replacing(protected, [folder.parent], "--out")


def test_printed_is_one_line_of_utf8() -> None:
    assert printed("a\nb\x1b[31m\u202e.jpg") == "a\\nb\\x1b[31m\\u202e.jpg"
    assert printed(os.fsdecode(b"\xff.jpg")) == "\\xff.jpg"
    assert printed("\ud800x") == "\\ud800x"
    assert printed("ünï\u202fcode 人.jpg") == "ünï\u202fcode 人.jpg"
