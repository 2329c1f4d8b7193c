"""Finding people: pictures to boxes."""

from posecli.detect.detector import DETECTORS, Detector, load_detector

__all__ = ["DETECTORS", "Detector", "load_detector"]
