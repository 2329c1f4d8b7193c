"""Help in groups, examples, shown defaults, and old names of options."""

import io
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from posecli.cli.groups import GroupedCommand, option, option_group
from posecli.cli.run import make_run_options
from posecli.cli.video import video_command


@click.command(cls=GroupedCommand, examples=[("tool --size 3", "a larger one")])
@option_group(
    "Shape",
    option("--size", default=2, old_names=["--width", "-w"], help="Side length."),
    option("--flip/--no-flip", default=False, help="Mirror it."),
)
@option_group("Output", option("--format", type=click.Choice(["csv", "json"]), multiple=True, help="Also write this."))
def tool(size: int, flip: bool, format: tuple[str, ...]) -> None:
    """Make something."""
    click.echo(f"{size} {flip} {','.join(format)}")


def test_help_has_sections_defaults_and_examples() -> None:
    text = CliRunner().invoke(tool, ["--help"]).output
    places = [text.index(part) for part in ("Shape:", "--size", "--flip", "Output:", "--format", "--help", "Examples:")]
    assert places == sorted(places)
    assert "[default: 2]" in text and "[default: no-flip]" in text and "[csv|json]" in text
    assert "tool --size 3" in text
    assert "--width" not in text


def test_old_names_set_the_same_value() -> None:
    for line in (["--size", "5"], ["--width", "5"], ["-w", "5"]):
        assert CliRunner().invoke(tool, line).output == "5 False \n"


def test_an_error_names_the_new_spelling_only() -> None:
    result = CliRunner().invoke(tool, ["--width", "x"])
    assert result.exit_code == 2
    assert "'--size'" in result.output


def test_the_choices_of_the_command_line_are_those_of_the_registries() -> None:
    from posecli.cli import options
    from posecli.media.encoders import ENCODERS, PRESETS
    from posecli.pipeline.run_options import SMOOTHING
    from posecli.pose.codec import CHOICES
    from posecli.results.tables import TABLES
    from posecli.runtime import RUNTIMES

    assert tuple(ENCODERS) == options.ENCODER_NAMES and PRESETS == options.PRESET_NAMES
    assert set(SMOOTHING) == set(options.SMOOTHING_NAMES) and set(CHOICES) == set(options.DECODER_NAMES)
    assert set(TABLES) == set(options.TABLE_NAMES) and {"auto", *RUNTIMES} == set(options.RUNTIME_NAMES)


def test_values_are_completed_in_the_shell() -> None:
    from posecli.cli.run import run_command

    context = click.Context(run_command)
    suggested = {
        parameter.name: [item.value for item in parameter.shell_complete(context, "")]
        for parameter in run_command.params
    }
    assert "kalman" in suggested["smooth"] and "hevc" in suggested["encoder"]
    assert "largest" in suggested["person"] and "cpu" in suggested["device"] and "auto" in suggested["detect_every"]


def test_messages_and_documents_go_to_the_streams_handed_in(tmp_path: Path) -> None:
    from posecli.cli.environment import Environment
    from posecli.cli.run import run_command
    from tests.media_factory import write_photo

    stdout, stderr = io.StringIO(), io.StringIO()
    environment = Environment(stdin=io.StringIO(), stdout=stdout, stderr=stderr, is_tty=False)
    line = [str(write_photo(tmp_path / "a.jpg")), "--out", str(tmp_path / "out"), "--dry-run", "--json"]
    run_command.main(line, standalone_mode=False, obj=environment)
    assert [row["output"] for row in json.loads(stdout.getvalue())] == ["a.jpg"] and not stderr.getvalue()


def test_progress_is_a_line_every_few_seconds_of_the_clock() -> None:
    from posecli.cli.environment import Environment
    from posecli.cli.progress import PLAIN_EVERY, progress_of

    now, stderr = [0.0], io.StringIO()
    environment = Environment(io.StringIO(), io.StringIO(), stderr, is_tty=False, clock=lambda: now[0])
    with progress_of(2, False, environment) as progress:
        progress.begin("a.mp4", 100)
        progress.advance("a.mp4", 10)
        assert not stderr.getvalue()
        now[0] = PLAIN_EVERY
        progress.advance("a.mp4", 40)
        assert stderr.getvalue() == "0 of 2 inputs, 50 frames, 5.0 frames/s, 0:30 left, now 'a.mp4'\n"


@pytest.mark.parametrize(
    ("arguments", "every"),
    [
        ([], None),
        (["--detect-every", "auto", "--blur-faces"], None),
        (["--detect-every", "3", "--blur-faces"], 3),
        # No face may be seen before the next detection; boxes of a file are meant for their own frame.
        (["--blur-faces"], 1),
        (["--detector", "boxes:boxes.json"], 1),
        (["--detector", "whole"], 1),
        (["--detector", "fcos_resnet50_fpn"], None),
    ],
)
def test_how_often_the_detector_runs_by_default(arguments: list[str], every: int | None) -> None:
    context = video_command.make_context("video", ["clip.mp4", *arguments])
    with context:
        assert make_run_options(context.params).tracking.detect_every == every
