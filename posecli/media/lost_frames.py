"""Number of frames that a damaged video lost: by comparison of packets, frames and index, and by gaps in time."""

import heapq
from collections import Counter, deque
from collections.abc import Callable

# A video with more distinct steps has no regular rate, and gaps cannot be recognised.
_MANY_STEPS = 64
_LATER = 8


class FrameNumbers:
    """Numbers decoded frames by their packets, so that frames that cannot be decoded keep their numbers.

    index: the number of the next frame. sent: number of frames up to and including the last packet. Memory is
    proportional to the packets inside the decoder.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.sent = index
        self._inside: list[int] = []
        self._unmatched = 0

    def send(self, pts: int | None) -> None:
        """A packet with a shown frame is sent to the decoder."""
        self.sent += 1
        if pts is not None:
            heapq.heappush(self._inside, pts)

    def show(self, pts: int | None) -> int:
        """A frame was decoded; returns its number. Skipped numbers are of frames that could not be decoded."""
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
            # A frame whose time differs from its packet's replaces one of the skipped ones.
            explained = min(skipped, self._unmatched)
            self._unmatched -= explained
            self.index += skipped - explained
        number = self.index
        self.index += 1
        return number


class Steps:
    """Counts the steps from frame to frame, in ticks and in frame numbers, and whether damage is near.

    near: whether a neighbour of the frame of a time may be lost; called some frames later, when damage that is read
    after the frame is known too. frames: their number.
    """

    def __init__(self, near: Callable[[int], bool] = lambda pts: True) -> None:
        self._near = near
        self.frames = 0
        self._steps: Counter[tuple[int, int, bool]] = Counter()
        self._waiting: deque[tuple[int, int]] = deque()

    def add(self, pts: int, index: int) -> None:
        """Add the next frame's time and number."""
        self.frames += 1
        self._waiting.append((pts, index))
        if len(self._waiting) > _LATER:
            self._count()

    def _count(self) -> None:
        before, number = self._waiting.popleft()
        after, next_number = self._waiting[0]
        if len(self._steps) <= _MANY_STEPS:
            self._steps[after - before, next_number - number, self._near(before) or self._near(after)] += 1

    def close(self) -> None:
        """Count the remaining steps, after the last frame."""
        while len(self._waiting) > 1:
            self._count()

    def usual(self) -> float | None:
        """The regular step in ticks, None for an irregular video."""
        if not self._steps or len(self._steps) > _MANY_STEPS:
            return None
        ((most, _, _), _), *_ = self._steps.most_common(1)
        alike = [(step, n) for (step, numbers, _), n in self._steps.items() if numbers == 1 and abs(step - most) <= 1]
        total = sum(count for _, count in alike)
        return sum(step * count for step, count in alike) / total if total and most > 0 else None

    def missing(self) -> int | None:
        """Frames missing between those of a regular video, without those that have numbers; None if irregular."""
        usual = self.usual()
        if usual is None:
            return None
        total = sum(self._steps.values())
        missing = irregular = 0
        for (step, numbers, near), count in self._steps.items():
            times = round(step / usual)
            # A gap longer than the rest of the video is a wrong timestamp.
            if not 1 <= times <= total or abs(step - times * usual) > max(1.5, 0.1 * usual):
                irregular += count
            elif near:  # other gaps are not due to damage
                missing += max(0, times - numbers) * count
        return missing if irregular <= 0.02 * total else None


class Slots:
    """Counts decoding times of packets, which are regular in many streams of irregular presentation times, and frames.

    A placeholder packet and two packets of one time, as packed B-frames become, balance each other.
    """

    def __init__(self, near: Callable[[int], bool]) -> None:
        self._times = Steps(near)
        self._slots = self._frames = 0
        self._last: int | None = None

    def add(self, dts: int, shown: bool) -> None:
        """Add the next packet's decoding time, and whether it has a shown frame."""
        self._frames += shown
        if dts != self._last:
            self._times.add(dts, self._slots)
            self._slots += 1
            self._last = dts

    def missing(self) -> int | None:
        """Number of missing frames where decoding times are regular; None otherwise. Ends the counting."""
        self._times.close()
        gaps = self._times.missing()
        return None if gaps is None else max(0, self._slots + gaps - self._frames)
