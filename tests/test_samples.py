"""The embedded weights on the samples, and what README says of the command line."""

import re
from pathlib import Path

import click
import numpy as np
import pytest

from posecli.cli.main import COMMANDS, cli
from posecli.detect import load_detector
from posecli.media.images import read_image
from posecli.predict import load_predictor
from posecli.types import Frame

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_skeletons_sit_on_the_people_of_the_samples(samples: Path, runtime: str) -> None:
    """Where the noses and ankles of the three photos are, read off by eye, within a tenth of the person."""
    predictor = load_predictor(device="cpu", runtime=runtime)
    for name, people in {
        "astronaut.jpg": [{"nose": (223, 124)}],
        "walk_and_climb.jpg": [{"nose": (585, 400), "left_ankle": (555, 655)}, {"nose": (554, 92)}],
        "balance_two_people.jpg": [{"nose": (150, 375)}],
    }.items():
        frame = Frame(read_image(samples / name))
        poses = predictor.predict([frame], [name])[0]
        assert len(poses) >= len(people)
        names = predictor.keypoints.names
        for person in people:
            places = [names.index(keypoint) for keypoint in person]
            distances = np.linalg.norm(poses.keypoints[:, places] - np.array(list(person.values())), axis=-1).max(
                axis=1
            )
            heights = poses.boxes[:, 3] - poses.boxes[:, 1]
            assert (distances / heights).min() < 0.1, (name, person, poses.keypoints[:, places].round())


def test_nobody_is_found_in_a_blank_picture() -> None:
    found = load_detector("person", device="cpu", runtime="torch")(
        [Frame(np.full((480, 640, 3), 127, np.uint8))], ["x"]
    )[0]
    assert len(found) == 0


def test_readme_names_only_options_and_commands_that_exist() -> None:
    known = {"--upgrade", "--help", "--debug"}
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        known |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    text = re.sub(r"python -m pytest.*", "", (ROOT / "README.md").read_text())  # has options of its own
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known
    used = set(re.findall(r"^ {4}posecli (\w+)", text, re.MULTILINE)) | set(re.findall(r"`posecli (\w+)", text))
    assert used <= set(COMMANDS)
