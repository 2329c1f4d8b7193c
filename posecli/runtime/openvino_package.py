"""The openvino package without its usage statistics, and without its converter where that is not needed.

`import openvino` also imports its converter, which takes longer than all the rest and, by the package
openvino_telemetry, sends an event to a statistics service and makes a folder in the user's home.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_CONVERTER, _STATISTICS = "openvino.tools.ovc", "openvino_telemetry"
_lock = threading.RLock()


def openvino_package() -> Any:
    """The package openvino. Its converter is imported at the first use of openvino.convert_model.

    Raises ImportError where it is not installed or does not fit this machine.
    """
    with _lock:
        if "openvino" not in sys.modules:
            with _blocked(_CONVERTER):
                package: Any = importlib.import_module("openvino")
            if not hasattr(package, "convert_model"):
                package.__getattr__ = _late_attribute
        return importlib.import_module("openvino")


def converter() -> Callable[..., Any]:
    """openvino.convert_model, imported without the statistics. Raises ImportError as openvino_package does."""
    package = openvino_package()
    with _lock, _blocked(_STATISTICS):
        package.convert_model = importlib.import_module(_CONVERTER).convert_model
    convert: Callable[..., Any] = package.convert_model
    return convert


def _late_attribute(name: str) -> Any:
    """The attribute of the package that importing it without the converter left out, for other users of the package."""
    if name == "convert_model":
        return converter()
    raise AttributeError(f"module 'openvino' has no attribute '{name}'")


@contextmanager
def _blocked(name: str) -> Iterator[None]:
    """Importing a module raises ImportError in this block, unless it is already imported. OpenVINO goes on without."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what Python documents for this
    try:
        yield
    finally:
        if sys.modules.get(name) is None:
            sys.modules.pop(name, None)
