"""`posecli doctor`: packages, devices, codecs and weights of this machine."""

import importlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click

from posecli.errors import ExitCode, MachineError


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: "ok", "note" (works with restrictions) or "missing"."""

    subject: str
    state: str
    text: str


PACKAGES = (
    "torch",
    "torchvision",
    "cv2",
    "av",
    "numpy",
    "scipy",
    "pycocotools",
    "safetensors",
    "orjson",
    "openvino",
)


def _packages() -> Iterator[Finding]:
    from posecli.runtime.openvino_package import openvino_package

    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        try:
            module = openvino_package() if name == "openvino" else importlib.import_module(name)
        except Exception as error:  # a broken binary package can raise any exception on import
            first = (str(error).splitlines() or [""])[0]
            hint = ""
            if name == "torchvision":
                hint = "; it must match torch: `pip install --upgrade torch torchvision`"
            yield Finding(name, "missing", f"does not import ({type(error).__name__}: {first[:90]}){hint}")
            continue
        version = getattr(module, "__version__", None) or importlib.metadata.version(name)
        yield Finding(name, "ok", str(version))


def _gpu() -> Iterator[Finding]:
    import torch

    from posecli.runtime.device import has_nvidia_driver
    from posecli.runtime.probe import gpu_problem

    problem = gpu_problem("cuda")
    if not torch.cuda.is_available():
        driver = "a driver is there" if has_nvidia_driver() else "no NVIDIA driver"
        yield Finding("gpu", "note", f"{problem}, {driver}: everything runs on the CPU")
        return
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        text = f"cuda:{number} {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        problem = gpu_problem(f"cuda:{number}")
        if problem is None:
            yield Finding("gpu", "ok", f"{text}; it computes")
        else:
            yield Finding("gpu", "note", f"{text}; not usable: {problem}: --device auto runs on the CPU")


def _cpu() -> Iterator[Finding]:
    import torch

    from posecli.runtime.openvino_package import openvino_package
    from posecli.runtime.precision import has_bfloat16

    core = openvino_package().Core()
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    yield Finding("cpu", "ok", f"{name}, {torch.get_num_threads()} threads for torch")
    if has_bfloat16():
        yield Finding("bfloat16", "ok", "native on this CPU: --precision auto uses it")
    else:
        yield Finding("bfloat16", "note", "not native on this CPU: --precision auto is float32")
    capability = str(torch.backends.cpu.get_cpu_capability())
    tile = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    yield Finding("amx", "ok" if tile else "note", f"{'there' if tile else 'not there'}; torch uses {capability}")


def _codecs() -> Iterator[Finding]:
    import av

    for name, mode, use in (
        ("h264", "r", "reading most videos"),
        ("hevc", "r", "reading phone videos"),
        ("libdav1d", "r", "reading AV1"),
        ("libx264", "w", "writing annotated videos"),
        ("aac", "w", "writing sound"),
    ):
        try:
            av.codec.Codec(name, "r" if mode == "r" else "w")
        except ValueError:
            yield Finding(f"codec {name}", "missing", f"this PyAV lacks it; needed for {use}: `pip install av`")
        else:
            yield Finding(f"codec {name}", "ok", use)


def _weights() -> Iterator[Finding]:
    from posecli.weights.files import EMBEDDED, find_weights

    for name in EMBEDDED:
        try:
            path = find_weights(name)
        except MachineError as error:
            yield Finding(f"weights {name}", "missing", str(error))
        else:
            yield Finding(f"weights {name}", "ok", f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def _cache() -> Iterator[Finding]:
    from posecli.runtime.cache import cache_folder, cached_bytes

    folder = cache_folder()
    yield Finding("cache", "ok", f"{folder}: {cached_bytes() / 1e6:.0f} MB of networks prepared for this machine")


# (height, width) of pictures that give the detector every size of its input.
_PICTURES = tuple((448, side) for side in range(192, 449, 64)) + tuple((side, 448) for side in range(192, 448, 64))


def prepare() -> Iterator[Finding]:
    """Convert and compile the embedded networks, which the first run would do otherwise."""
    import numpy as np

    from posecli.detect import load_detector
    from posecli.pose.estimator import load_estimator
    from posecli.runtime import is_gpu, resolve_device
    from posecli.types import Frame

    if is_gpu(resolve_device("auto")):
        yield Finding("warm-up", "note", "networks run in torch on this machine's GPU, nothing is prepared")
        return
    for name in ("pose", "pose-fast"):
        load_estimator(name, device="cpu", precision="auto")
        yield Finding(f"prepared {name}", "ok", "for its input size")
    detector = load_detector("person", device="cpu", precision="auto")
    for height, width in _PICTURES:
        detector([Frame(np.zeros((height, width, 3), np.uint8))], [""])
    yield Finding("prepared person", "ok", f"for {len(_PICTURES)} input sizes")


SECTIONS: tuple[Callable[[], Iterator[Finding]], ...] = (_packages, _gpu, _cpu, _codecs, _weights, _cache)


def examine() -> list[Finding]:
    """All findings. A section whose package is broken is reported as such."""
    findings: list[Finding] = []
    for section in SECTIONS:
        try:
            findings.extend(section())
        except Exception as error:  # the report must be complete on a broken machine
            first = (str(error).splitlines() or [""])[0]
            findings.append(Finding(section.__name__.strip("_"), "missing", f"{type(error).__name__}: {first[:120]}"))
    return findings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
@click.option("--warm-up", is_flag=True, help="Prepare the embedded networks for this machine, so that no run has to.")
def doctor_command(as_json: bool, warm_up: bool) -> int:
    """Report what this machine has and what is missing.

    The exit code is 4 if something that posecli needs is missing. Networks are converted and compiled once for a
    machine, by the first run that needs them or by --warm-up.
    """
    findings = [*(prepare() if warm_up else ()), *examine()]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        from rich.console import Console
        from rich.markup import escape

        console = Console(highlight=False, soft_wrap=True)
        marks = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "missing": "[red]missing[/]"}
        for finding in findings:
            console.print(f"{marks[finding.state]} {finding.subject:<16} {escape(finding.text)}")
    return ExitCode.MACHINE if any(finding.state == "missing" for finding in findings) else ExitCode.OK
