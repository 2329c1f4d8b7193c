"""Published models fetched and imported by their names."""

import logging
from pathlib import Path

from posecli.errors import MachineError, UsageError
from posecli.weights.download import Progress, download, offline
from posecli.weights.files import find_weights, named_file
from posecli.weights.zoo import LICENCE, published

LOG = logging.getLogger(__name__)


def pull(name: str, progress: Progress = lambda done, whole: None) -> Path:
    """The weights file of a published model, fetched and converted unless it is there.

    Raises UsageError for an unknown name, else what download and import_weights raise.
    """
    models = published()
    if name not in models:
        raise UsageError(f"weights {name}: not a published model; `posecli weights list` names them")
    model = models[name]
    target = named_file(model.short)
    if target.is_file():
        return target
    from posecli.pose.foreign import Given
    from posecli.pose.importing import import_weights  # imports torch

    source = target.with_name(model.file)
    download(model.url, source, model.sha256, progress)
    height, width = map(int, model.input.split("x"))
    given = Given(keypoints=model.keypoints, input_size=(height, width))
    import_weights(source, target, given, origin=model.url, licence=LICENCE)
    source.unlink()
    return target


def find_or_pull(name: str) -> Path:
    """The file of a name or path; a published model's is fetched, which is said first.

    Raises MachineError where there is none, or where it would have to be fetched and $POSECLI_OFFLINE forbids it.
    """
    try:
        return find_weights(name)
    except MachineError:
        model = published().get(name)
        if model is None:
            raise
    kept = named_file(model.short)
    if not kept.is_file() and not offline():
        LOG.warning("%s: fetching %s, once (POSECLI_OFFLINE=1 forbids it)", name, model.url)
    return pull(name)
