"""Networks as numpy functions: a module, a device and a runtime give a callable from pixels to arrays.

In every runtime the results of an item do not depend on the rest of the batch, so that a resumed run gives the same
bytes as an uninterrupted one.
"""

from posecli.errors import UsageError
from posecli.runtime.device import is_gpu, resolve_device
from posecli.runtime.network import CompiledNetwork, ModuleSpec, Runtime
from posecli.runtime.openvino_runtime import compile_openvino

__all__ = ["RUNTIMES", "CompiledNetwork", "ModuleSpec", "Runtime", "compile_network", "is_gpu", "resolve_device"]


def _torch(spec: ModuleSpec, device: str) -> CompiledNetwork:
    from posecli.runtime.torch_runtime import compile_torch  # imports torch

    return compile_torch(spec, device)


# One line adds a runtime: a function of a ModuleSpec and a device that gives a CompiledNetwork.
RUNTIMES: dict[str, Runtime] = {
    "torch": _torch,
    "openvino": compile_openvino,
}


def compile_network(spec: ModuleSpec, *, device: str = "auto", runtime: str = "auto") -> CompiledNetwork:
    """A module ready to run on a device; runtime "auto" is OpenVINO on a CPU and torch on a GPU.

    Raises MachineError where the device is missing, UsageError for unknown names or a runtime that does not support the
    device.
    """
    where = resolve_device(device)
    if runtime == "auto":
        runtime = "torch" if is_gpu(where) else "openvino"
    if runtime not in RUNTIMES:
        raise UsageError(f"--runtime {runtime}: auto, {', '.join(RUNTIMES)}")
    return RUNTIMES[runtime](spec, where)
