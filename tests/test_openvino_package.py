"""The openvino package as posecli imports it: no usage statistics, the converter only where it is used."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from posecli.runtime.cache import cache_folder


def python(code: str, home: Path) -> str:
    """What a program prints, run in a process of its own with another home folder."""
    env = {**os.environ, "HOME": str(home), "USERPROFILE": str(home)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return found.stdout.strip()


LOADED = "{name: sys.modules.get(name) is not None for name in ('openvino.tools.ovc', 'openvino_telemetry')}"


def test_neither_converter_nor_statistics_are_imported_to_run_networks(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from posecli.runtime.openvino_package import openvino_package\n"
        f"openvino_package().Core()\nprint({LOADED})"
    )
    assert python(code, tmp_path) == "{'openvino.tools.ovc': False, 'openvino_telemetry': False}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("use", ["from openvino import convert_model", "import openvino; openvino.convert_model"])
def test_the_converter_is_there_for_other_users_of_the_package(tmp_path: Path, use: str) -> None:
    code = f"import sys\nfrom posecli.runtime.openvino_package import openvino_package\nopenvino_package()\n{use}\n"
    assert python(f"{code}print({LOADED})", tmp_path) == "{'openvino.tools.ovc': True, 'openvino_telemetry': False}"
    assert not list(tmp_path.iterdir())


def test_doctor_sends_no_statistics(tmp_path: Path) -> None:
    state = "{f.state for f in examine() if f.subject == 'openvino'}"
    code = f"import sys\nfrom posecli.cli.doctor import examine\nprint({state}, {LOADED})"
    assert python(code, tmp_path) == "{'ok'} {'openvino.tools.ovc': False, 'openvino_telemetry': False}"


def test_an_unknown_attribute_is_still_an_error(tmp_path: Path) -> None:
    code = (
        "from posecli.runtime.openvino_package import openvino_package\n"
        "try:\n    openvino_package().no_such_thing\nexcept AttributeError as error:\n    print(error)"
    )
    assert python(code, tmp_path) == "module 'openvino' has no attribute 'no_such_thing'"


def test_a_package_that_was_imported_before_is_taken_as_it_is(tmp_path: Path) -> None:
    code = (
        "import openvino\nfrom posecli.runtime.openvino_package import converter, openvino_package\n"
        "print(openvino_package() is openvino, converter() is openvino.convert_model)"
    )
    assert python(code, tmp_path) == "True True"


def test_a_run_in_a_new_home_leaves_nothing_there(tmp_path: Path, samples: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    env = {**os.environ, "HOME": str(home), "USERPROFILE": str(home), "POSECLI_CACHE": str(cache_folder())}
    command = [sys.executable, "-m", "posecli", "run", str(samples / "astronaut.jpg"), "--out", str(out), "--quiet"]
    subprocess.run(command, env=env, check=True)
    assert not list(home.iterdir())


def test_the_command_ends_with_its_output_flushed_and_its_exit_functions_called(tmp_path: Path) -> None:
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('exit function'))\n"
        "sys.argv = ['posecli', '--version']\n"
        "from posecli.__main__ import run\nrun()"
    )
    lines = python(script, tmp_path).splitlines()
    assert lines[0].startswith("posecli") and lines[-1] == "exit function"


def test_the_network_is_the_same_whether_it_is_read_early_or_not() -> None:
    from posecli.pose.estimator import load_estimator
    from posecli.pose.runner import load_runner_of
    from posecli.weights.files import find_weights

    crops = np.random.default_rng(0).integers(0, 256, (2, 256, 192, 3), np.uint8)
    early = load_runner_of(find_weights("pose"), device="cpu", runtime="openvino", precision="fp32")
    late = load_estimator(device="cpu", runtime="openvino").runner
    for a, b in zip(early(crops).logits, late(crops).logits, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_tests_themselves_send_no_statistics() -> None:
    """They are sent by forks of the process, which would hold its locks."""
    assert "openvino" in sys.modules and sys.modules.get("openvino_telemetry") is None
