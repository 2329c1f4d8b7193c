"""Generate docs/cli.md from the commands.

    python docs/generate.py

The page depends on the options only, not on the terminal: run it after every change of an option or of its help.
tests/test_docs.py checks that the page is up to date.
"""

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

PAGE = Path(__file__).with_name("cli.md")
sys.path.insert(0, str(PAGE.parents[1]))

from posecli.cli.main import cli  # noqa: E402
from posecli.errors import ExitCode  # noqa: E402

HEAD = """# Command line

Generated from the commands by `python docs/generate.py`; do not edit it by hand. `posecli COMMAND --help` prints the
same in a terminal. `--debug`, accepted anywhere on the line, prints the traceback of an error.

"""
EXIT_CODES = {
    ExitCode.OK: "all done",
    ExitCode.SOME_FAILED: "some input failed, the rest is done; or a file is invalid",
    ExitCode.USAGE: "wrong usage",
    ExitCode.NO_INPUT: "no input found",
    ExitCode.MACHINE: "something is missing on the machine: weights, a device, a writable folder",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); the same command resumes",
    ExitCode.TERMINATED: "terminated (SIGTERM); the same command resumes",
}


def commands(group: click.Group = cli, path: Sequence[str] = ("posecli",)) -> Iterator[tuple[str, click.Command]]:
    """Every command that is not hidden, with its full name, in the order of the help."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def options(command: click.Command) -> list[click.Option]:
    """The options that the help shows."""
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


def describe_option(option: click.Option, context: click.Context) -> str:
    """A table row: names with their argument, and the help with range and default."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    takes = ""
    if not option.is_flag:
        metavar = option.metavar or option.type.get_metavar(option, context) or option.type.name.upper()
        takes = f" `{metavar.replace('|', chr(92) + '|')}`"
    extra = option.get_help_extra(context)
    notes = [f"default: {extra['default']}"] if "default" in extra else []
    notes += [str(extra[key]) for key in ("range", "required") if key in extra]
    text = " ".join((option.help or "").split()).replace("|", "\\|")
    detail = f" [{'; '.join(notes)}]" if notes else ""
    return f"| {names}{takes} | {text}{detail} |"


def describe(name: str, command: click.Command) -> str:
    """The section of one command."""
    context = click.Context(command, info_name=name, show_default=True)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", f"    {usage}", ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += [" ".join(paragraph.split()), ""]
    groups: dict[str, list[str]] = {}
    for option in options(command):
        groups.setdefault(getattr(option, "group", "") or "Options", []).append(describe_option(option, context))
    for title, rows in groups.items():
        lines += [f"**{title}**", "", "| option | |", "|---|---|", *rows, ""]
    if examples := getattr(command, "examples", ()):
        width = max(len(line) for line, _ in examples)
        lines += ["**Examples**", "", *(f"    {line:{width}}  {what}".rstrip() for line, what in examples), ""]
    return "\n".join(lines)


def page() -> str:
    """The text of docs/cli.md."""
    found = list(commands())
    summary = [f"- [`{name}`](#{name.replace(' ', '-')}): {command.get_short_help_str(120)}" for name, command in found]
    codes = ["## Exit codes", "", "| code | |", "|---|---|", *(f"| {int(c)} | {EXIT_CODES[c]} |" for c in ExitCode), ""]
    sections = [describe(name, command) for name, command in found]
    return HEAD + "\n".join([*summary, "", *sections, *codes])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
