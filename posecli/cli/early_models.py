"""The models of a command: their options, the pose network read while the rest is imported, and their end."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posecli.pipeline.models import ModelOptions
    from posecli.pose.runner import Runner
    from posecli.predict import Predictor

# The models of the last command in this process, see keep.
_KEPT: "list[Predictor]" = []


def chosen_models(options: dict[str, Any]) -> "ModelOptions":
    """The models of a command's options, by name."""
    from posecli.pipeline.models import ModelOptions

    boxes = options["detector_weights"]
    return ModelOptions(
        options["weights"],
        detector=options["detector"],
        device=options["device"],
        runtime=options["runtime"],
        precision=options["precision"],
        decoder=options["decoder"],
        flip=options["flip"],
        detector_threshold=options["detector_thr"],
        detector_weights=None if boxes is None else str(boxes),
        max_people=options["max_people"],
        reestimate=options["reestimate"],
    )


def begin_reading(options: dict[str, Any]) -> "Runner | None":
    """The embedded pose network, read by OpenVINO in the background from now on; None where that is not all to do.

    Called before the command finds its inputs and imports what it needs, which takes about as long. Where the network
    must be converted first, or the options are wrong, it is loaded later with all others.
    """
    from posecli.errors import PosecliError
    from posecli.runtime.openvino_runtime import is_prepared
    from posecli.weights.files import EMBEDDED, find_weights, sha256

    if options["runtime"] not in ("auto", "openvino") or options["device"] not in ("auto", "cpu"):
        return None
    if options["dry_run"] or options["weights"] not in EMBEDDED:
        return None
    try:
        path = find_weights(options["weights"])
        if not is_prepared(sha256(path)):
            return None
        from posecli.pose.runner import load_runner_of

        return load_runner_of(path, **{name: options[name] for name in ("device", "runtime", "precision")})
    except PosecliError:
        return None


def keep(predictor: "Predictor") -> "Predictor":
    """Keep the models until the next command's, or the process ends: freeing networks takes a tenth of a second."""
    _KEPT[:] = [predictor]
    return predictor
