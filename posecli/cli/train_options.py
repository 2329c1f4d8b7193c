"""The options of `posecli train` as data sources, initial weights and recipe."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from posecli.annotations.coco_keypoints import read_annotations
from posecli.annotations.names import find_files
from posecli.errors import DataError, PosecliError, UsageError
from posecli.evaluate.layout import find_annotations, find_images
from posecli.keypoints import KeypointSet
from posecli.pose.config import PoseConfig
from posecli.predict import Predictor, load_predictor
from posecli.train.augment import NONE, WEAK, Augmentation
from posecli.train.data import People, Source, trained_images
from posecli.train.init import Init
from posecli.train.precision import resolve_precision
from posecli.train.recipe import Recipe, Stage
from posecli.train.unlabelled import PhotoFolder, find_people, list_photos
from posecli.weights.files import find_weights, sha256

Options = Mapping[str, Any]

FINE_TUNING_SAMPLES = 50_000
# Options that are fields of Augmentation, and of Recipe, under the same name.
AUGMENTATION = (
    "flip_p",
    "scale",
    "rotation",
    "rotation_p",
    "shift",
    "half_body_p",
    "colour",
    "blur_p",
    "erasing_p",
    "truncation_p",
    "downscale_p",
    "proposal_p",
)
RECIPE = (
    "learning_rate",
    "backbone_lr_factor",
    "teacher_weight",
    "weight_decay",
    "constant_fraction",
    "weak_share",
    "ema",
    "label_smoothing",
    "accumulate",
    "warmup_samples",
    "clip",
    "person_score_weight",
    "box_weight",
    "heads_only",
    "seed",
)


def sources(options: Options) -> list[Source]:
    """The annotations to train on, with their images and weights."""
    names, folders = options["ann"] or (() if options["corrections"] else ("train2017",)), options["images"]
    if folders and len(folders) != len(names):
        raise UsageError("each --ann needs its --images, in the same order")
    found = []
    for number, name in enumerate(names):
        annotations = find_annotations(name, options["data"])
        given, weight = weighted(folders[number]) if folders else (None, 1.0)
        found.append(Source(annotations, find_images(annotations, name, options["data"], given), weight))
    return found


def weighted(text: str) -> tuple[Path, float]:
    """A path and its weight, of PATH[:WEIGHT]."""
    path, separator, weight = text.rpartition(":")
    if separator and weight.replace(".", "", 1).isdigit() and not Path(text).exists():
        return Path(path), float(weight)
    return Path(text), 1.0


def negative_sources(options: Options) -> list[Source]:
    """The files of boxes without a person."""
    if not 0 < options["negatives_share"] < 1:
        raise UsageError(f"--negatives-share {options['negatives_share']}: a share between 0 and 1")
    files, folders = options["negatives"], options["negative_images"]
    if len(files) != len(folders):
        raise UsageError("each --negatives needs its --negative-images, in the same order")
    return [Source(Path(file), Path(folder)) for file, folder in zip(files, folders, strict=True)]


def photo_folders(options: Options) -> list[PhotoFolder]:
    """The photos without labels."""
    if not 0 < options["unlabelled_share"] < 1:
        raise UsageError(f"--unlabelled-share {options['unlabelled_share']}: a share between 0 and 1")
    if options["unlabelled"] and not options["teacher"]:
        raise UsageError("--unlabelled: photos without labels are learned from a teacher; give one by --teacher")
    if options["unlabelled"] and options["heads_only"]:
        raise UsageError("--unlabelled: the heads of --heads-only learn nothing from photos without labels")
    return [list_photos(*weighted(text)) for text in options["unlabelled"]]


def unlabelled_finder(
    options: Options,
    folders: Sequence[PhotoFolder],
    keypoint_set: KeypointSet,
    cache: Path,
    device: str,
    say: Callable[[str], None],
) -> Callable[[], People] | None:
    """A function that finds the people in the photos without labels; None where there are no photos."""
    if not folders:
        return None
    teacher = find_weights(options["teacher"])
    models = sha256(find_weights("person")), sha256(teacher)

    def load() -> Predictor:
        return load_predictor(teacher, device=device)

    return lambda: find_people(folders, keypoint_set, cache, models, load, say)


def validation(options: Options) -> tuple[Path, Path] | None:
    """Annotations and images to evaluate on; None where there are none."""
    if options["val_ann"]:
        annotations = find_annotations(options["val_ann"], options["data"])
        return annotations, find_images(annotations, options["val_ann"], options["data"], options["val_images"])
    if options["val_images"]:
        raise UsageError("--val-images needs --val-ann")
    if options["ann"] or options["corrections"]:
        return None
    try:
        annotations = find_annotations("val2017", options["data"])
    except DataError:
        # Training without a validation set is allowed.
        return None
    return annotations, find_images(annotations, "val2017", options["data"])


def read_files(
    options: Options, people: People, negatives: People | None, folders: Sequence[PhotoFolder]
) -> Iterator[Path]:
    """All files that a run reads: annotations, images, photos without labels, weights."""
    for source in (*sources(options), *(negative_sources(options) if negatives is not None else ())):
        yield source.annotations
    yield from trained_images(people, negatives)
    for each in folders:
        yield from each.photos
    for given in (options["init"], options["teacher"]):
        if given:
            yield Path(given)
    if (found := validation(options)) is not None:
        annotations, images = found
        yield annotations
        with suppress(PosecliError):  # the evaluation reports errors
            given = read_annotations(annotations, options["category"])
            yield from find_files(given.images, images).there.values()


def loader_processes(options: Options, device: torch.device, processes: int) -> int:
    """--workers; the default is 0 on a CPU, where the network needs the cores, and up to 8 for a GPU."""
    if options["workers"] is not None:
        return int(options["workers"])
    return max(0, min(8, (os.cpu_count() or 1) // processes - 1)) if device.type == "cuda" else 0


def precision(options: Options, folder: Path, device: torch.device) -> str:
    """--precision; an unfinished run in folder keeps its own."""
    path = folder / "options.json"
    if options["precision"] == "auto" and (folder / "state.pt").is_file() and path.is_file():
        with suppress(ValueError, KeyError, TypeError):
            return str(json.loads(path.read_bytes())["precision"])
    return resolve_precision(options["precision"], device)


def read_recipe(
    options: Options,
    keypoint_set: KeypointSet,
    init: Init | None,
    precision: str,
    fine_tuning_samples: int = FINE_TUNING_SAMPLES,
) -> Recipe:
    """The recipe of the options. fine_tuning_samples: from a pose model's weights, where --stages is not given."""
    text = options["stages"]
    if init is not None and init.config is not None and "stages" not in given_options(options):
        height, width = init.config.input_size
        text = f"{height}x{width}:{fine_tuning_samples}"
    stages = parse_stages(text, options["batch_size"], options["freeze"])
    drawn = {name: options[name] for name in AUGMENTATION}
    if options["heads_only"] and "proposal_p" not in given_options(options):
        drawn["proposal_p"] = 1.0
    plain = options["no_augment"]
    return Recipe(
        model=_model(options, keypoint_set, init, stages[-1].input_size),
        stages=stages,
        teacher=None if options["teacher"] is None else sha256(find_weights(options["teacher"])),
        precision=precision,
        negatives_share=options["negatives_share"] if options["negatives"] else 0.0,
        unlabelled_share=options["unlabelled_share"] if options["unlabelled"] else 0.0,
        marginal_start=not options["random_head"],
        augmentation=NONE if plain else Augmentation(**drawn),
        weak_augmentation=NONE if plain else replace(WEAK, proposal_p=drawn["proposal_p"]),
        **{name: options[name] for name in RECIPE},
    )


def parse_stages(text: str, batch_size: int, freeze: int) -> tuple[Stage, ...]:
    """Stages from "HEIGHTxWIDTH:SAMPLES[@SIGMA],…". Raises UsageError."""
    stages = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)x(\d+):(\d+(?:_\d+)*)(?:@(\d+(?:\.\d+)?))?", part.strip())
        if found is None:
            raise UsageError(f"--stages {part!r}: HEIGHTxWIDTH:SAMPLES[@SIGMA], e.g. 128x96:200000@6,256x192:100000")
        height, width, samples = (int(value) for value in found.groups()[:3])
        sigma = float(found[4]) if found[4] else None
        if sigma == 0:
            raise UsageError(f"--stages {part!r}: the label's sigma must be above 0")
        factor = 1.0 if height <= 128 else 0.7
        stages.append(Stage((height, width), samples, batch_size, lr_factor=factor, freeze=freeze, sigma=sigma))
    return tuple(stages)


def given_options(options: Options) -> dict[str, Any]:
    """The options given on the command line."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {name: value for name, value in options.items() if context.get_parameter_source(name) is not default}


def _model(options: Options, keypoint_set: KeypointSet, init: Init | None, size: tuple[int, int]) -> PoseConfig:
    """The configuration of --init's pose weights, or the default one, with the options of the command line applied."""
    old = None if init is None else init.config
    if options["heads_only"] and old is None:
        raise UsageError("--heads-only: give a pose model's weights by --init")
    known = options if old is None else given_options(options)
    changes: dict[str, Any] = {
        name: known[name] for name in ("backbone", "laterals", "split_ratio", "temperature") if name in known
    }
    if old is not None and changes.get("backbone", old.backbone) != old.backbone:
        raise UsageError(f"--backbone {changes['backbone']}: --init has {old.backbone}; leave --backbone out")
    if "padding" in known:
        changes["preprocessing"] = replace((old or PoseConfig()).preprocessing, padding=options["padding"])
    channels = _deconv_channels(options["deconv"])
    if "deconv" in known:
        changes["deconv_channels"] = channels
    if "sigma" in known:
        changes["sigma"] = (options["sigma"], options["sigma"])
    elif old is not None:
        ratio = size[0] / old.input_size[0] * changes.get("split_ratio", old.split_ratio) / old.split_ratio
        changes["sigma"] = (old.sigma[0] * ratio, old.sigma[1] * ratio)
    person_score = bool(options["negatives"]) or (old is not None and old.person_score)
    box_head = (old is not None and old.box_head) if options["box_head"] is None else options["box_head"]
    if box_head and not person_score:
        raise UsageError("--box-head: it stands beside a person score head; give --negatives files too")
    if options["heads_only"] and not (options["negatives"] or box_head):
        raise UsageError("--heads-only: nothing to train; give --negatives files or --box-head")
    changes |= {"person_score": person_score, "box_head": box_head, "input_size": size, "keypoints": keypoint_set}
    return replace(old or PoseConfig(), **changes)


def _deconv_channels(text: str) -> tuple[int, ...]:
    if text != "none" and not all(part.strip().isdigit() for part in text.split(",")):
        raise UsageError(f"--deconv {text}: channels separated by commas, or none")
    return () if text == "none" else tuple(int(part) for part in text.split(","))
