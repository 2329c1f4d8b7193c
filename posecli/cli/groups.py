"""Help of a command: its options in groups by subject, examples at the end, defaults always shown.

    @click.command(cls=GroupedCommand, examples=[("posecli run photos/ -o out/", "annotate a folder")])
    @option_group("Output", option("--out", "-o", default="results", help="Output folder."))
    def run_command(out: str) -> int: ...

Groups are printed in the order of their decorators, options without a group last.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class GroupedOption(click.Option):
    """An option of a group. old_names: earlier names, which are accepted but not shown."""

    def __init__(self, *args: Any, group: str = "", old_names: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group, self.old_names = group, tuple(old_names)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser accept the old names too."""
        super().add_to_parser(parser, ctx)
        if self.old_names:
            alias = copy.copy(self)
            alias.opts, alias.secondary_opts, alias.old_names = list(self.old_names), [], ()
            alias.add_to_parser(parser, ctx)


class GroupedCommand(click.Command):
    """A command whose help has a section for each option group. examples: pairs of a command line and its purpose."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.context_settings.setdefault("show_default", True)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        for parameter in sorted(options, key=lambda option: not getattr(option, "group", "")):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "") or "Options", []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                formatter.write_dl(list(self.examples), col_max=60)


def option(*names: str, old_names: Sequence[str] = (), **settings: Any) -> Callable[[str], Decorator]:
    """An option for option_group; names and settings are those of click.option."""
    return lambda group: click.option(*names, cls=GroupedOption, group=group, old_names=old_names, **settings)


def option_group(title: str, *options: Callable[[str], Decorator]) -> Decorator:
    """A decorator that adds the options (see `option`) to a command, in this order, under a title in its help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for make in reversed(options):
            command = make(title)(command)
        return command

    return add
