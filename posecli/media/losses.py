"""How many frames a damaged video lost: packets against frames, the index against both, gaps in time."""

import heapq
from collections import Counter

# More different steps than these and a video has no regular rate, from which gaps could be told.
_MANY_STEPS = 64


class Ledger:
    """Follows packets into the decoder and frames out of it, and so knows each frame's place in the source.

    index: the number of the first packet's frame. sent: frames up to and with the last packet.
    Memory is that of the packets inside the decoder.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.sent = index
        self._inside: list[int] = []
        self._unmatched = 0

    def send(self, pts: int | None) -> None:
        """A packet that holds a frame to be shown goes in."""
        self.sent += 1
        if pts is not None:
            heapq.heappush(self._inside, pts)

    def show(self, pts: int | None) -> int:
        """A frame comes out; returns its number. Those skipped over were not decodable."""
        if pts is None or not self._inside:
            self._unmatched += 1
        else:
            skipped = 0
            while self._inside and self._inside[0] < pts:
                heapq.heappop(self._inside)
                skipped += 1
            if self._inside and self._inside[0] == pts:
                heapq.heappop(self._inside)
            else:
                self._unmatched += 1
            # A frame whose time is not its packet's stands for one of those skipped.
            explained = min(skipped, self._unmatched)
            self._unmatched -= explained
            self.index += skipped - explained
        number = self.index
        self.index += 1
        return number


class Steps:
    """Counts the steps from frame to frame, in ticks and in numbers of frames."""

    def __init__(self) -> None:
        self._steps: Counter[tuple[int, int]] = Counter()
        self._previous: tuple[int, int] | None = None

    def add(self, pts: int, index: int) -> None:
        """The next frame's time and number."""
        if self._previous is not None and len(self._steps) <= _MANY_STEPS:
            self._steps[pts - self._previous[0], index - self._previous[1]] += 1
        self._previous = pts, index

    def usual(self) -> float | None:
        """The regular step in ticks, or None where there is none."""
        if not self._steps or len(self._steps) > _MANY_STEPS:
            return None
        ((most, _), _), *_ = self._steps.most_common(1)
        near = {step: count for (step, numbers), count in self._steps.items() if numbers == 1 and abs(step - most) <= 1}
        total = sum(near.values())
        return sum(step * count for step, count in near.items()) / total if total and most > 0 else None

    def missing(self) -> int:
        """Frames missing between those of a regular video, beside the ones that have numbers; else 0."""
        usual = self.usual()
        if usual is None:
            return 0
        total = sum(self._steps.values())
        missing = irregular = 0
        for (step, numbers), count in self._steps.items():
            times = round(step / usual)
            # A gap longer than all the rest is a wrong time rather than that many frames.
            if not 1 <= times <= total or abs(step - times * usual) > max(1.5, 0.1 * usual):
                irregular += count
            else:
                missing += max(0, times - numbers) * count
        return missing if irregular <= 0.02 * total else 0
