"""`posecli review`: a page to correct a run's predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from posecli.cli.environment import Environment, environment
from posecli.cli.groups import GroupedCommand, option, option_group
from posecli.cli.progress import progress_of
from posecli.errors import ExitCode, MachineError, UsageError
from posecli.text import printed

if TYPE_CHECKING:
    from posecli.corrections.corrections import Corrections


@click.command(
    cls=GroupedCommand,
    examples=[
        ("posecli review results/", "open the page in the browser"),
        ("posecli review results/ --no-browser --port 8700", "print the address only"),
        ("posecli review results/ --render", "draw the media anew, with the corrections"),
    ],
)
@click.argument("out", metavar="OUT")
@option_group(
    "Server",
    option("--port", type=click.IntRange(0, 65535), default=0, show_default="a free one", help="Port of the page."),
    option("--browser/--no-browser", default=True, help="Open the page in the browser."),
)
@option_group(
    "Output",
    option("--render", is_flag=True, help="Draw the media of corrected inputs anew, into OUT/corrected, and end."),
)
def review_command(out: str, port: int, browser: bool, render: bool) -> int:
    """Look at the predictions of a run and correct them, on a page of this machine.

    OUT is the output folder of `posecli run` or `posecli video`. Each edit is written to a journal there at once;
    predictions stay as they are, coco_corrected.json has them with the edits. Ctrl-C ends it. Needs the extra
    posecli[review].
    """
    from posecli.corrections.corrections import Corrections
    from posecli.remote import is_remote, without_file_scheme, without_password

    if is_remote(out):
        shown = printed(without_password(out))
        raise UsageError(f"{shown}: results at an address cannot be reviewed there: copy them to a folder first")
    env = environment()
    with Corrections.open(Path(without_file_scheme(out)), write=True) as corrections:
        if lost := len(corrections.outdated()):
            edits = "1 edit is" if lost == 1 else f"{lost:,} edits are"
            env.say(f"{edits} of predictions that are no longer there: kept in the journal, without effect")
        if render:
            return _render(corrections, env)
        _serve(corrections, printed(out), port, browser, env)
    return ExitCode.OK


def _serve(corrections: "Corrections", shown: str, port: int, browser: bool, env: Environment) -> None:
    """Serve until a signal comes. shown: OUT in messages. Raises MachineError, KeyboardInterrupt."""
    try:
        from posecli.review.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "posecli":
            raise
        raise MachineError(f"{error.name} is not installed: pip install 'posecli[review]'") from error

    def started(address: str) -> None:
        env.say(f"{shown}: the page is at the address below until Ctrl-C")
        click.echo(address, file=env.stdout)
        env.stdout.flush()

    serve(corrections, port, browser, started)


def _render(corrections: "Corrections", env: Environment) -> int:
    """Draw the media of corrected inputs anew; the exit code."""
    from posecli import interrupt
    from posecli.corrections.merge import write_corrected
    from posecli.review.rendering import FOLDER, corrected_inputs, render

    with interrupt.interruptible():
        write_corrected(corrections)
        names = corrected_inputs(corrections)
        with progress_of(len(names), False, env) as progress:
            done = render(corrections, names, progress)
    failed = sum(item.summary.status == "failed" for item in done)
    inputs = "1 input has" if len(names) == 1 else f"{len(names):,} inputs have"
    env.say(f"{inputs} corrections: {len(done) - failed:,} drawn into {printed(corrections.out / FOLDER)}")
    return ExitCode.SOME_FAILED if failed else ExitCode.OK
