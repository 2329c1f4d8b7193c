"""Networks for other programs: ONNX files and OpenVINO IR, checked against torch."""

from posecli.export.export import Exported, export_weights
from posecli.export.formats import FORMATS

__all__ = ["FORMATS", "Exported", "export_weights"]
