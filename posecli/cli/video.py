"""`posecli video`: videos in, annotated videos with ids and JSON out."""

from typing import Any

import click

from posecli.cli.options import model_options, output_options, people_options, video_options
from posecli.errors import NoInputError


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@output_options
@video_options
@people_options
@model_options
def video_command(inputs: tuple[str, ...], **options: Any) -> int:
    """Follow people through videos, and their poses.

    INPUTS are videos, folders of them (their photos are passed over), numbered pictures as frame_%05d.png, - for a
    stream on stdin, rtsp:// or http:// addresses, or webcam:0. The annotated video, coco.json with ids,
    coco_results.json, run.json and index.html go into --out. Started again with the same options, it goes on where
    it stopped, also within a clip; see posecli run for what becomes of earlier results in --out.
    """
    from posecli.cli.run import execute, find

    found = [item for item in find(inputs, options) if item.kind != "photo"]
    if not found:
        raise NoInputError(f"no video in {', '.join(inputs)}: posecli run does photos")
    return execute(found, inputs, options)
