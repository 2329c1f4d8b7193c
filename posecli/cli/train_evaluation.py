"""The evaluation of `posecli train` on its validation set."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posecli.cli.train_options import validation
from posecli.train.validation import evaluator as score_on
from posecli.train.validation import read_validation
from posecli.train.visualise import write_predictions

if TYPE_CHECKING:
    from posecli.train.loop import Evaluate
    from posecli.train.packing import TrainingData

Say = Callable[[str], None]


def evaluator(options: dict[str, Any], data: "TrainingData", folder: Path, say: Say) -> "Evaluate | None":
    """The evaluation of the main process; None where there is no validation set."""
    found = validation(options)
    if found is None:
        if not options["corrections"]:
            say("no validation set: nothing is evaluated, and there is no best.safetensors (--val-ann)")
        return None
    truth = read_validation(
        *found,
        data.crops.people.keypoint_set,
        None if options["allow_overlap"] else data.fingerprint,
        missing_limit=options["missing_limit"],
        category=options["category"],
    )
    for note in truth.notes:
        say(f"warning: {found[0].name}: {note}")
    for path in truth.missing[:1]:
        say(f"left out: {len(truth.missing)} missing or unreadable validation images, first {path}")
    scores = score_on(truth)

    def evaluate(network: Any, config: Any) -> dict[str, float]:
        write_predictions(folder / "predictions.jpg", network, config, truth)
        return scores(network, config)

    return evaluate


def elsewhere(options: dict[str, Any], data: "TrainingData", folder: Path, say: Say) -> "Evaluate | None":
    """The evaluation in processes other than the main one, which only wait for it; None without evaluations."""
    return (lambda network, config: {}) if validation(options) else None
