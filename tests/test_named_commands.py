"""What messages, help and documents tell people to type exists: every command and every option."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from posecli.cli.main import cli

ROOT = Path(__file__).parents[1]
# Options of other programs, which messages name too.
FOREIGN = {"--upgrade", "--nproc-per-node", "--user"}
# At the start of a sentence, "posecli" before these words is the program's name, not a command.
WORDS = {
    "left",
    "wrote",
    "results",
    "reads",
    "needs",
    "does",
    "has",
    "is",
    "and",
    "can",
    "writes",
    "itself",
    "on",
    "may",
    "cannot",
}


def commands() -> dict[str, click.Command]:
    """Every command by its words: "run", "weights show"."""
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                part = command.get_command(context, inner)
                assert part is not None
                found[f"{name} {inner}"] = part
    return found


def options(command: click.Command) -> set[str]:
    names = {"--help", "--debug", "--version", "-h", "-v"}
    for parameter in command.params:
        names |= {*parameter.opts, *parameter.secondary_opts, *getattr(parameter, "old_names", ())}
    return names


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Strings of a module, f-strings with {} for what stands in braces, and the lines of another file."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces = (str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, "".join(pieces)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def unknown(text: str) -> Iterator[str]:
    """Commands and options in a text that do not exist."""
    known = commands()
    everything = set().union(*(options(command) for command in known.values()))
    for match in re.finditer(r"(?:^|[(:;`]|\b(?:run|use|with|by))\s*posecli ([a-z]+)(?: ([a-z]+))?(?![\w(=.])", text):
        first, second = match[1], match[2]
        if first in WORDS or first == "import":
            continue
        command = known.get(first)
        if command is None:
            yield match[0]
        elif isinstance(command, click.Group) and second and f"{first} {second}" not in known:
            backtick = "`" in text[match.end() : match.end() + 40]
            if backtick or text[match.end() :].strip() == "":
                yield match[0]
    # A command line in backticks has options of its own.
    for line in re.findall(r"`posecli ([^`]*)`", text):
        words = line.split()
        name = next((n for n in (" ".join(words[:2]), words[0] if words else "") if n in known), None)
        if name is None:
            yield f"posecli {line}"
            continue
        for option in re.findall(r"(?<!\S)(--?[a-z][\w-]*)", line):
            if option not in options(known[name]):
                yield f"posecli {line}: {option}"
    for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]*[a-z])(?![\w-])", text):
        if option not in everything | FOREIGN:
            yield option


def test_every_command_and_option_named_in_the_package_exists() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / "posecli").rglob("*.py"))
        for line, text in texts(path)
        for name in unknown(text)
    ]
    assert not wrong, "\n".join(wrong)


DOCUMENTS = [
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "weights/README.md", "samples/README.md"),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "cli.md"),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_documents_exists(document: str) -> None:
    wrong = []
    for line, text in texts(ROOT / document):
        for match in re.finditer(r"(?:^|`)\s*posecli ([a-z]+)", text):
            if match[1] not in (*commands(), "results"):
                wrong.append(f"{line}: {match[0]}")
        wrong += [f"{line}: {name}" for name in unknown(text) if name.startswith("posecli") and "`" in text]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("convert it with `posecli weights convert`", True),
        ("use `posecli transform`", True),
        ("give --no-such-thing", True),
        ("`posecli weights list` shows them", False),
        ("`posecli run --no-media` writes JSON", False),
        ("`posecli run --epochs 3`", True),
        ("no usable GPU (posecli doctor says more); use --device cpu", False),
        ("posecli doktor says more", True),
    ],
)
def test_the_check_finds_what_does_not_exist(text: str, found: bool) -> None:
    assert bool(list(unknown(text))) == found
