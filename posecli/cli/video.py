"""`posecli video`: videos in, annotated videos with track ids and JSON out."""

from typing import Any

import click

from posecli.cli.early_models import begin_reading
from posecli.cli.groups import GroupedCommand
from posecli.cli.options import look_options, model_options, output_options, people_options, video_options
from posecli.errors import NoInputError

EXAMPLES = [
    ("posecli video clip.mp4", "annotate a video into results/"),
    ("posecli video clip.mp4 --start 1:30 --duration 10", "ten seconds of it"),
    ("posecli video clips/ --smooth offline --trails", "smooth in both directions, draw trails"),
    ("posecli video clip.mp4 --detect-every 1", "slower: the detector on every frame"),
    ("posecli video frame_%05d.png", "numbered images"),
    ("posecli video webcam:0 --show --duration 60", "a minute from a camera"),
]


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("inputs", nargs=-1, required=True)
@video_options
@people_options
@model_options
@look_options
@output_options
def video_command(inputs: tuple[str, ...], **options: Any) -> int:
    """Estimate and track the poses of people in videos.

    INPUTS are videos, folders of them (their photos are skipped), numbered images as frame_%05d.png, - for a stream on
    stdin, rtsp:// or http:// addresses, or webcam:0. The annotated video, coco.json with track ids, coco_results.json,
    run.json and index.html are written to --out.

    The same command resumes an interrupted run, also within a clip; see posecli run for earlier results in --out.
    """
    from posecli.cli.run import execute, find

    runner = begin_reading(options)
    found = [item for item in find(inputs, options) if item.kind != "photo"]
    if not found:
        raise NoInputError(f"no video in {', '.join(inputs)}: posecli run does photos")
    return execute(found, inputs, options, runner)
