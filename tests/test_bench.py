"""`posecli bench`: the arithmetic of stages and bounds by hand, recording of stages, and a whole measurement."""

import io
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from posecli.bench import machine, whole
from posecli.bench.costs import Duration, RunCost, StageCost, median_run, scaled
from posecli.bench.machine import Machine, gemm_peaks
from posecli.bench.media import MediaTime, measure_media
from posecli.bench.networks import Comparison, Network, NetworkTime, compare, count_flops, detector_network
from posecli.bench.report import Report, document, print_report
from posecli.bench.whole import STAGES, Alone, RunReport, measure_networks, stage_costs
from posecli.detect import Detector
from posecli.media.inputs import find_inputs
from posecli.pipeline.run_options import RunOptions
from posecli.pose.estimator import load_estimator
from posecli.predict import Predictor
from posecli.runtime import ModuleSpec
from posecli.stages import Recording, StageTime, recorded, stage
from posecli.types import Detections, Frame
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture, write_photo, write_video

# 6 s of core time in stages and 1 s in the rest.
RUN = RunCost(
    wall=5.0,
    core=7.0,
    cores=2,
    stages=(
        StageCost("decode", 10, 1.5, 2.0, threads=2),
        StageCost("network", 30, 3.0, 2.5, threads=2),
        StageCost("tracking", 10, 1.0, 0.5),
        StageCost("encoding", 10, 2.0, 1.0, threads=2),
    ),
)


def test_the_rest_completes_the_core_time() -> None:
    assert RUN.rest.core == pytest.approx(1.0)
    assert sum(cost.core for cost in RUN.every) == pytest.approx(RUN.core)
    assert replace(RUN, core=5.5).rest.core == pytest.approx(-0.5)


def test_the_bound_is_all_core_time_on_all_cores_or_the_slowest_stage() -> None:
    assert RUN.slowest.name == "network" and RUN.slowest.least == pytest.approx(1.25)
    assert RUN.bound == pytest.approx(3.5) and RUN.ratio == pytest.approx(5 / 3.5)
    # On eight cores a serial stage of 0.9 s is the slowest.
    serial = StageCost("tracking", 10, 1.0, 0.9)
    stages = (*(replace(cost, threads=8) for cost in RUN.stages if cost.name != "tracking"), serial)
    many = replace(RUN, cores=8, stages=stages)
    assert many.slowest == serial and many.bound == pytest.approx(0.9)


def test_stages_on_a_gpu_share_it() -> None:
    networks = (StageCost("detector", 5, 2.0, 0.1, 2, gpu=3.0), StageCost("network", 5, 2.0, 0.1, 2, gpu=1.5))
    run = replace(RUN, core=1.0, stages=networks)
    assert run.slowest.least == pytest.approx(3.0) and run.bound == pytest.approx(4.5)


def test_the_overhead_is_neither_media_nor_networks() -> None:
    assert RUN.overhead == pytest.approx(0.5 / 7)  # tracking; the rest is of libraries' threads


def test_the_median_run_and_scaling() -> None:
    runs = [replace(RUN, wall=wall) for wall in (3.0, 9.0, 5.0, 4.0)]
    assert median_run(runs[:3]).wall == 5.0 and median_run(runs).wall == 4.0 and median_run(runs[:1]).wall == 3.0
    assert scaled(Duration(1.0, 2.0), 4, 10) == Duration(2.5, 5.0)
    assert scaled(Duration(1.0, 2.0), 0, 10) == Duration()
    assert Duration(1, 2) + Duration(3, 4) == Duration(4, 6)


def costs_of(on_gpu: bool, photos_only: bool = False) -> dict[str, StageCost]:
    stages = {
        "decode": StageTime(11, 11, 0.4, 0.1),
        "network": StageTime(3, 20, 0.5, 0.2),
        "tracking": StageTime(10, 10, 0.3, 0.25),
    }
    media = MediaTime(Duration(1.0, 2.0), Duration(3.0, 4.0), Counter({(48, 64): 10}))
    alone = Alone(Duration(1.0, 1.0), Duration(0.01, 0.02))
    found = stage_costs(stages, media, alone, on_gpu=on_gpu, photos_only=photos_only)
    assert tuple(cost.name for cost in found) == STAGES
    return {cost.name: cost for cost in found}


def test_stages_have_the_core_time_that_was_recorded_or_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "cores", lambda: 8)
    costs = costs_of(on_gpu=False)
    assert costs["decode"] == StageCost("decode", 10, 0.4, 2.0, 8)
    assert costs["encoding"] == StageCost("encoding", 10, 0.0, 4.0, 3)
    assert costs["network"] == StageCost("network", 20, 0.5, pytest.approx(0.4), 8)
    assert costs["tracking"] == StageCost("tracking", 10, 0.3, 0.25, 1)
    assert costs["detector"] == StageCost("detector", threads=8) and costs["JSON"] == StageCost("JSON")
    assert costs_of(on_gpu=False, photos_only=True)["decode"].threads == 1
    assert costs_of(on_gpu=True)["network"].gpu == pytest.approx(0.2)


def busy(seconds: float) -> None:
    """Use the CPU for a time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_time_of_an_inner_stage_is_counted_once() -> None:
    with recorded() as recording, stage("selection", 2):
        busy(0.01)
        with stage("network", 5):
            busy(0.05)
            with stage("crops"):
                busy(0.02)
        with stage("network", 3):
            busy(0.01)
    with stage("selection"):  # after the recording
        pass
    found = recording.stages
    assert {name: (time.calls, time.items) for name, time in found.items()} == {
        "crops": (1, 1),
        "network": (2, 8),
        "selection": (1, 2),
    }
    # CPU time, so that other programs do not matter much.
    for name, seconds in (("crops", 0.02), ("network", 0.06), ("selection", 0.01)):
        assert seconds <= found[name].core < seconds + 0.008, name
        assert found[name].wall >= found[name].core - 0.002


def test_stages_of_several_threads_are_added_and_do_not_nest() -> None:
    started = threading.Barrier(4)

    def work() -> None:
        started.wait(10)
        for _ in range(200):
            with stage("crops", 2), stage("drawing"):
                pass

    with recorded() as recording, stage("JSON"):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert recording.stages["crops"].items == 1600 and recording.stages["drawing"].calls == 800
    assert all(time.core >= 0 for time in recording.stages.values())


def test_a_stage_that_fails_is_recorded_and_left() -> None:
    recording = Recording()
    with pytest.raises(ValueError), recording.measure("crops", 1), recording.measure("network", 1):
        raise ValueError
    with recording.measure("crops", 1):
        busy(0.005)
    assert recording.stages["crops"].calls == 2 and recording.stages["crops"].core >= 0.005


class Small(nn.Module):
    """A convolution 3×3 of 3 to 4 channels and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.convolution(x.permute(0, 3, 1, 2).float()).mean(dim=(2, 3)))


def test_flops_and_gemm() -> None:
    assert count_flops(Small(), (8, 6)) == 2 * 8 * 6 * 9 * 3 * 4 + 2 * 4 * 5
    peaks = gemm_peaks("cpu", 1, side=64)
    assert "float32" in peaks and set(peaks) <= {"float32", "bfloat16"} and min(peaks.values()) > 0


def test_a_network_in_each_runtime_is_compared_with_the_automatic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posecli.runtime.precision.has_bfloat16", lambda: False)
    module = Small()
    network = Network("network", "small", ModuleSpec(lambda: module, None, cpu_batch=4, gpu_batch=8), (8, 6))
    found = compare(network, "cpu", 1, {"float32": 50.0})
    assert {(time.runtime, time.precision) for time in found.times} == {("torch", "float32"), ("openvino", "float32")}
    (auto,) = [time for time in found.times if time.auto]
    assert auto.ratio == 1 and len(found.skipped) == 2 and all("bf16" in line for line in found.skipped)
    for one in found.times:
        assert one.ratio == pytest.approx(one.seconds / auto.seconds)
        assert one.gflops == pytest.approx(found.flops / one.seconds / 1e9)
        assert one.peak_share == pytest.approx(one.gflops / 50)
    assert isinstance(detector_network("whole"), str)


def test_a_detector_without_known_input_sizes_is_measured_on_frames(tiny_weights: Path) -> None:
    calls: list[int] = []

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        calls.append(len(frames))
        busy(0.002 * len(frames))
        return [Detections.empty() for _ in frames]

    estimator = load_estimator(str(tiny_weights), device="cpu", runtime="torch")
    detector = Detector(find, "another", 0.5, "torch", "cpu")
    frames = [Frame(picture())] * 3
    sizes = Counter({(48, 64): 3})
    found = measure_networks(Predictor(detector, estimator), sizes, lambda: (frames, ["a"] * 3))
    assert calls == [1, 3] and found.detector.core >= 0.002 and found.network.core > 0
    given = measure_networks(
        Predictor(replace(detector, runtime="none"), estimator), sizes, lambda: (frames, ["a"] * 3)
    )
    assert given.detector == Duration() and calls == [1, 3]


def test_media_are_decoded_and_encoded_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posecli.bench.media.MOST_BYTES", 3 * 64 * 48 * 3)  # three frames are kept
    clip, photo = write_video(tmp_path / "a.mp4", 7), write_photo(tmp_path / "b.png", picture(30, 20))
    found = sum(
        (measure_media(item, RunOptions(), tmp_path) for item in find_inputs([str(clip), str(photo)])), MediaTime()
    )
    assert found.sizes == {(48, 64): 7, (20, 30): 1}
    assert found.decode.core > 0 and found.encoding.core > 0


def fields_of(value: object) -> set[str]:
    """All keys of a document that are not names of precisions or processes."""
    if isinstance(value, list):
        return set().union(*map(fields_of, value))
    if isinstance(value, dict):
        named = value.keys() if not {"float32", "help"} & value.keys() else set()
        return set(named).union(*map(fields_of, value.values()))
    return set()


def test_a_folder_is_measured(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CPU_SIDE", 64)
    write_video(tmp_path / "in" / "clip.mp4", 9, sound="aac")
    write_photo(tmp_path / "in" / "photo.jpg", picture(60, 80))
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))
    line = ("--weights", tiny_weights, *QUICK, "--rounds", 1, "--frames", 5, "--json")
    result = posecli(capfd, "bench", tmp_path / "in", *line)
    assert result.code == 1 and "broken.jpg" in result.err, result.err  # one input failed, the others are measured
    found = json.loads(result.out)
    run = found["run"]
    assert run["frames"] == run["people"] == 6 and run["inputs"] == 2 and len(run["failed"]) == 1
    stages = {row["stage"]: row for row in run["stages"]}
    assert list(stages) == [*STAGES, "rest"]
    items = {name: row["items"] for name, row in stages.items()}
    assert items["decode"] == items["encoding"] == items["JSON"] == items["network"] == 6
    assert items["tracking"] == 5 and items["detector"] == 0
    assert sum(row["core_s"] for row in run["stages"]) == pytest.approx(run["core_s"], rel=1e-4)
    assert sum(row["core_share"] for row in run["stages"]) == pytest.approx(1, abs=1e-4)
    assert run["wall_s"] == run["walls_s"][0] and run["wall_to_bound"] == pytest.approx(
        run["wall_s"] / run["bound_s"], rel=1e-4
    )
    least = [row["least_s"] for row in run["stages"]]
    assert run["bound_s"] == pytest.approx(max(run["core_s"] / found["machine"]["cores"], *least), rel=1e-4)
    (network,) = found["networks"]
    assert (network["height"], network["width"], network["stage"]) == (64, 32, "network") and network["gflop"] > 0
    assert sum(time["auto"] for time in network["times"]) == 1
    assert list(found["startup_s"]) == ["interpreter", "help", "run of one photo"]
    assert min(found["startup_s"].values()) > 0 and any("whole" in line for line in found["notes"])
    page = (Path(__file__).parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8").split("## posecli bench")[1]
    missing = fields_of({**found, "versions": {}}) - set(re.findall(r"\w+", page))
    assert not missing and "peak_share" in fields_of(found), missing
    assert not (tmp_path / "in" / "coco.json").exists()


def test_the_text_has_every_stage_and_network() -> None:
    times = (
        NetworkTime("openvino", "float32", 0.01, 1.0, True, 90.0, 0.5),
        NetworkTime("torch", "float32", 0.02, 2.0, False, 45.0, None),
    )
    network = Network("detector", "person", ModuleSpec(nn.Identity, None, 1, 1), (256, 448))
    names = {"detector": "openvino", "network": "openvino"}
    report = Report(
        Machine("a CPU", 2, "cpu", None, {"float32": 180.0}, busy_cores=1.5),
        RunReport(RUN, 10, 30, 1, "clip.mp4", (5.0,), names, names, ()),
        (Comparison(network, 900_000_000, times, ("torch, bfloat16: missing",)),),
        {"help": 0.1},
        (),
    )
    stream = io.StringIO()
    print_report(report, stream)
    text = stream.getvalue()
    for part in (
        "tracking",
        "rest",
        "bound 3.50 s",
        "1.43 times the bound",
        "50.0%",
        "2.00",
        "left out: torch",
        "help",
    ):
        assert part in text, part
    assert document(replace(report, run=None))["run"] is None


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["-"], 2, "live source"),
        ([""], 2, "empty"),
        (["missing.mp4"], 1, "missing.mp4"),
        (["--frames", "0"], 2, "--frames"),
        (["--weights", "no-such-weights"], 4, "no-such-weights"),
        (["--device", "tpu"], 2, "tpu"),
        (["--detector", "no-such-detector"], 2, "no-such-detector"),
    ],
)
def test_errors_are_one_line(line: list[str], code: int, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    result = posecli(capfd, "bench", *line)
    assert result.code == code and words in result.err and not result.out, result.err
    assert "Traceback" not in result.err
