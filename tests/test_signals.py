"""Ctrl-C stays what it is after networks ran and were dropped."""

import os
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import gc, signal, sys
import numpy as np
from posecli.pose.estimator import load_estimator
from posecli.types import Detections, Frame
frame = Frame(np.zeros((64, 48, 3), np.uint8))
people = Detections(np.array([[0, 0, 48, 64]], np.float32), np.ones(1, np.float32))
for _ in range(2):
    estimator = load_estimator(sys.argv[1], device="cpu", runtime="openvino")
    assert len(estimator([frame], [people])[0]) == 1
    del estimator
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_models_were_dropped(tiny_weights: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", _PROGRAM, str(tiny_weights)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.split() == ["interrupted"], (result.returncode, result.stderr)
