"""`posecli eval`: COCO keypoint AP, with a report that says why."""

import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli.errors import DataError, ExitCode, UsageError

if TYPE_CHECKING:
    from posecli.evaluate.evaluation import Evaluation
    from posecli.evaluate.people import Truth
    from posecli.evaluate.predictions import Predictions

FLIPS = ("none", "shifted", "unshifted")


@dataclass(frozen=True)
class Variant:
    """One way to make predictions: what is compared when there are several."""

    weights: str
    boxes: str
    decoder: str
    flip: str
    input_size: tuple[int, int] | None
    runtime: str


@click.command()
@click.argument("models", nargs=-1)
@click.option("--ann", required=True, help="Truth: a COCO file, or a split's name as val2017.")
@click.option("--images", type=click.Path(path_type=Path), help="Folder of its images.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder where splits are looked for.")
@click.option("--results", multiple=True, type=click.Path(path_type=Path), help="Score a results file, not a model.")
@click.option("--weights", multiple=True, metavar="NAME|FILE", help="Pose model, as MODELS; repeatable.")
@click.option("--boxes", multiple=True, default=("gt",), show_default=True, metavar="gt|FILE|DETECTOR",
              help="Whose poses: true boxes, a boxes file, a detector; repeatable.")  # fmt: skip
@click.option("--detector-thr", type=click.FloatRange(0, 1), help="Lowest score of a detector's box.")
@click.option("--decode", multiple=True, default=("parabola",), help="argmax, dark, parabola; repeatable.")
@click.option("--flip/--no-flip", default=False, help="Average with the mirror image.")
@click.option("--flip-test", multiple=True, help="none, shifted, unshifted, to compare; repeatable.")
@click.option("--input-size", multiple=True, metavar="HxW", help="Other than the model's, to compare; repeatable.")
@click.option("--runtime", multiple=True, default=("auto",), help="auto, torch, openvino; repeatable.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--rank-by", default="box-keypoints", show_default=True, help="box-keypoints, box-all-keypoints or box.")
@click.option("--oks-nms", type=click.FloatRange(0, 1), help="Of people alike by more than this the best stays.")
@click.option("--limit", type=click.IntRange(1), help="Only the first images.")
@click.option("--bootstrap", type=click.IntRange(0), default=1000, show_default=True, help="Resamplings of the images.")
@click.option("--allow-missing", is_flag=True, help="Leave missing images out.")
@click.option("--allow-overlap", is_flag=True, help="Judge by images that the model was trained on.")
@click.option("--out", "-o", type=click.Path(path_type=Path, file_okay=False), default=Path("results/eval"))
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json to stdout.")
def eval_command(models: tuple[str, ...], **options: Any) -> int:
    """COCO keypoint AP of MODELS (weights; the embedded pose model by default), with a report.

    Several models, decoders, boxes, flips, sizes or runtimes are compared on the same people. A person's score
    is box score × mean of the keypoint scores above 0.2 (--rank-by). metrics.json, coco_results.json and
    report.html go into --out; with several variants, each has its own folder there.
    """
    from posecli.evaluate.evaluation import compare, evaluate
    from posecli.evaluate.layout import find_annotations, find_images
    from posecli.evaluate.people import read_truth
    from posecli.evaluate.predictions import suppress
    from posecli.evaluate.report import write_report

    annotations = find_annotations(options["ann"], options["data"])
    if options["results"]:
        # Pictures only decorate the report of somebody's results; without them it has none.
        images = options["images"] or _images_if_any(options["ann"], annotations, options["data"])
    else:
        images = find_images(annotations, options["ann"], options["data"], options["images"])
    truth = read_truth(
        annotations,
        images,
        limit=options["limit"],
        allow_missing=options["allow_missing"],
        needs_images=not options["results"],
    )
    for path in truth.missing[:1]:
        click.echo(f"left out: {len(truth.missing)} missing images, first {path}", err=True)
    if truth.keypoint_set.sigmas is None:
        raise UsageError(f"{annotations}: OKS needs sigmas for these keypoints: add them to the file's category")
    sources = _results(options["results"], truth) if options["results"] else _predicted(models, options, truth)
    evaluations: list[Evaluation] = []
    found: list[Predictions] = []
    for name, predictions, facts in sources:
        if options["oks_nms"] is not None:
            predictions = suppress(predictions, truth.keypoint_set.sigmas, options["oks_nms"])
        start = time.monotonic()
        evaluations.append(evaluate(name, truth, predictions, facts, bootstrap=options["bootstrap"]))
        found.append(predictions)
        took = time.monotonic() - start
        click.echo(_line(evaluations[-1], took), err=True)
    differences = compare(evaluations) if len(evaluations) > 1 else []
    out: Path = options["out"]
    metrics = _write(out, evaluations, found, differences)
    write_report(out / "report.html", f"posecli eval: {annotations.stem}", truth, evaluations, found, differences)
    if options["as_json"]:
        click.echo(json.dumps(metrics, indent=2))
    else:
        _print_table(evaluations, differences)
        click.echo(f"{out / 'report.html'}", err=True)
    return ExitCode.OK


def _images_if_any(name: str, annotations: Path, data: Path | None) -> Path:
    from posecli.evaluate.layout import find_images

    try:
        return find_images(annotations, name, data)
    except DataError:
        return annotations.parent


def _variants(models: Sequence[str], options: dict[str, Any]) -> list[Variant]:
    weights = [*models, *options["weights"]] or ["pose"]
    flips = options["flip_test"] or (("shifted",) if options["flip"] else ("none",))
    for flip in flips:
        if flip not in FLIPS:
            raise UsageError(f"--flip-test {flip}: choose from {', '.join(FLIPS)}")
    sizes: list[tuple[int, int] | None] = [_size(text) for text in options["input_size"]]
    sizes = sizes or [None]
    product = itertools.product(weights, options["boxes"], options["decode"], flips, sizes, options["runtime"])
    return [Variant(*values) for values in dict.fromkeys(product)]


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise UsageError(f"--input-size {text}: HEIGHTxWIDTH, e.g. 256x192")
    return int(height), int(width)


def _names(variants: Sequence[Variant]) -> list[str]:
    """What tells the variants apart, and the weights."""
    names = []
    differing = [field for field in Variant.__annotations__ if len({getattr(v, field) for v in variants}) > 1]
    for variant in variants:
        words = [_short(variant.weights, [v.weights for v in variants])]
        for field in differing:
            if field != "weights":
                value = getattr(variant, field)
                value = "own size" if value is None else "x".join(map(str, value)) if field == "input_size" else value
                words.append(f"flip {value}" if field == "flip" else Path(value).name if field == "boxes" else value)
        names.append(" ".join(words))
    return names


def _short(weights: str, all_weights: Sequence[str]) -> str:
    path = Path(weights)
    if path.suffix != ".safetensors":
        return weights
    # Runs are told apart by their folders, not by last.safetensors.
    alike = {w for w in all_weights if Path(w).name == path.name}
    return str(Path(path.parent.name) / path.stem) if len(alike) > 1 else path.stem


def _predicted(models: Sequence[str], options: dict[str, Any], truth: "Truth") -> Any:
    from posecli.detect import DETECTORS, load_detector
    from posecli.detect.boxes import read_boxes
    from posecli.evaluate.people import leaked
    from posecli.evaluate.predictions import predict, true_boxes
    from posecli.pose.codec import DECODERS
    from posecli.pose.estimator import load_estimator

    variants = _variants(models, options)
    for decoder in options["decode"]:
        if decoder not in DECODERS:
            raise UsageError(f"--decode {decoder}: choose from {', '.join(DECODERS)}")
    for name, variant in zip(_names(variants), variants, strict=True):
        estimator = load_estimator(
            variant.weights,
            device=options["device"],
            runtime=variant.runtime,
            decoder=variant.decoder,
            flip=variant.flip != "none",
            shift_flipped=variant.flip != "unshifted",
            input_size=variant.input_size,
        )
        if estimator.config.keypoints.names != truth.keypoint_set.names:
            raise DataError(f"{variant.weights} predicts other keypoints than the annotations have")
        assert estimator.weights is not None
        count, first = leaked(estimator.weights, truth)
        if count and not options["allow_overlap"]:
            raise DataError(
                f"{variant.weights} was trained on {count} of the {len(truth.files)} images, first {first}: "
                "its figure would be worth nothing (--allow-overlap shows it all the same)"
            )
        kind = variant.boxes.partition(":")[0]
        boxes: Any
        if variant.boxes == "gt":
            boxes = true_boxes(truth)
        elif kind in DETECTORS and kind != "boxes":
            boxes = load_detector(variant.boxes, device=options["device"], threshold=options["detector_thr"])
        else:
            boxes = read_boxes(Path(variant.boxes.removeprefix("boxes:")), options["detector_thr"] or 0.0).by_id
        start = time.monotonic()
        predictions = predict(estimator, truth, boxes, rank_by=options["rank_by"])
        seconds = time.monotonic() - start
        facts = {
            "weights": variant.weights,
            "weights_sha256": estimator.weights_sha256,
            "boxes": variant.boxes,
            "decode": variant.decoder,
            "flip": variant.flip,
            "input_size": list(estimator.config.input_size),
            "runtime": estimator.runner.runtime,
            "precision": estimator.runner.precision,
            "rank_by": options["rank_by"],
            "oks_nms": options["oks_nms"],
            "trained_on_images": count,
            "predict_seconds": round(seconds, 2),
            "people_per_s": round(len(predictions) / max(seconds, 1e-9), 1),
        }
        yield name, predictions, facts


def _results(paths: Sequence[Path], truth: "Truth") -> Any:
    from posecli.evaluate.predictions import read_results

    for path in paths:
        yield str(path), read_results(path, truth), {"results": str(path)}


def _write(
    out: Path, evaluations: "Sequence[Evaluation]", found: "Sequence[Predictions]", differences: list[dict[str, Any]]
) -> Any:
    import orjson

    from posecli.pipeline import prepare_output

    prepare_output(out)
    documents = []
    for number, (evaluation, predictions) in enumerate(zip(evaluations, found, strict=True), 1):
        folder = out if len(evaluations) == 1 else out / f"{number:02d}-{_file_name(evaluation.name)}"
        folder.mkdir(parents=True, exist_ok=True)
        documents.append(evaluation.to_json())
        (folder / "metrics.json").write_text(json.dumps(documents[-1], indent=2) + "\n")
        (folder / "coco_results.json").write_bytes(orjson.dumps(list(predictions.results)) + b"\n")
    if len(evaluations) == 1:
        return documents[0]
    document = {"models": documents, "differences": differences}
    (out / "comparison.json").write_text(json.dumps(document, indent=2) + "\n")
    return document


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:60]


def _line(evaluation: "Evaluation", scoring: float) -> str:
    facts = evaluation.facts
    if "predict_seconds" not in facts:
        return f"{evaluation.name}: scored in {scoring:.1f} s"
    return (
        f"{evaluation.name}: {facts['people_per_s']:.0f} people/s ({facts['predict_seconds']:.1f} s), "
        f"scored and resampled in {scoring:.1f} s"
    )


def _print_table(evaluations: "Sequence[Evaluation]", differences: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    first = evaluations[0]
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    table = Table(
        title=f"{first.scores.people} people in {first.scores.images} images, 95 % intervals", title_justify="left"
    )
    table.add_column("")
    for evaluation in evaluations:
        table.add_column(evaluation.name, justify="right")
    for name in first.scores.values:
        cells = []
        for evaluation in evaluations:
            low, high = evaluation.intervals.get(name, (None, None))
            text = f"{evaluation.scores.values[name]:.3f}"
            cells.append(f"{text}  {low:.3f}–{high:.3f}" if low is not None else f"{text}             ")
        table.add_row(name, *cells)
    console.print(table)
    for row in differences:
        found = row["AP"]
        console.print(
            f"{row['name']} - {row['against']}: AP {found['value']:+.4f} "
            f"({found['low']:+.4f} to {found['high']:+.4f}, p {found['sign']:.3f})",
            highlight=False,
        )
    if len(evaluations) > 1:
        return
    joints = Table(title="Keypoints of people who were found", title_justify="left")
    for column in (
        "keypoint",
        "labelled",
        "OKS",
        "PCK@0.05",
        "PCK@0.1",
        "median px",
        "jitter",
        "inversion",
        "swap",
        "miss",
    ):
        joints.add_column(column, justify="left" if column == "keypoint" else "right", no_wrap=True)
    for joint in first.keypoints:
        if joint["count"]:
            joints.add_row(
                joint["keypoint"],
                str(joint["count"]),
                *(f"{joint[key]:.3f}" for key in ("oks", "pck_05", "pck_10")),
                f"{joint['median_error_px']:.1f} px",
                *(f"{joint[kind]:.1%}" for kind in ("jitter", "inversion", "swap", "miss")),
            )
    console.print(joints)
