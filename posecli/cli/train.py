"""`posecli train`: a SimCC model from COCO-format keypoints."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli import interrupt
from posecli.cli.groups import GroupedCommand, option, option_group
from posecli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from posecli.train.distributed import Distributed
    from posecli.train.init import Init
    from posecli.train.packing import TrainingData
    from posecli.train.recipe import Recipe

Say = Callable[[str], None]

_FOLDER = click.Path(path_type=Path, file_okay=False)
_P = click.FloatRange(0, 1)
_AT_LEAST_0, _ABOVE_0 = click.FloatRange(0), click.FloatRange(0, min_open=True)
# Repeated from train/precision.py, so that help does not import torch; a test compares them.
PRECISION_NAMES = ("auto", "bf16", "fp32")

EXAMPLES = (
    ("posecli train --data coco/", "train on COCO, laid out as it is published"),
    ("posecli train --ann a.json --images a/ --init pose", "fine-tune the embedded model"),
    ("posecli train --ann a.json --images a/ --preview 24", "look at augmented samples"),
    ("posecli train --ann a.json --images a/ --teacher pose --backbone resnet18", "distil into another backbone"),
    ("posecli train --ann a.json --images a/ --teacher pose --unlabelled photos/", "and from photos without labels"),
    ("posecli train --init pose --corrections results/", "learn from what posecli review corrected"),
    ("torchrun --nproc-per-node 4 -m posecli train --data coco/", "several GPUs"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@option_group(
    "Data",
    option("--data", type=_FOLDER, help="Folder with annotations/ and train2017/."),
    option("--ann", multiple=True, help="COCO keypoints, a file or the name of a split; repeatable."),
    option("--images", multiple=True, metavar="DIR[:WEIGHT]", help="Images of each --ann, and its weight in the loss."),
    option("--category", metavar="NAME|ID", help="Category to train on, where a file has several with keypoints."),
    option(
        "--missing-limit",
        type=_P,
        default=0.0,
        help="Largest share of missing or unreadable images that is left out; more are an error.",
    ),
    option("--cache", type=_FOLDER, help="Folder of packed crops.  [default: RUNS/crops]"),
    option(
        "--corrections",
        multiple=True,
        metavar="OUT[:WEIGHT]",
        help="People corrected by posecli review in a run's output folder; repeatable, also beside --ann.",
    ),
    option(
        "--hold-out",
        type=click.FloatRange(0, 0.9),
        default=0.2,
        help="Share of the corrected people, by clip and photo, that --init and the result are compared on.",
    ),
)
@option_group(
    "Validation",
    option("--val-ann", help="COCO keypoints to evaluate on."),
    option("--val-images", type=click.Path(path_type=Path), help="Their images."),
    option("--allow-overlap", is_flag=True, help="Allow validation images that are also training images."),
    option("--evaluate-every", type=click.IntRange(1), help="Samples between evaluations.  [default: an epoch]"),
    option(
        "--keep-best",
        type=click.IntRange(1),
        default=1,
        help="Best weights to keep, by validation AP; above 1 also as best-AP-SAMPLES.safetensors.",
    ),
)
@option_group(
    "Model",
    option("--init", metavar="NAME|FILE|imagenet", help="Initial weights, of a pose model or of the backbone."),
    option("--backbone", default="mobilenet_v2", metavar="NAME", help="Backbone."),
    option("--deconv", default="128", help="Channels of the transposed convolutions, e.g. 256,256,256, or none."),
    option("--laterals", is_flag=True, help="Add the backbone's finer features to each transposed convolution."),
    option("--split-ratio", default=2.0, help="Bins per pixel, k."),
    option("--padding", type=click.FloatRange(1, 3), default=1.25, help="Factor on a box before its crop."),
    option(
        "--sigma",
        default=6.0,
        help="Standard deviation of the labels in bins, at the last input size; stages without their own scale it in "
        "proportion.",
    ),
    option("--temperature", default=1.0, help="Factor on the logits (RTMPose's beta)."),
    option("--random-head", is_flag=True, help="Initialise the classifiers randomly, not as marginals of a heatmap."),
    option("--freeze", type=click.IntRange(0), default=0, help="Number of leading blocks of the backbone to freeze."),
)
@option_group(
    "Person score and box heads",
    option(
        "--negatives",
        multiple=True,
        old_names=("--nobody",),
        help="COCO file of boxes without a person, for the person score; repeatable.",
    ),
    option(
        "--negative-images",
        multiple=True,
        metavar="DIR",
        old_names=("--nobody-images",),
        help="Images of each --negatives.",
    ),
    option("--negatives-share", default=0.15, old_names=("--nobody-share",), help="Share of negatives."),
    option("--box-head/--no-box-head", default=None, help="Box refinement head.  [default: as in --init]"),
    option("--person-score-weight", type=_AT_LEAST_0, default=0.3, help="Weight of the person score's loss."),
    option("--box-weight", type=_AT_LEAST_0, default=0.3, help="Weight of the box head's loss."),
    option("--heads-only", is_flag=True, help="Train these two heads only, on the frozen network of --init."),
)
@option_group(
    "Distillation",
    option("--teacher", metavar="NAME|FILE", help="Pose weights of a teacher for distillation."),
    option("--teacher-weight", default=0.5, help="Weight of the KL divergence from the teacher."),
    option(
        "--unlabelled",
        multiple=True,
        metavar="DIR[:WEIGHT]",
        help="Photos without labels, whose people are learned from the teacher alone; repeatable.",
    ),
    option("--unlabelled-share", default=0.3, help="Of the samples, with --unlabelled."),
)
@option_group(
    "Schedule and optimiser",
    option("--stages", default="128x96:200000,256x192:100000", help="HEIGHTxWIDTH:SAMPLES[@SIGMA] of each stage."),
    option("--batch-size", type=click.IntRange(1), default=64, help="Of all processes together."),
    option("--accumulate", type=click.IntRange(1), default=1, help="Parts of a batch, for gradient accumulation."),
    option("--learning-rate", "--lr", default=1.5e-3, old_names=("--rate",), help="Highest learning rate (AdamW)."),
    option(
        "--warmup-samples",
        type=click.IntRange(0),
        default=4000,
        help="Samples of the warm-up, at most a tenth of the run.",
    ),
    option("--backbone-lr-factor", default=0.5, help="Factor on the backbone's learning rate."),
    option(
        "--constant-fraction",
        type=_P,
        default=0.6,
        old_names=("--flat-share",),
        help="Part of the run before the cosine decay of the learning rate.",
    ),
    option("--weight-decay", default=0.05, help="Weight decay, not of norms and biases."),
    option("--label-smoothing", default=0.0, old_names=("--smoothing",), help="Weight of a uniform label."),
    option("--clip", type=_ABOVE_0, default=5.0, help="Largest norm of the gradients."),
    option("--ema", default=0.998, help="Decay of the moving average of the weights."),
    option("--seed", default=0, help="Seed of weights, order and augmentation."),
)
@option_group(
    "Augmentation",
    option("--no-augment", is_flag=True, help="No augmentation: the crops of inference."),
    option("--flip-p", type=_P, default=0.5, help="Probability of a horizontal flip."),
    option("--scale", default=0.35, help="Scale by up to 1 ± this."),
    option("--shift", default=0.1, help="Shift relative to the crop's side."),
    option("--rotation", default=45.0, help="Largest rotation in degrees."),
    option("--rotation-p", type=_P, default=0.5, help="Probability of a rotation."),
    option("--half-body-p", type=_P, default=0.15, help="Probability of a crop of the upper or lower body."),
    option("--colour", default=0.3, help="Strength of brightness, contrast, saturation."),
    option("--blur-p", type=_P, default=0.1, help="Probability of a Gaussian blur."),
    option("--erasing-p", type=_P, default=0.2, old_names=("--dropout-p",), help="Probability of random erasing."),
    option(
        "--truncation-p",
        type=_P,
        default=0.2,
        old_names=("--cut-p",),
        help="Probability that the image's border or an occluder hides a part of the person.",
    ),
    option("--downscale-p", type=_P, default=0.2, old_names=("--coarse-p",), help="Probability of a low resolution."),
    option(
        "--proposal-p",
        type=_P,
        default=0.0,
        help="Probability of the crop of a simulated proposal; 1 with --heads-only.",
    ),
    option("--weak-share", type=_P, default=0.2, help="Last part of the run, with weak augmentation."),
)
@option_group(
    "Machine",
    option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N; one each under torchrun."),
    option("--threads", type=click.IntRange(1), help="CPU threads of torch.  [default: torch's own]"),
    option(
        "--workers",
        type=click.IntRange(0),
        help="Loader processes, 0: a thread. Results do not depend on it.  [default: 0, for a GPU up to 8]",
    ),
    option(
        "--precision",
        type=click.Choice(PRECISION_NAMES),
        default="auto",
        help="Of forward and backward passes: auto is bf16 on GPUs that support it, else fp32, faster on CPUs.",
    ),
    option("--compile", "compiled", is_flag=True, help="torch.compile the network."),
)
@option_group(
    "Output",
    option("--runs", type=_FOLDER, default=Path("runs"), help="Folder of runs."),
    option("--name", default="simcc", help="The run's folder in it."),
    option("--resume", is_flag=True, help="Resume an unfinished run, which must be there."),
    option("--preview", type=click.IntRange(1), help="Write a contact sheet of this many augmented samples, and stop."),
    option("--tensorboard", is_flag=True, help="Also write TensorBoard's event files."),
)  # fmt: skip
def train_command(**options: Any) -> int:
    """Train a SimCC pose model on COCO-format keypoints.

    Without --ann, --data DIR (or $POSECLI_DATA, or this folder, or data/) holds
    annotations/person_keypoints_train2017.json with train2017/, and the same of val2017 to evaluate on. The same
    command resumes an unfinished run of the same name; Ctrl-C saves first.
    """
    import torch

    from posecli.cli import train_corrections, train_options
    from posecli.results.lock import locked
    from posecli.runtime.device import resolve_device
    from posecli.train.data import read_negatives
    from posecli.train.distributed import init_distributed
    from posecli.train.folder import refuse_replacing_by_run
    from posecli.train.init import read_init
    from posecli.train.packing import pack_data
    from posecli.weights.files import find_weights, is_known

    if is_known(options["init"]):
        options["init"] = str(find_weights(options["init"]))
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    folder: Path = options["runs"] / options["name"]
    if options["resume"] and not (folder / "state.pt").is_file():
        raise UsageError(f"--resume: no unfinished run in {folder}")
    photos = train_options.photo_folders(options)
    limit, cache = options["missing_limit"], options["cache"] or options["runs"] / "crops"
    init = read_init(options["init"], options["backbone"]) if options["init"] else None
    corrected = train_corrections.read(options, init, cache)
    people = train_corrections.people(options, corrected)
    with init_distributed(str(resolve_device(options["device"]))) as (distributed, device), ExitStack() as stack:
        precision = train_options.precision(options, folder, torch.device(device))
        options, samples = (
            train_corrections.with_defaults(options, corrected),
            train_corrections.samples(options, corrected),
        )
        recipe = train_options.read_recipe(options, people.keypoint_set, init, precision, samples)
        sources = train_options.negative_sources(options)
        negatives = read_negatives(sources, people.keypoint_set, missing_limit=limit) if sources else None
        reads = train_options.read_files(options, people, negatives, photos)
        refuse_replacing_by_run(folder, cache, (*reads, *train_corrections.held_out_images(corrected)))
        if distributed.is_main:
            stack.enter_context(locked(folder, "--runs, --name", ".lock"))
        say: Say = _say if distributed.is_main else _silent
        unlabelled = train_options.unlabelled_finder(options, photos, people.keypoint_set, cache, device, say)
        if corrected is not None and distributed.is_main:
            corrected.decode(say)
        data = pack_data(people, negatives, cache, limit, distributed, unlabelled)
        _describe(data, recipe, folder, say)
        if options["preview"]:
            return _preview(options, data, recipe, folder)
        last = _train(options, data, recipe, init, folder, distributed, device)
        if corrected is not None and distributed.is_main:
            train_corrections.compare(corrected, Path(options["init"]), last, folder, device, say)
        say(f"done → {last}")
    return ExitCode.OK


def _say(line: str) -> None:
    click.echo(line, err=True)


def _silent(line: str) -> None:
    """For processes other than the main one."""


def _describe(data: "TrainingData", recipe: "Recipe", folder: Path, say: Say) -> None:
    """Print the training data, repairs, and what was left out."""
    people, negatives = data.crops.people, None if data.negatives is None else data.negatives.people
    for found in (people, negatives) if negatives is not None else (people,):
        for note in found.notes:
            say(f"warning: {note}")
        for remark in found.remarks:
            say(f"left out: {remark}")
    if not people.keypoint_set.mirrors:
        say(
            "warning: no left and right pairs among the keypoints' names: nothing is mirrored "
            "(the category may give flip_pairs, [] where none change sides)"
        )
    if negatives is not None:
        say(f"{len(negatives)} boxes without a person in {len(set(negatives.images))} images")
    if data.unlabelled is not None:
        photos = data.unlabelled.people
        for remark in photos.remarks:
            say(f"left out: {remark}")
        say(f"{len(photos)} people in {photos.listed} photos without labels")
    say(f"{len(people)} people in {len(set(people.images))} images, {recipe.samples:,} samples → {folder}")


def _preview(options: dict[str, Any], data: "TrainingData", recipe: "Recipe", folder: Path) -> int:
    from posecli.train.visualise import write_preview

    write_preview(folder / "preview.jpg", data, recipe, options["preview"])
    click.echo(str(folder / "preview.jpg"))
    return ExitCode.OK


def _train(
    options: dict[str, Any],
    data: "TrainingData",
    recipe: "Recipe",
    init: "Init | None",
    folder: Path,
    distributed: "Distributed",
    device: str,
) -> Path:
    """Train, or resume; the path of the last weights."""
    import torch

    from posecli.cli.train_evaluation import elsewhere, evaluator
    from posecli.cli.train_options import loader_processes
    from posecli.cli.train_progress import reports
    from posecli.train.calibrate import std_fitter
    from posecli.train.folder import check_resumable, weights_header
    from posecli.train.loop import PoseCallbacks, train
    from posecli.train.teacher import load_teacher
    from posecli.train.visualise import write_curves
    from posecli.weights.files import find_weights

    teacher = None
    if options["teacher"]:
        teacher = load_teacher(find_weights(options["teacher"]), data.crops.people.keypoint_set, device)
    resumed, header = (folder / "state.pt").is_file(), None
    if distributed.is_main:
        check_resumable(folder, recipe, data, options["init"])
        header = weights_header(recipe, data, options["init"])
        if not resumed:
            _describe_init(recipe, init)
    distributed.barrier()
    with reports(recipe.samples, folder, options["tensorboard"], distributed.is_main) as report:
        callbacks = PoseCallbacks(
            evaluate=(evaluator if distributed.is_main else elsewhere)(options, data, folder, _say),
            evaluate_every=options["evaluate_every"] or len(data.crops),
            keep_best=options["keep_best"],
            calibrate=std_fitter(data.crops),
            report=report,
            header=header,
        )
        try:
            return train(
                recipe,
                data.crops,
                folder,
                negatives=data.negatives,
                unlabelled=data.unlabelled,
                teacher=teacher,
                init=init,
                device=device,
                distributed=distributed,
                compiled=options["compiled"],
                workers=loader_processes(options, torch.device(device), distributed.size),
                callbacks=callbacks,
            )
        finally:
            if distributed.is_main and interrupt.received_signal() is None:  # it takes longer than a signal leaves
                write_curves(folder / "curves.png", folder)


def _describe_init(recipe: "Recipe", init: "Init | None") -> None:
    """Print the parts of the model that do not come from --init."""
    from posecli.train.init import build_model
    from posecli.train.state import stage_config

    _, notes = build_model(stage_config(recipe, recipe.stages[0]), init, seed=recipe.seed)
    for note in notes:
        _say(f"init: {note}")
