"""The documents and the code agree: what the code has is documented, and what the documents name exists."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs.generate import EXIT_CODES, PAGE, commands, options, page
from posecli.errors import ExitCode
from posecli.evaluate.error_types import ERROR_TYPES
from posecli.evaluate.predictions import RANKINGS
from posecli.evaluate.scoring import NAMES
from posecli.results.tables import COLUMNS, TABLES
from posecli.weights.files import EMBEDDED
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture, write_photo, write_video

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("docs/*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")),
]
REGISTRIES = re.findall(
    r"^\| [\w ()']+ \| `(posecli/[\w/]+\.py)` \| `([A-Z_]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def keys_of(value: Any) -> set[str]:
    """All keys of a JSON document, at any depth."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[\w-]+)?\)", text):
        assert not target or target.startswith("http") or (document.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([\w-]+)\)", text):
        page = document.parent / target if target else document
        anchors = {
            re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        }
        assert anchor in anchors, f"{target}#{anchor}"
    # Files of the repository, or of the package.
    for path in re.findall(r"`([a-z]+/[\w./-]+\.(?:py|md|sh|txt))`", text):
        if path.split("/")[0] != "runs":
            assert (ROOT / path).is_file() or (ROOT / "posecli" / path).is_file(), path


def test_every_exit_code_is_documented() -> None:
    assert set(EXIT_CODES) == set(ExitCode)
    readme = text_of("README.md").split("Exit codes:")[1].split("\n\n")[0]
    assert {int(number) for number in re.findall(r"\d+", readme)} == {int(code) for code in ExitCode}


def test_every_table_and_its_columns_are_documented() -> None:
    text = text_of("docs/outputs.md")
    for name in (*TABLES, *COLUMNS):
        assert f"`{name}`" in text, name


def test_every_field_of_a_run_is_documented(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, tiny_weights: Path
) -> None:
    write_photo(tmp_path / "in" / "a.png", picture(64, 96))
    write_video(tmp_path / "in" / "b.mp4", 3)
    out = tmp_path / "out"
    result = posecli(capfd, "run", tmp_path / "in", "--out", out, "--weights", tiny_weights, *QUICK)
    assert result.code == 0, result.err
    text = text_of("docs/outputs.md")
    coco = json.loads((out / "coco.json").read_bytes())
    assert coco["videos"] and coco["annotations"]
    parts = [coco["images"], coco["videos"], coco["annotations"], json.loads((out / "coco_results.json").read_bytes())]
    run = json.loads((out / "run.json").read_bytes())
    names = set().union(*map(keys_of, parts)) | set(run) | set().union(*map(set, run["inputs"]))
    assert "keypoint_std" in names and "lost_frames" in names
    documented = set(re.findall(r"\w+", text))
    assert names <= documented, names - documented
    written = {path.name for path in out.iterdir()}
    assert written - {"a.png", "b.mp4"} <= set(re.findall(r"[\w.]+", text)), written


def test_figures_error_types_and_rankings_of_an_evaluation_are_documented() -> None:
    text = text_of("docs/evaluation.md")
    for name in (*ERROR_TYPES, *RANKINGS, "metrics.json", "coco_results.json", "report.html", "comparison.md"):
        assert name in text, name
    assert len(NAMES) == 10 and "the ten COCO figures" in text


def test_every_embedded_model_is_documented() -> None:
    for name in EMBEDDED:
        assert f"`{name}`" in text_of("docs/weights.md"), name
        assert f"{name}.safetensors" in text_of("weights/README.md") or f"## {name}" in text_of("weights/README.md"), (
            name
        )


@pytest.mark.parametrize(("path", "name"), REGISTRIES)
def test_a_registry_of_contributing_is_a_dict_in_that_file(path: str, name: str) -> None:
    module = importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    assert isinstance(getattr(module, name), dict) and getattr(module, name)


def test_contributing_lists_every_registry() -> None:
    declared = {
        name
        for path in (ROOT / "posecli").rglob("*.py")
        for name in re.findall(r"^([A-Z][A-Z_]+): dict\[str, \w", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    not_registries = {"COLOURS", "JOINTS", "OPERATIONS", "TRAIL_POINTS"}
    assert declared - not_registries <= {name for _, name in REGISTRIES}, declared


def test_the_backbone_of_contributing_trains_and_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torchvision
    from torch import nn

    from posecli.backbones import BACKBONES, Backbone, BackboneSpec
    from posecli.pose.config import PoseConfig
    from posecli.pose.network import SimCC

    (example,) = re.findall(r"^```python\n(.+?)^```", text_of("CONTRIBUTING.md"), re.MULTILINE | re.DOTALL)
    registry = dict(BACKBONES)
    names = {"torchvision": torchvision, "nn": nn, "Backbone": Backbone, "BackboneSpec": BackboneSpec}
    exec(example, {**names, "BACKBONES": registry})
    (new,) = set(registry) - set(BACKBONES)
    monkeypatch.setitem(BACKBONES, new, registry[new])
    network = SimCC(PoseConfig(backbone=new, deconv_channels=(8,), input_size=(64, 32))).eval()
    x, y = network(torch.zeros(1, 3, 64, 32))[:2]
    assert x.shape == (1, 17, 64) and y.shape == (1, 17, 128)


def test_the_python_page_runs_and_lists_every_name_and_field(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    import posecli as library

    text = text_of("docs/python.md")
    monkeypatch.chdir(ROOT)
    namespace: dict[str, Any] = {}
    for example in re.findall(r"^```python\n(.+?)^```", text, re.MULTILINE | re.DOTALL):
        exec(example, namespace)
    assert len(namespace["annotations"]) == len(namespace["again"]) > 0
    assert namespace["drawn"].shape == namespace["image"].pixels.shape
    assert capfd.readouterr().out.count("\n") == 8
    for name in (*library.__all__, *(field.name for field in dataclasses.fields(library.Poses))):
        assert re.search(rf"\b{name}\b", text), name


def test_architecture_lists_every_package_and_module() -> None:
    text = text_of("ARCHITECTURE.md")
    for path in sorted((ROOT / "posecli").iterdir()):
        if path.suffix == ".py" and not path.name.startswith("_"):
            assert re.search(rf"^ {{4}}(.* )?{path.name}\b", text, re.MULTILINE), path.name
        elif (path / "__init__.py").is_file():
            assert re.search(rf"^ {{4}}(.* )?{path.name}/", text, re.MULTILINE), path.name


def test_every_option_has_a_help_and_its_default_in_one_spelling() -> None:
    for name, command in commands():
        for option in options(command):
            assert option.help, f"{name} {option.name}"
            # Defaults that are no value are written as click writes the others.
            spelt = re.sub(r"\[default: [^\]]+\]$", "", option.help)
            assert "default" not in spelt, f"{name} {option.name}: {option.help}"


def test_the_command_line_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python docs/generate.py`"


METAPHORS = re.compile(
    r"\b(house|front door|corridor|had its say|has its say|in the mirror too|whole or not)\b", re.IGNORECASE
)


def test_every_key_of_the_review_page_is_documented() -> None:
    script = text_of("posecli/review/static/keys.js")
    rows = re.findall(r"^  \['\w+', '([^']+)', '([^']+)', \{", script, re.MULTILINE)
    assert len(rows) > 25
    keys = text_of("docs/review.md").partition("\n## Keys\n")[2].partition("\n## ")[0]
    documented = [line.replace("`", "") for line in keys.splitlines() if line.startswith("| `")]
    assert documented == [f"| {pressed} | {text} |" for pressed, text in rows]


def test_documents_and_code_use_no_metaphors() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in [*DOCUMENTS, *(ROOT / "posecli").rglob("*.py"), ROOT / "weights" / "README.md"]
        for found in METAPHORS.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)
