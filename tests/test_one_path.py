"""One path never ends a run: what the file system refuses is that input's failure, the rest is done."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.atomic import temporary
from posecli.results.names import NAME_BYTES, OutputPlaces, shortened_name
from tests.entry_points import QUICK, Result, posecli
from tests.media_factory import picture, write_photo, write_video

TABLES = [word for name in ("csv", "jsonl", "openpose", "mot") for word in ("--format", name)]


@pytest.fixture
def run(tiny_weights: Path, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def call(*arguments: object) -> Result:
        return posecli(capfd, "run", "--weights", tiny_weights, *QUICK, *arguments)

    return call


def ended(out: Path) -> dict[str, str]:
    return {item["path"]: item["status"] for item in json.loads((out / "run.json").read_bytes())["inputs"]}


def test_names_of_255_bytes_are_done(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    root, out = tmp_path / "in", tmp_path / "out"
    names = ["x" * 251 + ".jpg", "x" * 250 + "y.jpg", "ü" * 125 + "v.jp2", "é" * 125 + "a.mkv"[1:], "z" * 251 + ".mp4"]
    for name in names:
        (write_photo if name.endswith(("g", "2")) else write_video)(root / f"t{Path(name).suffix}")
        (root / f"t{Path(name).suffix}").rename(root / name)
    write_photo(root / ("d" * 255) / "a.jpg")
    result = run(root, "-o", out, *TABLES)
    assert result.code == 0, result.err
    document = json.loads((out / "run.json").read_bytes())
    assert {item["name"] for item in document["inputs"]} == {*names, "d" * 255 + "/a.jpg"}
    outputs = [name for item in document["inputs"] for name in item["outputs"]]
    assert len(set(outputs)) == 6 and all((out / name).is_file() for name in outputs)
    assert {Path(name).suffix for name in outputs} == {".jpg", ".png", ".mp4"} and names[0] in outputs
    assert len(set(document["tables"])) == len(document["tables"]) == 6 * 3 + 2
    assert all((out / name).exists() for name in document["tables"])
    frames = [list((out / name).iterdir()) for name in document["tables"] if name.endswith(".openpose")]
    assert sorted(map(len, frames)) == [1, 1, 1, 1, 20, 20]
    # They stand: a second run has nothing to do.
    assert json.loads(run(root, "-o", out, "--json").out)["totals"]["status"] == {"skipped": 6}


def test_arguments_that_no_file_system_takes(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    good, out = write_photo(tmp_path / "good.jpg"), tmp_path / "out"
    long, deep = "q" * 300 + ".jpg", "/".join(["d" * 200] * 30) + "/x.jpg"
    through = f"{good}/x.jpg"
    result = run(long, deep, through, "v" * 300 + "_%05d.png", good, "-o", out)
    assert result.code == 1 and "unexpected" not in result.err, result.err
    assert ended(out)[str(good)] == "done" and list(ended(out).values()).count("failed") == 4
    assert result.err.count("File name too long") == 3 or "too long" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "PHOTO", "--weights", "LONG.safetensors"],
        ["run", "PHOTO", "--weights", "LONG"],
        ["run", "PHOTO", "--detector", "boxes:LONG"],
        ["run", "PHOTO", "--detector", "person", "--detector-weights", "LONG"],
        ["run", "@LONG"],
        ["run", "PHOTO", "--out", "LONG/LONG"],
        ["video", "LONG.mp4", "--dry-run", "--out", "LONG"],
        ["eval", "--ann", "LONG"],
        ["eval", "--ann", "LONG.json"],
        ["eval", "--ann", "PHOTO", "--images", "LONG"],
        ["eval", "--ann", "PHOTO", "--results", "LONG"],
        ["train", "--ann", "LONG", "--images", "LONG"],
        ["train", "--data", "LONG"],
        ["weights", "show", "LONG"],
    ],
)
def test_no_path_of_an_option_is_unexpected(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = write_photo(tmp_path / "a.jpg")
    line = [word.replace("LONG", "q" * 300).replace("PHOTO", str(photo)) for word in arguments]
    result = posecli(capfd, *line)
    assert "unexpected" not in result.err and "Traceback" not in result.err, result
    assert len(result.err.strip().splitlines()) == 1 or "Usage" in result.err or "--dry-run" in line, result
    assert result.code in (1, 2, 3, 4) or "--dry-run" in line


def test_a_file_where_another_needs_a_folder(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    write_photo(tmp_path / "r1" / "x.jpg")
    write_photo(tmp_path / "r2" / "x.jpg" / "y.jpg")
    write_photo(tmp_path / "r3" / "coco.json" / "y.jpg")
    for order in (("r1", "r2"), ("r2", "r1")):
        out = tmp_path / f"out-{order[0]}"
        result = run(*(tmp_path / name for name in order), tmp_path / "r3", "-o", out, *TABLES)
        assert result.code == 0, result.err
        outputs = [item["outputs"][0] for item in json.loads((out / "run.json").read_bytes())["inputs"]]
        assert len(set(outputs)) == 3 and all((out / name).is_file() for name in outputs)
        assert (out / "coco.json").is_file()
        # Given the other way round, places are others, and nothing is taken for done that lies elsewhere.
        result = run(*(tmp_path / name for name in reversed(order)), tmp_path / "r3", "-o", out)
        outputs = [item["outputs"] for item in json.loads((out / "run.json").read_bytes())["inputs"]]
        written = [name for names in outputs for name in names]
        assert len(set(written)) == len(written) and all((out / name).is_file() for name in written)
    # Where an earlier run left a folder, or a file, in the place, only that input fails.
    out = tmp_path / "later"
    assert run(tmp_path / "r2", "-o", out).code == 0
    write_photo(tmp_path / "r1" / "z.jpg")
    result = run(tmp_path / "r1", "-o", out)
    assert result.code == 1 and sorted(ended(out).values()) == ["done", "failed"]
    assert "x.jpg" in result.err and "irectory" in result.err
    out = tmp_path / "other"
    assert run(tmp_path / "r1", "-o", out).code == 0
    result = run(tmp_path / "r2", tmp_path / "r3", "-o", out)
    assert result.code == 1 and sorted(ended(out).values()) == ["done", "failed"] and "x.jpg" in result.err


def test_no_two_inputs_share_a_file() -> None:
    from posecli.pipeline.plan import _files_of

    places = OutputPlaces(["coco.json"], _files_of)
    names = [
        "a.avi",
        "a.avi.mp4",
        "A.AVI",
        "u\u0308.jpg",
        "\u00fc.jpg",
        "b.jpg",
        "b.jpg.openpose/b.jpg",
        "b.jpg.csv/c.jpg",
    ]
    names += ["coco.json/a.jpg", "x" * 255, "x" * 254 + "y"]
    taken = [places.assign(name, "video" if "avi" in name.lower() else "photo") for name in names]
    files = [f for name, place in zip(names, taken, strict=True)
             for f in _files_of(place, "video" if "avi" in name.lower() else "photo")]  # fmt: skip
    assert len({f.casefold() for f in files}) == len(files)
    folders = {str(parent) for f in files for parent in Path(f).parents}
    assert not folders & set(files) and "coco.json" not in folders
    assert all(len(part.encode()) <= NAME_BYTES for f in files for part in Path(f).parts)
    assert shortened_name("a" * 300, ".mot.txt").endswith(".mot.txt") and len(temporary(Path("x" * 255)).name) < 40


_PARTS = st.sampled_from(
    ["a", "A", "a.jpg", "a~2.jpg", "a.jpg.csv", "a.jpg.openpose", "\u00fc", "u\u0308", "coco.json", ".posecli"]
)
_LONG = st.text("x\u00fc\u4eba", min_size=80, max_size=140).map(
    lambda text: (text * 3).encode()[:250].decode("utf-8", "ignore")
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_PARTS | _LONG, min_size=1, max_size=3).map("/".join), max_size=12, unique=True), st.data())
def test_whatever_inputs_are_called_their_files_never_meet(names: list[str], data: st.DataObject) -> None:
    from posecli.media.identity import name_key
    from posecli.media.inputs import Input
    from posecli.pipeline.plan import HIDDEN, RESULTS, _files_of, plan

    kinds = [data.draw(st.sampled_from(["photo", "video", "unknown"])) for _ in names]
    jobs = plan([Input(Path(n), n, kind) for n, kind in zip(names, kinds, strict=True)], Path("out"))
    files = [name_key(file) for job in jobs for file in _files_of(job.place, job.input.kind)]
    files += [name_key(file) for file in (*RESULTS, HIDDEN)]
    assert len(set(files)) == len(files)
    assert not {str(folder) for file in files for folder in Path(file).parents} & set(files)
    assert all(len(part.encode()) <= NAME_BYTES for job in jobs for f in _files_of(job.place, job.input.kind)
               for part in Path(f).parts)  # fmt: skip
    assert all(job.output in _files_of(job.place, job.input.kind) for job in jobs)
    if len(jobs) == 1 and len(names[0].encode()) < 200 and not {"coco.json", ".posecli"} & set(names[0].split("/")):
        assert jobs[0].place == names[0]


_PLACES = (
    "posecli.results.media_writer.write_image",
    "posecli.results.media_writer.VideoWriter",
    "posecli.results.input_writer.write_thumbnail",
    "posecli.results.input_writer.RecordWriter",
    "posecli.pipeline.estimate.Journal",
    "posecli.results.tables.AtomicFile",
    "posecli.pipeline.read.content_key",
)
_REFUSALS = [(place, errno.EACCES) for place in _PLACES]
_REFUSALS += [(_PLACES[i % 2], number) for i, number in enumerate((errno.ENAMETOOLONG, errno.ENOENT, errno.EIO))]


@pytest.mark.parametrize(("place", "number"), _REFUSALS)
def test_what_the_file_system_refuses_is_one_inputs_failure(
    place: str, number: int, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # type: ignore[no-untyped-def]
    import importlib

    root, out = tmp_path / "in", tmp_path / "out"
    for name in ("bad", "good"):
        write_photo(root / f"{name}.jpg")
        write_video(root / f"{name}.mp4", 3)
    module, _, attribute = place.rpartition(".")
    real = getattr(importlib.import_module(module), attribute)
    refusals = []

    def refusing(*arguments: object, **options: object) -> object:
        if not refusals:
            refusals.append(arguments)
            raise OSError(number, os.strerror(number), str(arguments[0]))
        return real(*arguments, **options)

    monkeypatch.setattr(f"{module}.{attribute}", refusing)
    result = run(root, "-o", out, "--format", "csv", "-q")
    assert refusals and result.code == 1, result
    assert sorted(ended(out).values()) == ["done"] * 3 + ["failed"]
    # Quiet or not, the failure is named in a line of its own.
    told = [*result.err.splitlines(), *caplog.messages]
    assert len(told) == 1 and "bad" in told[0] and os.strerror(number) in told[0]
    assert not list(out.rglob("*.part"))
    monkeypatch.undo()
    assert run(root, "-o", out, "--format", "csv").code == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    "place",
    [
        "media_writer.write_image",
        "media_writer.VideoWriter",
        "input_writer.write_thumbnail",
        "input_writer.RecordWriter",
    ],
)
def test_a_full_disk_still_ends_the_run(
    place: str, number: int, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    def full(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    write_photo(tmp_path / "in" / "a.jpg")
    write_video(tmp_path / "in" / "a.mp4", 3)
    monkeypatch.setattr(f"posecli.results.{place}", full)
    result = run(tmp_path / "in", "-o", tmp_path / "out")
    assert result.code == 4 and "disk is full" in result.err and "Traceback" not in result.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_record_that_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posecli.results.records import RecordWriter

    writer = RecordWriter(tmp_path / "r.jsonl", {"name": "a"}, 0.3)
    full = Path("/dev/full").open("wb")  # noqa: SIM115
    full.write(b"what is left to be written")
    writer._file.close()
    writer._file = full
    writer.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


def test_a_result_file_that_cannot_be_written_is_said_before_any_work(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    photo, out = write_photo(tmp_path / "a.jpg"), tmp_path / "out"
    (out / "coco.json").mkdir(parents=True)
    result = run(photo, "-o", out)
    assert result.code == 4 and "coco.json is a folder" in result.err and not (out / "a.jpg").exists()
    result = run(photo, "-o", tmp_path / ("o" * 300))
    assert result.code == 4 and "too long" in result.err
    result = run(photo, "-o", photo / "out")
    assert result.code == 4 and "cannot be written" in result.err


def without_privileges() -> None:
    """In a child before it starts: a root without the right to pass over permissions."""
    import ctypes

    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            raise OSError("the capability cannot be dropped")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="permissions as on Linux")
def test_without_permission(tmp_path: Path, tiny_weights: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    write_photo(root / "good.jpg")
    write_photo(root / "closed.jpg").chmod(0o000)
    write_photo(root / "locked" / "a.jpg")
    write_photo(root / "sub" / "a.jpg", picture(40, 40, 2))
    (out / "sub").mkdir(parents=True)
    (out / "sub").chmod(0o555)
    (root / "locked").chmod(0o000)
    line = ["run", root, root / "locked" / "a.jpg", "-o", out, "--weights", tiny_weights, *QUICK, "--json"]
    try:
        result = subprocess.run(
            [sys.executable, "-m", "posecli", *map(str, line)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            preexec_fn=without_privileges if os.geteuid() == 0 else None,
            check=False,
        )
    except subprocess.SubprocessError:
        pytest.skip("this root cannot become less")
    finally:
        (root / "locked").chmod(0o755)
        (out / "sub").chmod(0o755)
    assert result.returncode == 1, result.stderr
    status = {Path(path).relative_to(root).as_posix(): s for path, s in ended(out).items()}
    assert status.pop("locked", "failed") == "failed"
    assert status == {"good.jpg": "done", **dict.fromkeys(["closed.jpg", "locked/a.jpg", "sub/a.jpg"], "failed")}
    assert result.stderr.count("Permission denied") >= 3 and "Traceback" not in result.stderr


def test_a_name_that_vanishes(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    import posecli.cli.run as command

    root, out = tmp_path / "in", tmp_path / "out"
    write_photo(root / "a.jpg")
    gone = write_photo(root / "b.jpg")
    found = command.find

    def vanishing(*arguments: object) -> object:
        result = found(*arguments)  # type: ignore[arg-type]
        gone.unlink()
        return result

    monkeypatch.setattr(command, "find", vanishing)
    result = run(root, "-o", out)
    assert result.code == 1 and list(ended(out).values()) == ["done", "failed"] and "b.jpg" in result.err


def test_one_file_under_several_paths_is_done_once(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # type: ignore[no-untyped-def]
    photo = write_photo(tmp_path / "a.jpg")
    os.link(photo, tmp_path / "hard.jpg")
    (tmp_path / "soft.jpg").symlink_to(photo)
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    result = run("a.jpg", "./a.jpg", "hard.jpg", "soft.jpg", "folder/a.jpg", photo, "-o", out, "--json")
    assert [item["name"] for item in json.loads(result.out)["inputs"]] == ["a.jpg"]
    assert len(caplog.messages) == 1
    assert "hard.jpg is the same file as a.jpg" in caplog.text and "2 more" in caplog.text
    assert run("a.jpg", "./a.jpg", "-o", out).code == 0 and len(caplog.messages) == 1


def test_names_that_are_no_utf8_and_names_with_control_characters_everywhere(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    root, out = tmp_path / os.fsdecode(b"in\xff"), tmp_path / "out"
    names = [b"\xff.jpg", b"a\nb.jpg", b"\x1b[31mred\x7f.jpg", b"caf\xe9\r.jpg"]
    for name in names:
        write_photo(root / "x.jpg").rename(root / os.fsdecode(name))
    write_video(root / "x.mp4", 3).rename(root / os.fsdecode(b"clip\xfe\n.mp4"))
    (root / os.fsdecode(b"bad\xfe\n\x1b[0m.jpg")).touch()
    rows = json.loads(run(root, "-o", out, "--dry-run", "--json").out)
    assert len(rows) == 6 and len({row["output"] for row in rows}) == 6
    listed = run(root, "-o", out, "--dry-run")
    assert listed.code == 0 and len(listed.out.splitlines()) == 6 and "\x1b" not in listed.out
    result = run(root, os.fsdecode(b"gone\xff.jpg"), "-o", out, "--json", *TABLES)
    assert result.code == 1 and "\x1b" not in result.err and "unexpected" not in result.err
    document = json.loads(result.out)
    assert document == json.loads((out / "run.json").read_bytes())
    assert document["totals"]["status"] == {"done": 5, "failed": 2}
    failures = [line for line in result.err.splitlines() if line.startswith("failed")]
    assert len(failures) == 2 and all("jpg" in line for line in failures)
    coco = json.loads((out / "coco.json").read_bytes())
    assert len(coco["images"]) == 4 + 3
    assert all((out / name).exists() for name in document["tables"]) and len(document["tables"]) == 5 * 3 + 1
    page = (out / "index.html").read_text(encoding="utf-8")
    from html import unescape
    from urllib.parse import unquote

    for item in document["inputs"]:
        for name in item["outputs"]:
            assert (out / name).is_file()
            assert any(unquote(unescape(part)) == name for part in page.split('"'))
    refused = run(root, "-o", tmp_path / "out", "--weights", os.fsdecode(b"gone\xff\n\x1b.safetensors"))
    assert refused.code == 4 and len(refused.err.splitlines()) == 1 and "gone\\xff" in refused.err
    result = run(root, "-o", tmp_path / os.fsdecode(b"out\xff\n"), "--json")
    assert result.code == 1 and json.loads(result.out)["totals"]["status"] == {"done": 5, "failed": 1}
    assert "unexpected" not in result.err and "\\xff\\n" in result.err


def test_parquet_takes_any_name(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    parquet = pytest.importorskip("pyarrow.parquet")
    write_photo(tmp_path / "x.jpg").rename(tmp_path / os.fsdecode(b"\xff\n.jpg"))
    assert run(tmp_path / os.fsdecode(b"\xff\n.jpg"), "-o", tmp_path / "out", "--format", "parquet").code == 0
    table = parquet.read_table(next((tmp_path / "out").glob("*.parquet")))
    assert set(table["input"].to_pylist()) == {"?\n.jpg"}
