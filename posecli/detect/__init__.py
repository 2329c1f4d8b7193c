"""Detection of people: images to boxes."""

from posecli.detect.detector import Detector
from posecli.detect.registry import DETECTORS, load_detector

__all__ = ["DETECTORS", "Detector", "load_detector"]
