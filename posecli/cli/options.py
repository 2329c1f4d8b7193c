"""Options that several commands share, in groups; each takes a command and gives it back with more options."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


def _group(options: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_SHARE = click.FloatRange(0, 1)

# Which models run, and where.
model_options = _group(
    [
        click.option("--weights", default="pose", metavar="NAME|FILE", help="Pose model."),
        click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
        click.option("--runtime", default="auto", help="auto, torch or openvino."),
        click.option("--decode", "decoder", default="auto", help="auto, argmax, dark, oks or parabola."),
        click.option("--flip/--no-flip", default=False, help="Average with the mirror image."),
        click.option(
            "--reestimate/--no-reestimate",
            default=False,
            help="Estimate again from refined boxes that differ much from the detector's.",
        ),
    ]
)

# Who finds people, and who of them is kept.
people_options = _group(
    [
        click.option("--detector", default="person", metavar="NAME|boxes:FILE", help="Who finds people, or whole."),
        click.option("--detector-weights", type=_FILE, help="Its weights file."),
        click.option("--detector-thr", type=_SHARE, help="Lowest score of a person."),
        click.option("--max-people", type=click.IntRange(1), default=100, help="At most so many in a frame."),
        click.option("--person", default="all", metavar="all|largest|N|id:N", help="Keep the N largest, or one id."),
    ]
)

# What is written, and how it looks.
output_options = _group(
    [
        click.option("--out", "-o", type=_FOLDER, default=Path("results"), show_default=True),
        click.option("--format", "tables", multiple=True, help="Also csv, parquet, jsonl, openpose, mot."),
        click.option("--kpt-thr", type=_SHARE, default=0.3, help="Lowest score of a drawn keypoint, 0.3."),
        click.option("--show-boxes", is_flag=True, help="Draw the boxes too."),
        click.option("--show-ids", is_flag=True, help="Draw ids, and each person in a colour of its own."),
        click.option("--trails", is_flag=True, help="Draw where people came from in the last second."),
        click.option("--black", is_flag=True, help="Skeletons on black, without the picture."),
        click.option("--side-by-side", is_flag=True, help="The picture left, the drawing right."),
        click.option("--blur-faces", is_flag=True, help="Make faces unrecognisable."),
        click.option("--no-media", is_flag=True, help="Write JSON and tables only."),
        click.option("--overwrite", is_flag=True, help="Do finished inputs again."),
        click.option("--dry-run", is_flag=True, help="List what would be done."),
        click.option("--show", is_flag=True, help="Show the frames in a window while they are made; q quits."),
        click.option("--json", "as_json", is_flag=True, help="Print run.json to stdout."),
        click.option("--quiet", "-q", is_flag=True, help="No progress."),
    ]
)

# What only videos have.
video_options = _group(
    [
        click.option("--start", metavar="TIME|FRAME", help="Begin here: 90, 1:30.5, or f120 for a frame."),
        click.option("--end", metavar="TIME|FRAME", help="End before this."),
        click.option("--duration", metavar="TIME|FRAME", help="So much from the start; ends a live source."),
        click.option("--stride", type=click.IntRange(1), default=1, help="Only every N-th frame."),
        click.option("--detect-every", default="1", metavar="N|auto", show_default=True,
                     help="Search for people in every N-th frame; between, boxes follow the keypoints."),
        click.option("--no-track", is_flag=True, help="Every frame for itself: no ids, no smoothing."),
        click.option("--smooth", default="kalman", show_default=True, metavar="NAME",
                     help="none, kalman, one-euro, or offline: forwards and backwards, short gaps closed."),
        click.option("--no-audio", is_flag=True, help="Leave the sound out."),
        click.option("--codec", default="h264", show_default=True, help="h264, hevc, av1 or vp9."),
        click.option("--crf", type=click.IntRange(0, 51), default=20, show_default=True,
                     help="Quality on x264's scale: lower is better."),
        click.option("--preset", default="veryfast", show_default=True, help="x264's name for speed against size."),
        click.option("--fast", is_flag=True, help="The same as --preset ultrafast."),
    ]
)  # fmt: skip
