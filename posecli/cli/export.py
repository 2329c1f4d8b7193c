"""`posecli export`: weights as ONNX or OpenVINO files, for other programs."""

from pathlib import Path

import click

from posecli.cli.groups import GroupedCommand, option, option_group
from posecli.errors import ExitCode

# Names of export.FORMATS, repeated because torch is too slow to import for --help; a test compares them.
FORMAT_NAMES = ("onnx", "openvino")


@click.command(
    cls=GroupedCommand,
    examples=[
        ("posecli export pose --to onnx --out pose.onnx", "for rtmlib, mmdeploy's demos, TensorRT"),
        ("posecli export pose --to openvino --out pose.xml --uint8 --decode", "pixels in, keypoints out"),
        ("posecli export person --to onnx --out person.onnx --uint8", "the detector"),
    ],
)
@click.argument("weights", metavar="WEIGHTS")
@option_group(
    "Output",
    option("--to", type=click.Choice(FORMAT_NAMES), required=True, help="File format."),
    option("--out", "-o", type=click.Path(path_type=Path), required=True, help="File to write: .onnx, or .xml with a "
           ".bin beside it."),
    option("--overwrite", is_flag=True, help="Replace an existing file."),
)  # fmt: skip
@option_group(
    "Network",
    option("--dynamic-batch", is_flag=True, help="Any number of crops at once, instead of one."),
    option("--uint8", is_flag=True, help="Input of RGB levels (N, H, W, 3), normalised inside, instead of normalised "
           "float32 (N, 3, H, W)."),
    option("--decode", is_flag=True, help="Outputs of keypoints, scores and standard deviations, instead of logits."),
)  # fmt: skip
def export_command(
    weights: str, to: str, out: Path, overwrite: bool, dynamic_batch: bool, uint8: bool, decode: bool
) -> int:
    """Write a pose model or the person detector as an ONNX file or OpenVINO IR.

    WEIGHTS is a name or a file, as for --weights of `run`. The outputs of a pose model are simcc_x and simcc_y, as in
    the files of mmdeploy. The file is compared with torch on fixed pixels before it is written; configuration,
    preprocessing, keypoint names, licence and source are in its metadata.
    """
    from posecli.export import export_weights
    from posecli.pose.pull import find_or_pull

    done = export_weights(
        find_or_pull(weights), out, to, dynamic_batch=dynamic_batch, uint8=uint8, decode=decode, overwrite=overwrite
    )
    click.echo(" and ".join(str(file) for file in done.files[::-1]))
    for name, shape in done.shapes.items():
        size = "x".join("N" if side < 0 else str(side) for side in shape)
        kind = "uint8" if name == "input" and uint8 else "float32"
        note = f", differs from torch by {done.differences[name]:.1e}" if name in done.differences else ""
        click.echo(f"  {name}: {kind} {size}{note}")
    return ExitCode.OK
