"""`posecli eval`: COCO keypoint AP with intervals, comparisons and an error analysis."""

import functools
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli.cli.groups import GroupedCommand, option, option_group
from posecli.cli.options import DECODER_NAMES, PRECISION_NAMES, RUNTIME_NAMES, workers_option
from posecli.cli.parameters import DEVICE, OFFLINE
from posecli.cli.workers import count_processes
from posecli.errors import DataError, ExitCode, UsageError

if TYPE_CHECKING:
    from posecli.evaluate.evaluation import Evaluation
    from posecli.evaluate.ground_truth import GroundTruth
    from posecli.evaluate.predictions import Predictions
    from posecli.evaluate.variants import Candidate


# Files written into --out, or into a variant's folder there.
_FILES = ("metrics.json", "coco_results.json", "report.html", "comparison.json", "comparison.md")


# Names of registries, repeated as in cli/options.py; tests/test_eval_command.py compares them.
FLIP_TESTS = ("none", "shifted", "unshifted")
RANKINGS = ("box-keypoints", "box-all-keypoints", "box")

_FOLDER = click.Path(path_type=Path, file_okay=False)
_SHARE = click.FloatRange(0, 1)

EXAMPLES = (
    ("posecli eval --ann val2017 --data coco/", "true boxes"),
    ("posecli eval --ann val2017 --boxes person", "boxes of the embedded detector"),
    ("posecli eval a.safetensors b.safetensors --ann val2017", "compare two models"),
    ("posecli eval --ann val2017 --decode oks --decode dark", "compare decoders"),
    ("posecli eval --ann val2017 --results coco_results.json", "score a results file"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("models", nargs=-1)
@option_group(
    "Data",
    option("--ann", required=True, help="Ground truth: a COCO keypoints file, or the name of a split such as val2017."),
    option("--images", type=click.Path(path_type=Path), help="Folder of its images."),
    option("--data", type=_FOLDER, help="Folder in which splits are searched."),
    option("--category", metavar="NAME|ID", help="Category of the people, where the file has several with keypoints."),
    option("--limit", type=click.IntRange(1), help="Number of images, the first ones."),
    option("--allow-missing", is_flag=True, help="Leave missing and unreadable images out."),
    option("--allow-overlap", is_flag=True, help="Evaluate on images that the model was trained on, too."),
)
@option_group(
    "Models",
    option("--weights", multiple=True, metavar="NAME|FILE", help="Pose model, like MODELS; repeatable."),
    option("--offline", **OFFLINE),
    option(
        "--results",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Score a COCO results file in place of a model; repeatable.",
    ),
    option("--runtime", multiple=True, type=click.Choice(RUNTIME_NAMES), default=("auto",), help="Repeatable."),
    option(
        "--precision",
        multiple=True,
        type=click.Choice(PRECISION_NAMES),
        default=("fp32",),
        help="Floating-point format of the networks; fp32 gives the same figures on every CPU. Repeatable.",
    ),
    option("--device", default="auto", type=DEVICE, metavar="auto|cpu|cuda|cuda:N", help="Where the models run."),
    option("--input-size", multiple=True, metavar="HxW", help="In place of the model's own, to compare; repeatable."),
)
@option_group(
    "People",
    option(
        "--boxes",
        multiple=True,
        default=("gt",),
        metavar="gt|DETECTOR|FILE",
        help="Boxes of the ground truth, of a detector, or of a COCO file; repeatable.",
    ),
    option("--detector-thr", type=_SHARE, help="Lowest score of a person.  [default: the detector's own]"),
    option("--oks-nms", type=_SHARE, help="Suppress all but the best of people with a higher OKS to each other."),
    option(
        "--rank-by",
        type=click.Choice(RANKINGS),
        default="box-keypoints",
        help="Person score by which COCO ranks predictions.",
    ),
)
@option_group(
    "Keypoints",
    option("--decode", multiple=True, type=click.Choice(DECODER_NAMES), default=("auto",), help="Decoder; repeatable."),
    option("--flip/--no-flip", default=False, help="Flip test: average with the mirrored crop."),
    option(
        "--reestimate/--no-reestimate",
        default=False,
        help="Estimate again from refined boxes that differ much from the detector's.",
    ),
    option(
        "--flip-test",
        multiple=True,
        type=click.Choice(FLIP_TESTS),
        help="Variants of the flip test, to compare; repeatable.",
    ),
)
@option_group(
    "Output",
    option("--out", "-o", type=_FOLDER, default=Path("results/eval"), help="Folder of metrics and report."),
    workers_option,
    option("--bootstrap", type=click.IntRange(0), default=1000, help="Resamplings of the images, for the intervals."),
    option("--json", "as_json", is_flag=True, help="Print metrics.json to stdout."),
)  # fmt: skip
def eval_command(models: tuple[str, ...], **options: Any) -> int:
    """COCO keypoint AP of MODELS (weights; by default the embedded pose model), with a report.

    Several models, boxes, sizes, runtimes, precisions, decoders and flip tests are compared on the same images, all
    combinations of them. metrics.json, coco_results.json and report.html are written into --out; with several variants
    each has a folder of its own there, and comparison.json and comparison.md hold all of them and their differences.
    """
    from posecli.results.lock import locked

    truth = _truth(models, options)
    _check_out(models, options, truth)
    with locked(options["out"], "--out"):
        return _evaluate(models, options, truth)


def _evaluate(models: tuple[str, ...], options: dict[str, Any], truth: "GroundTruth") -> int:
    from posecli.evaluate.evaluation import compare, evaluate
    from posecli.evaluate.predictions import suppress
    from posecli.evaluate.report import write_report

    assert truth.keypoint_set.sigmas is not None
    candidates = _results(options["results"], truth) if options["results"] else _predicted(models, options, truth)
    evaluations: list[Evaluation] = []
    found: list[Predictions] = []
    for candidate in candidates:
        predictions, metadata = candidate.predictions, {**candidate.metadata, "oks_nms": options["oks_nms"]}
        if options["oks_nms"] is not None:
            predictions = suppress(predictions, truth.keypoint_set.sigmas, options["oks_nms"])
        evaluation = evaluate(candidate.name, truth, predictions, metadata, bootstrap=options["bootstrap"])
        if not evaluations:
            for remark in evaluation.scores.remarks:
                if remark not in truth.notes:
                    click.echo(f"warning: {remark}", err=True)
        evaluations.append(evaluation)
        found.append(predictions)
        click.echo(_line(evaluation), err=True)
    differences = compare(evaluations) if len(evaluations) > 1 else []
    out: Path = options["out"]
    metrics = _write(out, truth, evaluations, found, differences)
    write_report(out / "report.html", f"posecli eval: {options['ann']}", truth, evaluations, found, differences)
    if options["as_json"]:
        click.echo(json.dumps(metrics, indent=2))
    else:
        _print_table(evaluations, differences)
        click.echo(f"{out / 'report.html'}", err=True)
    return ExitCode.OK


def _check_out(models: Sequence[str], options: dict[str, Any], truth: "GroundTruth") -> None:
    """Raise UsageError where a file in --out is one that is read, or was not written by `posecli eval`."""
    from posecli.evaluate.layout import find_annotations
    from posecli.results.protect import Protected, refuse_replacing

    named = [*options["boxes"], *options["weights"], *models]
    reads = [find_annotations(options["ann"], options["data"]), *options["results"], *map(Path, named)]
    out: Path = options["out"]
    folders = [out, *sorted(path for path in out.glob("[0-9][0-9]-*") if path.is_dir())]
    refuse_replacing(
        Protected([*reads, *truth.files.values(), *truth.missing]),
        (folder / name for folder in folders for name in _FILES),
        "--out",
    )
    for folder in folders:
        # `posecli run` and other programs write files of this name, too.
        if not (folder / "metrics.json").exists() and (folder / "coco_results.json").exists():
            raise UsageError(
                f"--out {out}: {folder / 'coco_results.json'} was not written by posecli eval: choose another folder"
            )


def _truth(models: Sequence[str], options: dict[str, Any]) -> "GroundTruth":
    from posecli.evaluate.ground_truth import read_ground_truth
    from posecli.evaluate.layout import find_annotations, find_images

    if options["results"] and (models or options["weights"]):
        raise UsageError("--results is scored without a model: leave the weights out")
    annotations = find_annotations(options["ann"], options["data"])
    try:
        images = find_images(annotations, options["ann"], options["data"], options["images"])
    except DataError:
        # Results files can be scored without images; the report then has no examples.
        if not options["results"] or options["images"]:
            raise
        images = annotations.parent
    truth = read_ground_truth(
        annotations,
        images,
        limit=options["limit"],
        missing_limit=float(options["allow_missing"]),
        needs_images=not options["results"],
        category=options["category"],
    )
    for note in truth.notes:
        click.echo(f"warning: {note}", err=True)
    for path in truth.missing[:1]:
        click.echo(f"left out: {len(truth.missing)} missing or unreadable images, first {path}", err=True)
    if truth.keypoint_set.sigmas is None:
        raise UsageError(f"{annotations}: OKS needs sigmas for these keypoints: add them to the file's category")
    return truth


def _predicted(models: Sequence[str], options: dict[str, Any], truth: "GroundTruth") -> "Iterator[Candidate]":
    from posecli.evaluate.variants import Settings, list_variants, predict_variants

    variants = list_variants(
        [*models, *options["weights"]] or ["pose"],
        options["boxes"],
        options["input_size"],
        options["runtime"],
        options["precision"],
        options["decode"],
        options["flip_test"] or (("shifted",) if options["flip"] else ("none",)),
    )
    settings = Settings(
        options["device"],
        options["detector_thr"],
        options["rank_by"],
        reestimate=options["reestimate"],
        allow_overlap=options["allow_overlap"],
    )
    spread = None
    if (count := count_processes(options, len(truth.files))) > 1:
        from posecli.evaluate.workers import find_in_workers

        spread = functools.partial(find_in_workers, count, settings, truth)
    yield from predict_variants(variants, truth, settings, spread)


def _results(paths: Sequence[Path], truth: "GroundTruth") -> "Iterator[Candidate]":
    from posecli.evaluate.predictions import read_results
    from posecli.evaluate.variants import Candidate

    for path in paths:
        yield Candidate(str(path), read_results(path, truth), {"results": str(path)})


def _write(
    out: Path,
    truth: "GroundTruth",
    evaluations: "Sequence[Evaluation]",
    found: "Sequence[Predictions]",
    differences: list[dict[str, Any]],
) -> Any:
    from posecli.atomic import AtomicFile
    from posecli.evaluate.table import comparison_markdown

    def write(path: Path, content: bytes) -> None:
        with AtomicFile(path) as file:
            file.write(content)

    documents = []
    for number, (evaluation, predictions) in enumerate(zip(evaluations, found, strict=True), 1):
        folder = out if len(evaluations) == 1 else out / f"{number:02d}-{_file_name(evaluation.name)}"
        folder.mkdir(parents=True, exist_ok=True)
        documents.append(evaluation.to_json())
        write(folder / "metrics.json", json.dumps(documents[-1], indent=2).encode() + b"\n")
        write(folder / "coco_results.json", _results_json(truth, predictions))
    if len(evaluations) == 1:
        return documents[0]
    document = {"models": documents, "differences": differences}
    write(out / "comparison.json", json.dumps(document, indent=2).encode() + b"\n")
    command = shlex.join(["posecli", *sys.argv[1:]])
    write(out / "comparison.md", comparison_markdown(evaluations, differences, command).encode())
    return document


def _results_json(truth: "GroundTruth", predictions: "Predictions") -> bytes:
    import orjson

    results = [truth.own_result(result) for result in predictions.results]
    try:
        return orjson.dumps(results) + b"\n"
    except TypeError:  # an id of more than 64 bits
        return json.dumps(results).encode() + b"\n"


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:60]


def _line(evaluation: "Evaluation") -> str:
    metadata, name = evaluation.metadata, evaluation.name
    scored = f"scored and resampled in {evaluation.scoring_seconds:.1f} s"
    if "predict_seconds" not in metadata:
        return f"{name}: {scored}"
    seconds = f"{metadata['predict_seconds']:.1f} s"
    if metadata["people_per_s"] is None:
        return f"{name}: predicted with {metadata['predicted_together'] - 1} others in {seconds}, {scored}"
    return f"{name}: {metadata['people_per_s']:.0f} people/s ({seconds}), {scored}"


def _print_table(evaluations: "Sequence[Evaluation]", differences: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console

    from posecli.evaluate.table import figures_table, keypoint_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    first = evaluations[0]
    people = f"{first.scores.people} people in {first.scores.images} images"
    console.print(f"{people}; intervals hold 95 % of the resamplings", highlight=False)
    console.print(figures_table(evaluations))
    for row in differences:
        found = row["AP"]
        console.print(
            f"{row['name']} - {row['against']}: AP {found['value']:+.4f} "
            f"({found['low']:+.4f} to {found['high']:+.4f}, p {found['p_value']:.3f})",
            highlight=False,
            markup=False,
        )
    if len(evaluations) == 1:
        console.print(keypoint_table(first))
