"""`posecli train`: a SimCC model from COCO-format keypoints."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli import interrupt
from posecli.errors import ExitCode, MachineError, PosecliError, UsageError

if TYPE_CHECKING:
    from posecli.pose.config import PoseConfig
    from posecli.train.data import People, Source
    from posecli.train.recipe import Recipe, Stage
    from posecli.train.start import Start

FINE_TUNING_SAMPLES = 50_000
Report = Callable[[dict[str, float]], None]


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Folder with annotations/ and train2017/."
)
@click.option("--ann", multiple=True, help="COCO keypoints, a file or a split's name; repeatable.")
@click.option("--images", multiple=True, metavar="DIR[:WEIGHT]", help="Images of each --ann, and its weight.")
@click.option("--nobody", multiple=True, help="COCO file of boxes without a person, for a person score; repeatable.")
@click.option("--nobody-images", multiple=True, metavar="DIR", help="Images of each --nobody.")
@click.option("--nobody-share", default=0.15, show_default=True, help="Of the samples, with --nobody.")
@click.option("--box-head", is_flag=True, help="Train a box head too: where the person of a crop ends.")
@click.option(
    "--heads-only", is_flag=True, help="Train the person score and box heads only, on the frozen network of --init."
)
@click.option("--val-ann", help="COCO keypoints to judge by.")
@click.option("--val-images", type=click.Path(path_type=Path), help="Their images.")
@click.option("--allow-overlap", is_flag=True, help="Judge by images that are trained on.")
@click.option(
    "--missing-limit", default=0.0, help="Share of missing or unreadable images that is left out instead of refused."
)
@click.option("--category", metavar="NAME|ID", help="Whose keypoints, where a file has several categories.")
@click.option("--name", default="simcc", show_default=True, help="The run's folder under --runs.")
@click.option("--runs", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"))
@click.option("--resume", is_flag=True, help="Go on with an unfinished run, which must be there.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder of packed crops.")
@click.option("--init", metavar="NAME|FILE|imagenet", help="Pose weights to start from, or weights of the backbone.")
@click.option("--backbone", default="mobilenet_v2", show_default=True, help="A torchvision backbone.")
@click.option("--deconv", default="128", help="Channels of the transposed convolutions, e.g. 256,256,256, or none.")
@click.option("--laterals", is_flag=True, help="Add the backbone's finer features to each transposed convolution.")
@click.option("--split-ratio", default=2.0, show_default=True, help="Bins per pixel, k.")
@click.option(
    "--sigma",
    default=6.0,
    show_default=True,
    help="Label's standard deviation in bins at the last size; others, without their own, in proportion.",
)
@click.option("--temperature", default=1.0, show_default=True, help="Factor on the logits (RTMPose's beta).")
@click.option("--smoothing", default=0.0, show_default=True, help="Label smoothing.")
@click.option("--random-head", is_flag=True, help="Start the classifiers at random, not as a heatmap's marginals.")
@click.option(
    "--stages", default="128x96:200000,256x192:100000", show_default=True, help="HEIGHTxWIDTH:SAMPLES[@SIGMA] of each."
)
@click.option("--batch-size", default=64, show_default=True, help="Of all processes together.")
@click.option("--accumulate", default=1, show_default=True, help="Parts of a batch where memory is short.")
@click.option("--rate", default=1.5e-3, show_default=True, help="Learning rate.")
@click.option("--backbone-lr-factor", default=0.5, show_default=True, help="Factor on the backbone's learning rate.")
@click.option("--teacher", metavar="NAME|FILE", help="Pose weights whose distributions are learned too (distillation).")
@click.option("--teacher-weight", default=0.5, show_default=True, help="Of the divergence from the teacher's.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="bf16", show_default=True)
@click.option("--flat-share", default=0.6, show_default=True, help="Part of the run before the rate falls.")
@click.option("--ema", default=0.998, show_default=True, help="Decay of the averaged weights.")
@click.option("--weight-decay", default=0.05, show_default=True)
@click.option("--freeze", default=0, show_default=True, help="Leading blocks of the backbone that stay as they are.")
@click.option("--no-augment", is_flag=True, help="The crops of inference, nothing drawn at random.")
@click.option("--flip-p", default=0.5, show_default=True)
@click.option("--scale", default=0.35, show_default=True, help="Enlargement by 1 ± this.")
@click.option("--shift", default=0.1, show_default=True, help="Share of the crop's side.")
@click.option("--rotation", default=45.0, show_default=True, help="Degrees to either side.")
@click.option("--rotation-p", default=0.5, show_default=True)
@click.option("--half-body-p", default=0.15, show_default=True)
@click.option("--colour", default=0.3, show_default=True, help="Strength of brightness, contrast, saturation.")
@click.option("--blur-p", default=0.1, show_default=True)
@click.option("--dropout-p", default=0.2, show_default=True, help="Chance of a grey rectangle.")
@click.option("--cut-p", default=0.2, show_default=True, help="Chance that the person goes on out of sight.")
@click.option("--coarse-p", default=0.2, show_default=True, help="Chance of the few pixels of a small person.")
@click.option(
    "--proposal-p", default=0.0, show_default=True, help="Chance of a crop by a disturbed box; 1 with --heads-only."
)
@click.option("--weak-share", default=0.2, show_default=True, help="Last part of the run, with weak augmentation.")
@click.option("--preview", type=int, help="Write a contact sheet of so many augmented samples, and stop.")
@click.option("--evaluate-every", type=int, help="Samples between two evaluations; an epoch by default.")
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard's event files.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N; one each under torchrun.")
@click.option("--threads", type=int, help="CPU threads of torch.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the network.")
def train_command(**options: Any) -> int:
    """Train a SimCC pose model on COCO-format keypoints.

    Without --ann, --data DIR (or $POSECLI_DATA, or this folder, or data/) holds
    annotations/person_keypoints_train2017.json with train2017/, and the same of val2017 to judge by. The same
    command resumes an unfinished run of the same name; Ctrl-C saves first. Several processes:
    torchrun --nproc-per-node N -m posecli train ...
    """
    import torch

    from posecli.results.lock import locked
    from posecli.runtime.device import resolve_device
    from posecli.train.calibrate import std_fitter
    from posecli.train.data import read_nobody, read_people
    from posecli.train.folder import data_keys, refuse_harm_by_run
    from posecli.train.loop import Watch, train
    from posecli.train.packing import pack_crops
    from posecli.train.parallel import join
    from posecli.train.pictures import write_curves, write_preview
    from posecli.train.start import build_model, read_start
    from posecli.train.state import stage_config
    from posecli.train.teacher import load_teacher
    from posecli.weights.files import EMBEDDED, find_weights

    if options["init"] in EMBEDDED:
        options["init"] = str(find_weights(options["init"]))
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    folder: Path = options["runs"] / options["name"]
    if options["resume"] and not (folder / "state.pt").is_file():
        raise UsageError(f"--resume: no unfinished run in {folder}")
    people = read_people(_sources(options), missing_limit=options["missing_limit"], category=options["category"])
    start = read_start(options["init"], options["backbone"]) if options["init"] else None
    recipe = _recipe(options, people, start)
    with join(str(resolve_device(options["device"]))) as (world, device), ExitStack() as stack:
        say = _say if world.leads else _silent
        cache = options["cache"] or options["runs"] / "crops"
        sources = _nobody(options)
        limit = options["missing_limit"]
        empty = read_nobody(sources, people.keypoint_set, missing_limit=limit) if sources else None
        refuse_harm_by_run(folder, cache, _reads(options, people, empty))
        if world.leads:
            stack.enter_context(locked(folder, "--runs, --name", ".lock"))
            pack_crops(people, cache, missing_limit=limit)
            if empty is not None:
                pack_crops(empty, cache, missing_limit=limit)
        world.wait()
        crops = pack_crops(people, cache, missing_limit=limit)
        nobody = None if empty is None else pack_crops(empty, cache, missing_limit=limit)
        people, empty = crops.people, None if nobody is None else nobody.people
        for found in (people, empty) if empty is not None else (people,):
            for note in found.notes:
                say(f"warning: {note}")
            for remark in found.remarks:
                say(f"left out: {remark}")
        if not people.keypoint_set.mirrors:
            say(
                "warning: no left and right pairs among the keypoints' names: nothing is mirrored "
                "(the category may give flip_pairs, [] where none change sides)"
            )
        if empty is not None:
            say(f"{len(empty)} boxes without a person in {len(set(empty.images))} images")
        say(f"{len(people)} people in {len(set(people.images))} images, {recipe.samples:,} samples → {folder}")
        if options["preview"]:
            write_preview(folder / "preview.jpg", crops, nobody, recipe, options["preview"])
            click.echo(str(folder / "preview.jpg"))
            return ExitCode.OK
        teacher = None
        if options["teacher"]:
            teacher = load_teacher(find_weights(options["teacher"]), people.keypoint_set, device)
        resumed = (folder / "state.pt").is_file()
        if world.leads:
            check_resumable(folder, recipe, data_keys(people, empty, options["init"]))
        if not resumed:
            _, notes = build_model(stage_config(recipe, recipe.stages[0]), start, seed=recipe.seed)
            for note in notes:
                say(f"start: {note}")
        world.wait()
        evaluate = _evaluator(options, people, empty, folder) if world.leads else _elsewhere(options)
        with _reports(recipe.samples, folder, options["tensorboard"], world.leads) as report:
            watch = Watch(
                evaluate=evaluate,
                evaluate_every=options["evaluate_every"] or len(people),
                calibrate=std_fitter(crops),
                report=report,
                header=_header(recipe, people, empty, options["init"]),
            )
            try:
                last = train(
                    recipe,
                    crops,
                    folder,
                    nobody=nobody,
                    teacher=teacher,
                    start=start,
                    device=device,
                    world=world,
                    compiled=options["compiled"],
                    watch=watch,
                )
            finally:
                if world.leads and interrupt.received() is None:  # it takes longer than a signal leaves
                    write_curves(folder / "curves.png", folder)
        say(f"done → {last}")
    return ExitCode.OK


def _say(line: str) -> None:
    click.echo(line, err=True)


def _silent(line: str) -> None:
    """What the processes that do not lead say."""


def _stages(text: str, batch_size: int, freeze: int) -> "tuple[Stage, ...]":
    from posecli.train.recipe import Stage

    stages = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)x(\d+):(\d+(?:_\d+)*)(?:@(\d+(?:\.\d+)?))?", part.strip())
        if found is None:
            raise UsageError(f"--stages {part!r}: HEIGHTxWIDTH:SAMPLES[@SIGMA], e.g. 128x96:200000@6,256x192:100000")
        height, width, samples = (int(value) for value in found.groups()[:3])
        sigma = float(found[4]) if found[4] else None
        if sigma == 0:
            raise UsageError(f"--stages {part!r}: the label's sigma must be above 0")
        rate = 1.0 if height <= 128 else 0.7
        stages.append(Stage((height, width), samples, batch_size, rate=rate, freeze=freeze, sigma=sigma))
    return tuple(stages)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the command line gives."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {name: value for name, value in options.items() if context.get_parameter_source(name) is not default}


def _model(options: dict[str, Any], people: "People", start: "Start | None", size: tuple[int, int]) -> "PoseConfig":
    """What --init's pose weights say, else the defaults, with what the command line gives in its place."""
    from dataclasses import replace

    from posecli.pose.config import PoseConfig

    deconv = options["deconv"]
    if deconv != "none" and not all(part.strip().isdigit() for part in deconv.split(",")):
        raise UsageError(f"--deconv {deconv}: channels separated by commas, or none")
    old = None if start is None else start.config
    if options["heads_only"] and old is None:
        raise UsageError("--heads-only: give a pose model's weights by --init")
    known = options if old is None else _given(options)
    changes: dict[str, Any] = {
        name: known[name] for name in ("backbone", "laterals", "split_ratio", "temperature") if name in known
    }
    if "deconv" in known:
        changes["deconv_channels"] = () if deconv == "none" else tuple(int(part) for part in deconv.split(","))
    if "sigma" in known:
        changes["sigma"] = (options["sigma"], options["sigma"])
    elif old is not None:
        ratio = size[0] / old.input_size[0] * changes.get("split_ratio", old.split_ratio) / old.split_ratio
        changes["sigma"] = (old.sigma[0] * ratio, old.sigma[1] * ratio)
    person_score = bool(options["nobody"]) or (old is not None and old.person_score)
    box_head = options["box_head"] or (old is not None and old.box_head)
    if box_head and not person_score:
        raise UsageError("--box-head: it stands beside a person score head; give --nobody files too")
    changes |= {
        "person_score": person_score,
        "box_head": box_head,
        "input_size": size,
        "keypoints": people.keypoint_set,
    }
    return replace(old or PoseConfig(), **changes)


def _recipe(options: dict[str, Any], people: "People", start: "Start | None" = None) -> "Recipe":
    from dataclasses import replace

    from posecli.train.augment import NONE, WEAK, Augmentation
    from posecli.train.recipe import Recipe
    from posecli.weights.files import find_weights, sha256

    text = options["stages"]
    if start is not None and start.config is not None and "stages" not in _given(options):
        height, width = start.config.input_size
        text = f"{height}x{width}:{FINE_TUNING_SAMPLES}"
    stages = _stages(text, options["batch_size"], options["freeze"])
    drawn = (
        "flip_p",
        "scale",
        "rotation",
        "rotation_p",
        "shift",
        "half_body_p",
        "colour",
        "blur_p",
        "dropout_p",
        "cut_p",
        "coarse_p",
        "proposal_p",
    )
    if options["heads_only"] and "proposal_p" not in _given(options):
        options = {**options, "proposal_p": 1.0}
    augmentation = NONE if options["no_augment"] else Augmentation(**{name: options[name] for name in drawn})
    return Recipe(
        model=_model(options, people, start, stages[-1].input_size),
        stages=stages,
        learning_rate=options["rate"],
        trunk_rate=options["backbone_lr_factor"],
        teacher=None if options["teacher"] is None else sha256(find_weights(options["teacher"])),
        teacher_weight=options["teacher_weight"],
        precision=options["precision"],
        weight_decay=options["weight_decay"],
        flat_share=options["flat_share"],
        weak_share=options["weak_share"],
        ema=options["ema"],
        smoothing=options["smoothing"],
        accumulate=options["accumulate"],
        nobody_share=options["nobody_share"] if options["nobody"] else 0.0,
        heads_only=options["heads_only"],
        marginal_start=not options["random_head"],
        seed=options["seed"],
        augmentation=augmentation,
        weak_augmentation=NONE if options["no_augment"] else replace(WEAK, proposal_p=options["proposal_p"]),
    )


def _sources(options: dict[str, Any]) -> "list[Source]":
    from posecli.evaluate.layout import find_annotations, find_images
    from posecli.train.data import Source

    names, folders = options["ann"] or ("train2017",), options["images"]
    if folders and len(folders) != len(names):
        raise UsageError("each --ann needs its --images, in the same order")
    sources = []
    for number, name in enumerate(names):
        annotations = find_annotations(name, options["data"])
        given, weight = _weighted(folders[number]) if folders else (None, 1.0)
        sources.append(Source(annotations, find_images(annotations, name, options["data"], given), weight))
    return sources


def _nobody(options: dict[str, Any]) -> "list[Source]":
    from posecli.train.data import Source

    if not 0 < options["nobody_share"] < 1:
        raise UsageError(f"--nobody-share {options['nobody_share']}: a share between 0 and 1")
    files, folders = options["nobody"], options["nobody_images"]
    if len(files) != len(folders):
        raise UsageError("each --nobody needs its --nobody-images, in the same order")
    return [Source(Path(file), Path(folder)) for file, folder in zip(files, folders, strict=True)]


def _reads(options: dict[str, Any], people: "People", empty: "People | None") -> "Iterator[Path]":
    """All files that a run reads: annotations, images, weights."""
    from posecli.annotations.gate import read_annotations
    from posecli.annotations.names import find_files
    from posecli.train.data import trained_images

    for source in (*_sources(options), *(_nobody(options) if empty is not None else ())):
        yield source.annotations
    yield from trained_images(people, empty)
    for given in (options["init"], options["teacher"]):
        if given:
            yield Path(given)
    if (validation := _validation(options)) is not None:
        annotations, images = validation
        yield annotations
        with suppress(PosecliError):  # whoever judges by it says what is wrong
            given = read_annotations(annotations, options["category"])
            yield from find_files(given.images, images).there.values()


def _weighted(text: str) -> tuple[Path, float]:
    path, separator, weight = text.rpartition(":")
    if separator and weight.replace(".", "", 1).isdigit() and not Path(text).exists():
        return Path(path), float(weight)
    return Path(text), 1.0


def _validation(options: dict[str, Any]) -> tuple[Path, Path] | None:
    from posecli.errors import DataError
    from posecli.evaluate.layout import find_annotations, find_images

    if options["val_ann"]:
        annotations = find_annotations(options["val_ann"], options["data"])
        return annotations, find_images(annotations, options["val_ann"], options["data"], options["val_images"])
    if options["val_images"]:
        raise UsageError("--val-images needs --val-ann")
    if options["ann"]:
        return None
    try:
        annotations = find_annotations("val2017", options["data"])
    except DataError:
        # A folder with nothing to judge by is still good to train on.
        return None
    return annotations, find_images(annotations, "val2017", options["data"])


def _evaluator(options: dict[str, Any], people: "People", empty: "People | None", folder: Path) -> Any:
    from posecli.train.judge import judge, read_validation
    from posecli.train.pictures import write_predictions

    found = _validation(options)
    if found is None:
        click.echo("no validation set: nothing is judged, and there is no best.safetensors (--val-ann)", err=True)
        return None
    truth = read_validation(
        *found,
        people,
        empty,
        allow_overlap=options["allow_overlap"],
        missing_limit=options["missing_limit"],
        category=options["category"],
    )
    for note in truth.notes:
        click.echo(f"warning: {found[0].name}: {note}", err=True)
    for path in truth.missing[:1]:
        click.echo(f"left out: {len(truth.missing)} missing or unreadable validation images, first {path}", err=True)
    scores = judge(truth)

    def evaluate(network: Any, config: Any) -> dict[str, float]:
        write_predictions(folder / "predictions.jpg", network, config, truth)
        return scores(network, config)

    return evaluate


def _elsewhere(options: dict[str, Any]) -> Any:
    """What a process that does not lead knows of evaluations: whether there are any to wait for."""
    return (lambda network, config: {}) if _validation(options) else None


def check_resumable(folder: Path, recipe: "Recipe", data: dict[str, str | None]) -> None:
    """Write the run's options; an unfinished run is resumed only with the options and the data it began with."""
    from posecli.weights.old_names import current_config

    path = folder / "options.json"
    mine = json.loads(json.dumps({**recipe.to_json(), **data}))
    if path.is_file() and (folder / "state.pt").is_file():
        began = json.loads(path.read_bytes())
        began["model"] = current_config(began["model"])
        changed = sorted(key for key in mine if mine[key] != began.get(key, mine[key] if key in data else None))
        if changed:
            raise UsageError(f"{folder} began with other {', '.join(changed)}: take another --name, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(mine, indent=2) + "\n")
    part.replace(path)


def _header(recipe: "Recipe", people: "People", empty: "People | None", init: str | None) -> dict[str, Any]:
    from posecli.train.data import trained_images
    from posecli.weights.fingerprints import fingerprint

    training = {
        "recipe": recipe.to_json(),
        "people": len(people),
        "init": Path(init).name if init else None,
        "images": fingerprint(trained_images(people, empty)),
    }
    return {"source": "posecli train", "training": training}


@contextmanager
def _reports(total: int, folder: Path, tensorboard: bool, leads: bool) -> Iterator[Report]:
    """Where rows of metrics go: a live bar on a terminal, else lines; TensorBoard where asked."""
    if not leads:
        yield lambda row: None
        return
    sinks: list[Report] = []
    closers: list[Callable[[], None]] = []
    if tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MachineError("--tensorboard: pip install posecli[tensorboard]") from error
        writer = SummaryWriter(str(folder / "tensorboard"))

        def to_tensorboard(row: dict[str, float]) -> None:
            for name, value in row.items():
                if name not in ("samples", "stage"):
                    writer.add_scalar(name, value, int(row["samples"]))

        sinks.append(to_tensorboard)
        closers.append(writer.close)
    if sys.stderr.isatty():
        bar = _Bar(total)
        sinks.append(bar)
        closers.append(bar.stop)
    else:
        sinks.append(lambda row: click.echo(_line(row, total), err=True))

    def report(row: dict[str, float]) -> None:
        for sink in sinks:
            sink(row)

    try:
        yield report
    finally:
        for close in closers:
            close()


def _line(row: dict[str, float], total: int) -> str:
    if "AP" in row:
        return f"{row['samples']:>9,} samples  AP {row['AP']:.3f}  AP50 {row['AP50']:.3f}  AP75 {row['AP75']:.3f}"
    left = (total - row["samples"]) / max(row["samples_per_s"], 1e-9)
    return (
        f"{row['samples']:>9,} samples  loss {row['loss']:.4f}  {row['samples_per_s']:.0f}/s  "
        f"{left / 60:.0f} min left at this speed"
    )


class _Bar:
    """A live bar: share done, samples/s, loss, last AP, time left. Evaluations stay above it."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._total = total
        self._facts, self._score = "", ""
        self._progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("train", total=total, facts="")
        self._progress.start()

    def __call__(self, row: dict[str, float]) -> None:
        if "AP" in row:
            self._score = f"  AP {row['AP']:.3f}"
            self._progress.console.print(_line(row, self._total), highlight=False)
        else:
            self._facts = f"{row['samples_per_s']:.0f}/s  loss {row['loss']:.4f}"
        self._progress.update(self._task, completed=row["samples"], facts=self._facts + self._score)

    def stop(self) -> None:
        self._progress.stop()
