"""The list of people by need, measured anew where it does not take long."""

import threading
import time
from typing import Any

from posecli.corrections.corrections import Corrections
from posecli.corrections.need import UNUSUAL, Needs, needs
from posecli.errors import UsageError

# Seconds that a request may wait for a new list where there is an older one.
_QUICK = 1.0


class NeedList:
    """The list as of the last time that its first rows were asked for, so that its pages go together."""

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self._lock = threading.Lock()
        self._sorted: dict[str | None, Needs] = {}
        self._seq = -1
        self._took = 0.0
        self._measuring = False

    def rows(self, offset: int, limit: int, reason: str | None) -> dict[str, Any]:
        """Some rows; seq: the last edit that the list knows. reason: sort by this one only. Raises UsageError."""
        if reason is not None and reason not in UNUSUAL:
            raise UsageError(f"reason must be one of {', '.join(UNUSUAL)}")
        found, seq = self._list(reason, offset == 0)
        place = self._corrections.run_inputs.place
        rows = [
            {
                "input": place(need.input),
                "name": need.input,
                "frame": need.frame,
                "person": need.person,
                "track": need.track,
                "score": round(need.score, 4),
                "reasons": {name: round(value, 4) for name, value in need.reasons.items()},
            }
            for need in found[offset : offset + limit]
        ]
        return {"total": len(found), "seq": seq, "needs": rows}

    def _list(self, reason: str | None, first: bool) -> tuple[Needs, int]:
        with self._lock:  # the first request for a list waits, and others with it
            old = self._seq < self._corrections.seq
            if not self._sorted or (first and old and self._took < _QUICK):
                self._measure()
            elif first and old and not self._measuring:
                self._measuring = True
                threading.Thread(target=self._measure_later, daemon=True).start()
            found, seq = self._sorted, self._seq
            if reason is not None and reason not in found:
                found[reason] = found[None].by(reason)
            return found[reason], seq

    def _measure(self) -> None:
        seq, began = self._corrections.seq, time.monotonic()
        found = needs(self._corrections)
        self._sorted, self._seq, self._took = {None: found}, seq, time.monotonic() - began

    def _measure_later(self) -> None:
        try:
            self._measure()
        finally:
            self._measuring = False
