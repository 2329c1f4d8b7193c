"""`posecli train --corrections`: its data, its defaults, and the comparison at the end."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from posecli.cli.train_options import FINE_TUNING_SAMPLES, given_options, sources, weighted
from posecli.errors import UsageError
from posecli.evaluate.evaluation import compare as differences_of
from posecli.evaluate.evaluation import evaluate
from posecli.evaluate.predictions import predict_all, true_boxes
from posecli.evaluate.table import comparison_markdown
from posecli.pose.estimator import load_estimator
from posecli.train.corrected import CorrectedData, joined, read_corrected
from posecli.train.data import People, read_people
from posecli.train.init import Init

# What --corrections changes in the defaults of other options: few people, a good start that must not be forgotten.
DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 2e-5,
    "backbone_lr_factor": 0.3,
    "batch_size": 32,
    "box_weight": 0.0,
    "warmup_samples": 500,
    "constant_fraction": 0.3,
    "ema": 0.99,
    "scale": 0.2,
    "rotation": 20.0,
    "truncation_p": 0.1,
    "half_body_p": 0.05,
    "erasing_p": 0.1,
}
# Samples of a person, within limits.
_SAMPLES_EACH, _LEAST_SAMPLES, _MOST_SAMPLES = 20, 1000, 50_000


def read(options: dict[str, Any], init: Init | None, cache: Path) -> CorrectedData | None:
    """The corrected people of --corrections; None without it. Raises UsageError, DataError."""
    if not options["corrections"]:
        return None
    if init is None or init.config is None:
        raise UsageError("--corrections: give the pose weights to start from by --init, such as --init pose")
    folders = [weighted(text) for text in options["corrections"]]
    if any(weight <= 0 for _, weight in folders):
        raise UsageError("--corrections: a weight must be above 0")
    return read_corrected([path for path, _ in folders], cache, options["hold_out"], [weight for _, weight in folders])


def people(options: dict[str, Any], corrected: CorrectedData | None) -> People:
    """The people to train on: those of --ann, and the corrected ones that are not held out."""
    given = sources(options)
    found = None
    if given:
        found = read_people(given, missing_limit=options["missing_limit"], category=options["category"])
    if corrected is None:
        assert found is not None
        return found
    everybody = joined(found, corrected.people())
    return replace(everybody, remarks=(*everybody.remarks, *corrected.remarks))


def held_out_images(corrected: CorrectedData | None) -> Iterator[Path]:
    """The images that the comparison reads."""
    if corrected is not None:
        yield from (one.image for one in corrected.held_out)


def with_defaults(options: dict[str, Any], corrected: CorrectedData | None) -> dict[str, Any]:
    """The options with the defaults for corrections, where only these are trained on."""
    if corrected is None or options["ann"]:
        return options
    given = given_options(options)
    return {**options, **{name: value for name, value in DEFAULTS.items() if name not in given}}


def samples(options: dict[str, Any], corrected: CorrectedData | None) -> int:
    """The samples of a fine-tuning: by the number of people, where only corrections are trained on."""
    if corrected is None or options["ann"]:
        return FINE_TUNING_SAMPLES
    return sample_count(len(corrected.training))


def sample_count(number: int) -> int:
    """The samples to learn so many corrected people from."""
    return min(max(_SAMPLES_EACH * number, _LEAST_SAMPLES), _MOST_SAMPLES)


def compare(
    corrected: CorrectedData, before: Path, after: Path, folder: Path, device: str, say: Callable[[str], None]
) -> None:
    """Compare two weights on the people held out, as `posecli eval` does; write comparison.json and comparison.md."""
    truth = corrected.ground_truth()
    if truth is None:
        say("no person is held out: no comparison (--hold-out)")
        return
    if truth.keypoint_set.sigmas is None:
        say("these keypoints have no sigmas in the run's weights, which OKS needs: no comparison")
        return
    weights = {"before": before, "after": after}
    estimators = [load_estimator(str(path), device=device, runtime="torch") for path in weights.values()]
    found = predict_all(estimators, truth, true_boxes(truth))
    evaluations = [
        evaluate(name, truth, predictions, {"weights": str(path), "boxes": "true"})
        for (name, path), predictions in zip(weights.items(), found, strict=True)
    ]
    differences = differences_of(evaluations)
    document = {"models": [each.to_json() for each in evaluations], "differences": differences}
    (folder / "comparison.json").write_bytes(
        orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
    )
    command = f"posecli train --init {before.name} --corrections ..."
    (folder / "comparison.md").write_text(comparison_markdown(evaluations, differences, command), encoding="utf-8")
    first, second = (each.scores.values["AP"] for each in evaluations)
    gap = "{value:+.3f} ({low:+.3f} to {high:+.3f}, 95 %, paired)".format(**differences[0]["AP"])
    people, images = evaluations[0].scores.people, evaluations[0].scores.images
    say(f"on {people} held-out people in {images} images: AP {first:.3f} before, {second:.3f} after, {gap}")
