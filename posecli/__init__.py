"""posecli: 2-D human poses from photos and videos, and a workbench for SimCC models.

    import posecli

    predictor = posecli.load_predictor()
    poses = predictor(posecli.read_image("photo.jpg"))

Names are imported when they are first used: `import posecli` loads neither torch nor OpenCV nor numpy. Type checkers
read __init__.pyi.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

__version__ = "0.1.0"

# Each name of the library → its module.
_MODULES = {
    "Detections": "posecli.types",
    "Frame": "posecli.types",
    "Poses": "posecli.types",
    "Predictor": "posecli.predict",
    "draw_poses": "posecli.library",
    "load_predictor": "posecli.predict",
    "read_image": "posecli.library",
    "read_video": "posecli.library",
    "track": "posecli.library",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> _Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
