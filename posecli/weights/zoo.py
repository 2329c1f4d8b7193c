"""Published models that `posecli weights pull` fetches, and what their publishers say of them.

zoo.tsv lists OpenMMLab's checkpoints of SimCC models from the metafiles of MMPose 1.3.2, whose repository is under
Apache-2.0; no licence is stated for the weights apart. They are neither part of posecli nor tested by it.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

LICENCE = "Apache-2.0 (MMPose's repository; none is stated for the weights apart)"


@dataclass(frozen=True)
class Published:
    """A model by its name, short or in full. sha256: its first digits, "" where not published; on: the test set."""

    short: str
    name: str
    task: str
    keypoints: str
    input: str
    metric: str
    on: str
    millions: str
    sha256: str
    url: str

    @property
    def file(self) -> str:
        """The file's own name."""
        return self.url.rsplit("/", 1)[-1]


@cache
def published() -> dict[str, Published]:
    """The models by both of their names, in the order of the list."""
    text = resources.files("posecli.weights").joinpath("zoo.tsv").read_text(encoding="utf-8")
    found: dict[str, Published] = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t"):
        values = {key: value.removeprefix("-") for key, value in row.items()}
        values |= {"short": values["short"] or values["name"], "on": values["on"].replace("_", " ")}
        model = Published(**values)
        found[model.short] = found[model.name] = model
    return found
