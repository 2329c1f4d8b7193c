"""Order of imports, cycles, sizes of files and functions, what --help loads, doctor."""

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from posecli.cli import main as front
from tests.entry_points import posecli, start
from tests.media_factory import write_photo

ROOT = Path(__file__).parents[1]


def test_imports_go_down_the_list() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_no_import_cycle_within_any_package_nor_across_them() -> None:
    """Imports within functions count too; those for type checkers only do not."""
    graph = grimp.build_graph("posecli", exclude_type_checking_imports=True)
    assert "posecli.pose.config" in graph.find_modules_directly_imported_by("posecli.pose.network")
    try:
        tuple(TopologicalSorter({n: graph.find_modules_directly_imported_by(n) for n in graph.modules}).static_order())
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' ← '.join(error.args[1])}")


MOST_LINES, MOST_FUNCTION_LINES = 400, 60


def test_files_and_functions_are_short() -> None:
    files, functions = set(), set()
    for path in sorted((ROOT / "posecli").rglob("*.py")):
        name, text = path.relative_to(ROOT / "posecli").as_posix(), path.read_text()
        if text.count("\n") > MOST_LINES:
            files.add(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MOST_FUNCTION_LINES:
                functions.add(f"{name}: {node.name}")
    assert not files and not functions, (files, functions)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["doctor", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from posecli.cli.main import cli\n"
        f"cli({arguments!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'cv2', 'av', 'numpy', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_every_command_exists() -> None:
    for name in front.COMMANDS:
        assert front.cli.get_command(None, name) is not None  # type: ignore[arg-type]


def test_doctor_says_a_line_for_everything(capfd: pytest.CaptureFixture[str]) -> None:
    findings = json.loads(posecli(capfd, "doctor", "--json").out)
    subjects = {finding["subject"]: finding for finding in findings}
    assert {"python", "torch", "torchvision", "av", "gpu", "codec libx264", "weights pose"} <= set(subjects)
    assert subjects["torch"]["state"] == "ok"
    assert all("\n" not in finding["text"] for finding in findings)


def test_a_mismatched_torchvision_is_one_line(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    run = ["run", tmp_path / "a.jpg", "-o", tmp_path / "out", "--runtime", "torch"]
    for arguments, code in ((run, 4), (["doctor"], 4)):
        process = start(*arguments, PYTHONPATH=f"{tmp_path}:{ROOT}")
        out, err = process.communicate(timeout=120)
        assert process.returncode == code and "Traceback" not in err + out
        assert "install -U torch torchvision" in err + out or "install --upgrade torch torchvision" in err + out


def test_a_warm_run_on_the_cpu_needs_no_torch(tmp_path: Path) -> None:
    """Networks come from the cache of converted ones: torch and torchvision, which take seconds, are not imported."""
    photo = write_photo(tmp_path / "in" / "a.jpg")
    code = (
        "import sys\n"
        "from posecli.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    print([m for m in ('torch', 'torchvision', 'scipy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "run", str(photo), "-o", str(tmp_path / "out"), "--device", "cpu"]
    command += ["--weights", "pose-fast", "--overwrite"]
    for _ in range(2):  # the first one may convert
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
