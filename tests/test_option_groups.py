"""Help in groups, examples, shown defaults, and old names of options."""

import click
from click.testing import CliRunner

from posecli.cli.groups import GroupedCommand, option, option_group


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
