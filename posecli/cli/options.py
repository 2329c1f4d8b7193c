"""Options that `run` and `video` share, in groups by subject. Each is declared here and read in cli/run.py."""

from pathlib import Path

import click

from posecli.cli.groups import option, option_group
from posecli.cli.parameters import (
    DETECT_EVERY,
    DETECTOR,
    DEVICE,
    OFFLINE,
    PERSON,
    POSITION,
    WEIGHTS,
    WORKERS,
    OutputFolder,
)

_FILE = click.Path(path_type=Path, dir_okay=False)
_SCORE = click.FloatRange(0, 1)

# Names of registries, repeated because their modules are too slow to import for --help; tests/test_option_groups.py
# compares them.
RUNTIME_NAMES = ("auto", "torch", "openvino")
PRECISION_NAMES = ("auto", "fp32", "bf16")
DECODER_NAMES = ("auto", "argmax", "dark", "oks", "parabola")
SMOOTHING_NAMES = ("none", "kalman", "one-euro", "offline")
ENCODER_NAMES = ("h264", "hevc", "av1", "vp9", "h264_nvenc")
PRESET_NAMES = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
TABLE_NAMES = ("csv", "parquet", "jsonl", "openpose", "mot")

# Shared with `bench`, which has no other options of their groups.
detector_option = option(
    "--detector",
    default="person",
    type=DETECTOR,
    metavar="NAME|boxes:FILE",
    help="Person detector: person, one of torchvision, whole (one person an image), or boxes from a file.",
)
weights_option = option(
    "--weights", default="pose", type=WEIGHTS, metavar="NAME|FILE", help="Pose model; pose-fast is smaller."
)
offline_option = option("--offline", **OFFLINE)
device_option = option(
    "--device", default="auto", type=DEVICE, metavar="auto|cpu|cuda|cuda:N", help="Where the models run."
)
runtime_option = option("--runtime", type=click.Choice(RUNTIME_NAMES), default="auto", help="What runs the models.")
precision_option = option(
    "--precision",
    type=click.Choice(PRECISION_NAMES),
    default="auto",
    help="Floating-point format of the networks. auto: fp16 on a GPU; on a CPU bf16 where it is native and as "
    "accurate, else fp32.",
)

workers_option = option(
    "--workers",
    default="1",
    type=WORKERS,
    metavar="N|auto",
    help="Processes that share the work; results are the same. auto: from inputs, cores and memory; 1 on a GPU.",
)

people_options = option_group(
    "People",
    detector_option,
    option("--detector-weights", type=_FILE, help="Weights file of the detector."),
    option("--detector-thr", type=_SCORE, help="Lowest score of a person.  [default: the detector's own]"),
    option("--max-people", type=click.IntRange(1), default=100, help="Most people in a frame."),
    option("--person", default="all", type=PERSON, metavar="all|largest|N|id:N",
           help="Keep all people, the N largest, or one track id."),
)  # fmt: skip

model_options = option_group(
    "Models",
    weights_option,
    offline_option,
    device_option,
    runtime_option,
    precision_option,
    option("--decode", "decoder", type=click.Choice(DECODER_NAMES), default="auto", help="How keypoints are decoded."),
    option("--flip/--no-flip", default=False, help="Flip test: average with the mirrored image."),
    option(
        "--reestimate/--no-reestimate",
        default=False,
        help="Estimate poses again from refined boxes that differ much from the detector's.",
    ),
)  # fmt: skip

video_options = option_group(
    "Video",
    option("--start", type=POSITION, metavar="TIME|FRAME", help="First frame: 90, 1:30.5, or f120 for a frame number."),
    option("--end", type=POSITION, metavar="TIME|FRAME", help="End before this frame."),
    option("--duration", type=POSITION, metavar="TIME|FRAME", help="Length from the start; ends a live source."),
    option("--stride", type=click.IntRange(1), default=1, help="Read every N-th frame only."),
    option("--detect-every", type=DETECT_EVERY, default="auto", metavar="N|auto",
           help="Run the detector on every N-th frame; between them boxes are propagated from the keypoints. auto: "
           "every 0.3 s, after a person is lost, and while people overlap; without this option 1 with --blur-faces and "
           "given boxes."),
    option("--track/--no-track", default=True, help="Assign track ids, and smooth keypoints over time."),
    option("--smooth", type=click.Choice(SMOOTHING_NAMES), default="kalman",
           help="Smoothing filter; offline smooths forwards and backwards."),
    option("--fill-gaps", type=click.FloatRange(0, 5), metavar="SECONDS",
           help="Interpolate people who are missing for at most this long; 0 turns it off. Default: 0.8, for live "
           "sources 0."),
    option("--audio/--no-audio", default=True, help="Keep the sound."),
    option("--encoder", type=click.Choice(ENCODER_NAMES), default="h264", old_names=["--codec"],
           help="Video encoder; h264_nvenc is that of an NVIDIA GPU."),
    option("--crf", type=click.IntRange(0, 51), default=20, help="Quality on x264's scale; lower is better."),
    option("--preset", type=click.Choice(PRESET_NAMES), default="veryfast", metavar="NAME",
           help="Encoding speed against file size, ultrafast to veryslow as in x264."),
    option("--fast", is_flag=True, help="The same as --preset ultrafast."),
)  # fmt: skip

look_options = option_group(
    "Look",
    option("--kpt-thr", type=_SCORE, default=0.3, help="Lowest score of a drawn keypoint."),
    option("--show-boxes", is_flag=True, help="Draw boxes."),
    option("--show-ids", is_flag=True, help="Draw track ids, and each person in one colour."),
    option("--trails", is_flag=True, help="Draw each track's last second."),
    option("--black", is_flag=True, help="Draw on black instead of the image."),
    option("--side-by-side", is_flag=True, help="Source on the left, drawing on the right."),
    option("--blur-faces", is_flag=True, help="Make faces unrecognisable."),
)

output_options = option_group(
    "Output",
    option("--out", "-o", type=OutputFolder(), default=Path("results"), help="Output folder."),
    option(
        "--format", "tables", type=click.Choice(TABLE_NAMES), multiple=True, help="Also write this table; repeatable."
    ),
    option("--media/--no-media", default=True, help="Write annotated media."),
    workers_option,
    option(
        "--cluster",
        metavar="ADDRESS",
        help="Do the work on a Ray cluster: auto, ray://HOST:PORT or HOST:PORT. All nodes see inputs and --out under "
        "the same paths. --workers limits the number of workers; without it as many run as fit.",
    ),
    option("--worker-cpus", default=1.0, help="CPUs of a worker of the cluster."),
    option("--worker-gpus", default=0.0, help="GPUs of a worker of the cluster, also a fraction."),
    option("--overwrite", is_flag=True, help="Process finished inputs again."),
    option("--dry-run", is_flag=True, help="List inputs and outputs only."),
    option("--show", is_flag=True, help="Show annotated frames in a window; q quits."),
    option("--json", "as_json", is_flag=True, help="Print run.json to stdout."),
    option("--quiet", "-q", is_flag=True, help="No progress messages."),
)

# Only in `run`: frames of videos have no limit.
photo_options = option_group(
    "Photos",
    option("--max-pixels", type=click.IntRange(1), default=200_000_000, help="Refuse larger photos."),
)
