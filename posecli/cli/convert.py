"""`posecli convert`: annotations between COCO and the formats of labelling tools."""

from pathlib import Path
from typing import Any

import click

from posecli.cli.groups import GroupedCommand, option, option_group
from posecli.errors import ExitCode

# Names of convert.FORMATS, repeated because numpy is too slow to import for --help; a test compares them.
FORMAT_NAMES = ("coco", "cvat", "cvat-coco", "label-studio", "yolo-pose")

_FILE = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)

EXAMPLES = (
    ("posecli convert results/coco.json --to cvat --out clip.xml", "a task of CVAT's"),
    ("posecli convert annotations.xml --to coco --out people.json", "and back, for train and eval"),
    ("posecli convert results/ --to label-studio --out tasks.json", "tasks with predictions"),
    ("posecli convert people.json --to yolo-pose --images photos/ --out yolo/", "a data set for Ultralytics"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("source", metavar="IN", type=_FILE)
@option_group(
    "Formats",
    option("--to", type=click.Choice(FORMAT_NAMES), required=True, help="Format to write."),
    option(
        "--out",
        "-o",
        type=_FILE,
        required=True,
        help="File to write: .json, .xml; a folder for yolo-pose, and for several tasks of CVAT's.",
    ),
    option("--from", "source_format", type=click.Choice(FORMAT_NAMES), help="Format of IN.  [default: by its content]"),
    option("--category", metavar="NAME|ID", help="Category of the people, where IN has several."),
    option(
        "--keypoints",
        metavar="SET|FILE",
        help="Names of the keypoints, where IN does not say them: coco17, halpe26, …, or a COCO file.",
    ),
    option("--overwrite", is_flag=True, help="Replace existing files that posecli did not write."),
)
@option_group(
    "Pictures",
    option(
        "--images",
        type=_FOLDER,
        help="Folder of the photos and videos. yolo-pose copies them, and their sizes are read there.",
    ),
    option(
        "--pictures",
        type=_FOLDER,
        help="Write frames of videos as pictures there, named clip.mp4.frames/frame_000012.jpg.",
    ),
)
@option_group(
    "Tools",
    option("--boxes/--no-boxes", default=True, help="cvat: boxes beside the skeletons, in a group with them."),
    option("--label-as", type=click.Choice(["auto", "annotations", "predictions"]), default="auto",
           help="label-studio: auto: predictions where people have scores and none was corrected."),
    option("--image-root", metavar="URL", default="/data/local-files/?d=", help="label-studio: what stands before the "
           "pictures' names."),
    option("--video-tasks", is_flag=True, help="label-studio: a task is a video with tracks, not a frame."),
    option("--val-share", type=click.FloatRange(0, 1), default=0.0, help="yolo-pose: share of the photos and videos in "
           "the split val."),
)  # fmt: skip
def convert_command(source: Path, **options: Any) -> int:
    """Convert annotations of keypoints from IN into another format.

    IN is a COCO file (coco.json and coco_corrected.json of `posecli run`, too), XML or COCO of CVAT's, JSON of Label
    Studio's, the data.yaml of a YOLO-pose data set, or the folder with one of them. What the format cannot hold is left
    out and named. The input is never replaced.
    """
    from posecli.convert.convert import convert
    from posecli.convert.options import ReadOptions, WriteOptions
    from posecli.text import printed

    reading = ReadOptions(options["category"], options["keypoints"], options["images"])
    writing = WriteOptions(
        options["images"],
        options["pictures"],
        options["boxes"],
        options["image_root"],
        options["label_as"],
        options["video_tasks"],
        options["val_share"],
    )
    done = convert(
        source,
        options["source_format"],
        options["to"],
        options["out"],
        reading,
        writing,
        overwrite=options["overwrite"],
    )
    for note in done.notes:
        click.echo(f"note: {printed(note)}", err=True)
    people = sum(len(picture.people) for picture in done.data.pictures)
    what = f"{len(done.data.pictures)} pictures, {people} people, {len(done.data.keypoint_set)} keypoints"
    click.echo(f"{printed(options['out'])}: {what} ({done.source} to {options['to']})")
    return ExitCode.OK
