"""Networks as numpy functions: a module, a device and a runtime give a callable from pixels to arrays.

In every runtime the results of an item do not depend on the rest of the batch, so that a resumed run gives the same
bytes as an uninterrupted one.
"""

import functools

from posecli.errors import UsageError
from posecli.runtime.choice import fastest
from posecli.runtime.device import is_gpu, resolve_device
from posecli.runtime.network import CompiledNetwork, ModuleSpec, Runtime
from posecli.runtime.openvino_runtime import compile_openvino
from posecli.runtime.precision import resolve_precision

__all__ = ["RUNTIMES", "CompiledNetwork", "ModuleSpec", "Runtime", "compile_network", "is_gpu", "resolve_device"]


def _torch(spec: ModuleSpec, device: str, precision: str) -> CompiledNetwork:
    from posecli.runtime.torch_runtime import compile_torch  # imports torch

    return compile_torch(spec, device, precision)


# One line adds a runtime: a function of a ModuleSpec, a device and a precision that gives a CompiledNetwork.
RUNTIMES: dict[str, Runtime] = {
    "torch": _torch,
    "openvino": compile_openvino,
}


def compile_network(
    spec: ModuleSpec, *, device: str = "auto", runtime: str = "auto", precision: str = "fp32"
) -> CompiledNetwork:
    """A module ready to run on a device.

    runtime: "auto" is torch on a GPU, and on a CPU the faster one, OpenVINO in case of doubt (runtime.choice).
    precision: "auto", "fp32" or "bf16", see runtime.precision.

    Raises MachineError where the device or its bfloat16 is missing, UsageError for unknown names or a runtime that does
    not support the device.
    """
    where = resolve_device(device)
    computed = resolve_precision(precision, where, bfloat16_measured=spec.bfloat16_measured)
    made = {
        name: functools.cache(functools.partial(compiler, spec, where, computed)) for name, compiler in RUNTIMES.items()
    }
    if runtime == "auto":
        runtime = "torch" if is_gpu(where) else fastest(spec, computed, made)
    if runtime not in RUNTIMES:
        raise UsageError(f"--runtime {runtime}: auto, {', '.join(RUNTIMES)}")
    return made[runtime]()
