"""Entry point: dispatches to subcommands, and maps errors to one-line messages and exit codes."""

import importlib
import os
import sys
from typing import NoReturn

import click

from posecli import __version__, interrupt
from posecli.cli.streams import open_streams
from posecli.errors import ExitCode, PosecliError, is_full
from posecli.text import printed

# name → (module, command, one line for --help). Modules load only when their command is used.
COMMANDS = {
    "run": ("posecli.cli.run", "run_command", "Poses of photos and videos: annotated media and COCO JSON."),
    "video": ("posecli.cli.video", "video_command", "The same for videos only: ids, smoothing, sound, trails."),
    "review": ("posecli.cli.review", "review_command", "Correct the predictions of a run on a page of this machine."),
    "train": ("posecli.cli.train", "train_command", "Train a SimCC pose model on COCO-format keypoints."),
    "train-detector": ("posecli.cli.train_detector", "train_detector_command", "Train the detector of people."),
    "eval": ("posecli.cli.eval", "eval_command", "COCO keypoint AP, comparisons, and an error analysis."),
    "convert": ("posecli.cli.convert", "convert_command", "Annotations from and to CVAT, Label Studio, YOLO-pose."),
    "weights": ("posecli.cli.weights", "weights_command", "List, show and fetch weights."),
    "export": ("posecli.cli.export", "export_command", "Write weights as ONNX or OpenVINO files, for other programs."),
    "bench": ("posecli.cli.bench", "bench_command", "Measure stages of a run, networks and start-up on this machine."),
    "doctor": ("posecli.cli.doctor", "doctor_command", "Report what this machine has and what is missing."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that --help is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of COMMANDS, not alphabetical."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command."""
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="posecli")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """2-D human poses from folders of photos and videos.

    \b
    posecli run photos/ --out results/     annotate everything, write COCO JSON
    posecli video clip.mp4                 ids through the clip, smoothed, sound kept
    posecli train --data coco/             train a model
    posecli eval --ann val2017             evaluate it on COCO
    posecli bench clip.mp4                 where the time of a run goes
    posecli doctor                         what this machine has
    """


def explain(error: Exception) -> tuple[str, ExitCode] | None:
    """A one-line message and the exit code for an error of a known cause, else None."""
    if isinstance(error, PosecliError):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        return error.format_message(), ExitCode(error.exit_code)
    text = str(error)
    if isinstance(error, (RuntimeError, ImportError)) and ("torchvision" in text or "libtorch" in text):
        return (
            "torch and torchvision do not match: `pip install -U torch torchvision` takes a matching pair",
            ExitCode.MACHINE,
        )
    if isinstance(error, ModuleNotFoundError):
        return f"package {error.name} is missing: `pip install posecli` brings it", ExitCode.MACHINE
    if is_full(error):
        return "the disk is full: free some space and start again, finished inputs are kept", ExitCode.MACHINE
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}", ExitCode.MACHINE
    return None


def main() -> NoReturn:
    """Run the command line and exit."""
    open_streams()
    with interrupt.handle_signals():
        try:
            code = _flushed(_run())
        except KeyboardInterrupt:
            # A signal outside of the handlers in _run.
            code = int(ExitCode.INTERRUPTED)
        if (number := interrupt.received_signal()) is not None:
            # A library may have replaced the exception by another error.
            interrupt.print_interrupted()
            code = interrupt.exit_code(number)
        interrupt.finished(code)
    sys.exit(code)


def _run() -> int:
    """The exit code; every error is reported."""
    debug = "--debug" in sys.argv or bool(os.environ.get("POSECLI_DEBUG"))
    # --debug is accepted anywhere on the line.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = cli.main(arguments, prog_name="posecli", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, click.Abort):
        if interrupt.received_signal() is None:
            print("posecli: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BrokenPipeError:
        return _unread()
    except Exception as error:
        if interrupt.received_signal() is not None:
            return ExitCode.INTERRUPTED
        if debug:
            import traceback

            traceback.print_exc()
        if isinstance(error, click.UsageError):
            error.show(file=sys.stderr)
            return error.exit_code
        known = explain(error)
        if known is None:
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            known = f"unexpected {line} (--debug shows where; please report it)", ExitCode.SOME_FAILED
        # One line, also with line breaks in file names.
        print(f"posecli: {printed(' '.join(known[0].splitlines()))}", file=sys.stderr)
        return known[1]


def _flushed(code: int) -> int:
    """Flush stdout; returns the exit code, or another one where that fails."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return code or _unread()
    except OSError as error:
        _unread()
        print(f"posecli: stdout cannot be written ({error.strerror})", file=sys.stderr)
        return code or ExitCode.MACHINE
    return code


def _unread() -> int:
    """The exit code after the reader of stdout has closed it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.SOME_FAILED
