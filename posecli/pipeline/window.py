"""--show: a window with the annotated frames during a run."""

import os
import sys
import threading
import time
from collections import deque

import cv2
import numpy as np

from posecli.errors import MachineError
from posecli.types import PixelArray

_TITLE = "posecli"
# Largest initial size of the window's longer side in pixels.
_LARGEST = 1280
# Frames over which the displayed rate is averaged.
_RATE_OVER = 30


class Window:
    """The writing thread offers frames; the calling thread, which owns the window, shows the latest.

    Raises MachineError without a display.
    """

    def __init__(self) -> None:
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise MachineError("--show: this machine has no display (DISPLAY is not set); leave --show out")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise MachineError("--show: this OpenCV cannot open windows: `pip install opencv-python`") from error
        self._lock = threading.Lock()
        self._latest: PixelArray | None = None
        self._sized = False
        self._times: deque[float] = deque(maxlen=_RATE_OVER)

    def offer(self, pixels: PixelArray) -> None:
        """Pass the next annotated frame (height, width, 3) RGB; an older one that was not shown yet is dropped."""
        self._times.append(time.monotonic())
        image = np.ascontiguousarray(pixels[..., ::-1])
        if len(self._times) > 1:
            rate = (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
            place = (12, image.shape[0] - 14)
            for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
                text = f"{rate:.1f} frames/s   q quits"
                cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thickness, cv2.LINE_AA)
        with self._lock:
            self._latest = image

    def refresh(self) -> bool:
        """Show the latest frame. Returns True once the user pressed q or closed the window."""
        with self._lock:
            image, self._latest = self._latest, None
        if image is not None:
            if not self._sized:
                scale = min(1.0, _LARGEST / max(image.shape[:2]))
                cv2.resizeWindow(_TITLE, round(image.shape[1] * scale), round(image.shape[0] * scale))
                self._sized = True
            cv2.imshow(_TITLE, image)
        pressed = cv2.waitKey(1) & 0xFF
        return pressed in (ord("q"), 27) or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
