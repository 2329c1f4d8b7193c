"""Every option of the command line either makes a second run do the work again, or cannot change what is written."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from posecli.cli.main import main
from posecli.cli.run import run_command
from posecli.cli.video import video_command
from posecli.runtime.precision import has_bfloat16
from tests.entry_points import QUICK, posecli
from tests.media_factory import write_photo, write_video

# What cannot change the output: where it goes, what is said of it, and files made from the records in every run.
NO_CHANGE: dict[str, list[str]] = {
    "offline": ["--offline"],
    "out": [],
    "tables": ["--format", "csv"],
    "overwrite": [],
    "dry_run": [],
    "show": [],
    "as_json": [],
    "quiet": ["--quiet"],
    "workers": ["--workers", "2"],
    "cluster": [],
    "worker_cpus": [],
    "worker_gpus": [],
    "help": [],
}
# Options with a value that differs from the first run's; HERE stands for the test's folder.
CHANGE: dict[str, list[str]] = {
    "weights": ["--weights", "HERE/other.safetensors"],
    "runtime": ["--runtime", "openvino"],
    "precision": ["--precision", "bf16"],
    "decoder": ["--decode", "argmax"],
    "flip": ["--flip"],
    "reestimate": ["--reestimate"],
    "detector": ["--detector", "boxes:HERE/boxes.json"],
    "detector_thr": ["--detector-thr", "0.9"],
    "max_people": ["--max-people", "1"],
    "person": ["--person", "largest"],
    "kpt_thr": ["--kpt-thr", "0.9"],
    "show_boxes": ["--show-boxes"],
    "show_ids": ["--show-ids"],
    "trails": ["--trails"],
    "black": ["--black"],
    "side_by_side": ["--side-by-side"],
    "blur_faces": ["--blur-faces"],
    "media": ["--no-media"],
    "start": ["--start", "f1"],
    "end": ["--end", "f2"],
    "duration": ["--duration", "f2"],
    "stride": ["--stride", "2"],
    "detect_every": ["--detect-every", "2"],
    "track": ["--no-track"],
    "smooth": ["--smooth", "none"],
    "fill_gaps": ["--fill-gaps", "0"],
    "audio": ["--no-audio"],
    "encoder": ["--encoder", "vp9"],
    "crf": ["--crf", "40"],
    "preset": ["--preset", "ultrafast"],
    "fast": ["--fast"],
    "max_pixels": ["--max-pixels", "100000"],
}
# In the key as they turn out, see below: this machine may have no other device, and no weights of a detector.
ELSEWHERE = {"device", "detector_weights"}


def options_of(command: click.Command) -> set[str]:
    return {str(parameter.name) for parameter in command.params if isinstance(parameter, click.Option)}


def test_every_option_is_known_here() -> None:
    known = NO_CHANGE.keys() | CHANGE.keys() | ELSEWHERE
    assert options_of(run_command) | options_of(video_command) <= known
    assert known - {"help"} <= options_of(run_command) | options_of(video_command)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """A clip, two people in each of its frames, and other weights."""
    from posecli.weights.files import load_weights, save_weights

    folder = tmp_path_factory.mktemp("here")
    write_video(folder / "clip.mp4", 4, sound="aac")
    tensors, header = load_weights(tiny_weights)
    tensors = {name: t * 1.02 if t.dtype.is_floating_point else t for name, t in tensors.items()}
    save_weights(folder / "other.safetensors", tensors, header)
    boxes_file(folder / "boxes.json", (10, 20))
    return folder


def boxes_file(path: Path, lefts: tuple[int, ...]) -> None:
    images = [{"id": i + 1, "file_name": f"clip.mp4#{i:06d}"} for i in range(4)]
    people = [
        {"id": n, "image_id": image["id"], "category_id": 1, "bbox": [left, 5, 20, 30], "score": 0.5}
        for n, (image, left) in enumerate(((image, left) for image in images for left in lefts), 1)
    ]
    path.write_text(json.dumps({"images": images, "annotations": people}))


@pytest.fixture(scope="module")
def first(here: Path, tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """The output of a run with no option."""
    out = tmp_path_factory.mktemp("first") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["posecli", *line(here, out, tiny_weights)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    return out


def line(here: Path, out: Path, weights: Path) -> list[str]:
    return ["run", str(here / "clip.mp4"), "-o", str(out), "--weights", str(weights), *QUICK, "-q"]


@pytest.mark.parametrize("name", [*CHANGE, *(name for name, line in NO_CHANGE.items() if line)])
def test_a_second_run_with_another_option(
    name: str, here: Path, first: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if name == "precision" and not has_bfloat16():
        pytest.skip("this CPU has no bfloat16, so there is no other precision")
    out = tmp_path / "out"
    shutil.copytree(first, out)

    def status(*arguments: str) -> dict[str, int]:
        result = posecli(capfd, *line(here, out, tiny_weights), "--json", *arguments)
        assert result.code == 0, result.err
        counts: dict[str, int] = json.loads(result.out)["totals"]["status"]
        return counts

    change = [word.replace("HERE", str(here)) for word in {**CHANGE, **NO_CHANGE}[name]]
    if name == "crf":
        assert status() == {"skipped": 1}
    assert status(*change) == ({"done": 1} if name in CHANGE else {"skipped": 1})
    if name in ("crf", "max_people"):
        assert status(*change) == {"skipped": 1}


def test_every_field_of_the_options_is_an_option_of_the_command_line() -> None:
    from posecli.draw.style import DrawStyle
    from posecli.media.encoders import EncodeOptions
    from posecli.media.span import Span
    from posecli.pipeline.run_options import RunOptions, TrackingOptions

    subjects = {"span": Span, "tracking": TrackingOptions, "style": DrawStyle, "encoding": EncodeOptions}
    names = {field.name for field in fields(RunOptions)} - subjects.keys()
    names |= {field.name for subject in subjects.values() for field in fields(subject)}
    assert names <= options_of(run_command)
    assert names - {"max_pixels"} <= options_of(video_command)


def test_fewer_people_after_more(here: Path, tmp_path: Path, tiny_weights: Path, capfd: Any) -> None:
    boxes = tmp_path / "boxes.json"
    boxes_file(boxes, (10, 20))

    def people(*arguments: str) -> int:
        line = ("--weights", tiny_weights, "--runtime", "torch", "--detector", f"boxes:{boxes}", "--json", *arguments)
        result = posecli(capfd, "video", here / "clip.mp4", "-o", tmp_path / "out", *line)
        assert result.code == 0, result.err
        found = len(json.loads((tmp_path / "out" / "coco.json").read_bytes())["annotations"])
        assert json.loads(result.out)["totals"]["people"] == found
        return found

    assert (people(), people("--max-people", "1"), people()) == (8, 4, 8)
    boxes_file(boxes, (10, 20, 30))  # other content under the same name
    assert people() == 12


def test_a_journal_of_other_people_is_not_gone_on_with(tiny_weights: Path) -> None:
    from posecli.detect import load_detector
    from posecli.pipeline.keys import inference_key, options_key
    from posecli.pipeline.run_options import RunOptions
    from posecli.pose.estimator import load_estimator
    from posecli.predict import Predictor

    estimator = load_estimator(str(tiny_weights), device="cpu", runtime="torch")
    detectors = [load_detector("whole", max_people=count) for count in (1, 2)]
    predictors = [Predictor(detector, estimator) for detector in detectors]
    for key in (inference_key, options_key):
        assert key(RunOptions(), predictors[0]) != key(RunOptions(), predictors[1])


def test_what_the_models_turned_out_to_be_is_in_the_keys(tiny_weights: Path) -> None:
    """Every field of the detector and of the estimator that says something of their answers."""
    from posecli.detect import load_detector
    from posecli.detect.detector import Detector, DetectorOptions
    from posecli.pipeline.keys import inference_key, options_key
    from posecli.pipeline.run_options import RunOptions
    from posecli.pose.estimator import Estimator, load_estimator
    from posecli.predict import Predictor

    detector = load_detector("whole")
    estimator = load_estimator(str(tiny_weights), device="cpu", runtime="torch")
    other = "of another kind"
    changed: list[tuple[Detector, Estimator]] = []
    changed += [(replace(detector, **{f.name: other}), estimator) for f in fields(Detector)
                if f.name not in ("find", "propose", "options")]  # fmt: skip
    # Of these the detector says what they turned out to be: its device, runtime and precision, its weights' hash.
    resolved = ("device", "runtime", "precision", "weights", "argument")
    asked = [f.name for f in fields(DetectorOptions) if f.name not in resolved]
    changed += [(replace(detector, options=replace(detector.options, **{name: 0.123})), estimator) for name in asked]
    made = [f.name for f in fields(Estimator) if f.name not in ("config", "runner", "weights", "decoder")]
    changed += [(detector, replace(estimator, **{name: other})) for name in made]
    changed.append((detector, replace(estimator, decoder="argmax")))
    changed.append((detector, replace(estimator, config=replace(estimator.config, std_scale=2.0))))
    for name in ("runtime", "device", "precision"):
        runner = SimpleNamespace(**{n: getattr(estimator.runner, n) for n in ("runtime", "device", "precision")})
        setattr(runner, name, other)
        changed.append((detector, replace(estimator, runner=runner)))  # type: ignore[arg-type]
    for key in (inference_key, options_key):
        keys = [key(RunOptions(), Predictor(detector, estimator))]
        keys += [key(RunOptions(), Predictor(d, e)) for d, e in changed]
        keys.append(key(RunOptions(), Predictor(detector, estimator, reestimate=True)))
        assert len(set(keys)) == len(keys)


def test_a_photo_is_done_again_too(tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photo = write_photo(tmp_path / "a.jpg")
    status = [
        json.loads(
            posecli(
                capfd, "run", photo, "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK, "--json", *extra
            ).out
        )["totals"]["status"]
        for extra in ([], ["--kpt-thr", "0.5"], ["--kpt-thr", "0.5"], ["--max-people", "3"])
    ]
    assert status == [{"done": 1}, {"done": 1}, {"skipped": 1}, {"done": 1}]
