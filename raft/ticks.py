"""How late the ticks of the raft thread are: what a look now and then must not miss."""

from collections import deque

LATE_S = 0.1
"""A tick that is later is counted: a follower waits for five of them at least before it asks for another leader."""
WINDOW_S = 60.0
_SLICES = 6


class Ticks:
    """One writer; each figure may be read by any thread."""

    def __init__(self) -> None:
        self.late_s = 0.0
        """The last one."""
        self.late_longest_s = 0.0
        """The latest one of the last minute."""
        self.late_count = 0
        """Later than LATE_S, since the start."""
        self._slices: deque[float] = deque(maxlen=_SLICES + 1)
        self._slice_ends_s = 0.0

    def note(self, now_s: float, due_s: float) -> None:
        """A tick that was due then came now; one that was asked for before it was due is not late."""
        self.late_s = max(0.0, now_s - due_s)
        if now_s >= self._slice_ends_s:
            self._begin_slices(now_s)
        self._slices[-1] = max(self._slices[-1], self.late_s)
        self.late_longest_s = max(self._slices)
        self.late_count += self.late_s > LATE_S

    def _begin_slices(self, now_s: float) -> None:
        """As many as have passed: a replica that has slept forgets what was before."""
        length_s = WINDOW_S / _SLICES
        passed = int((now_s - self._slice_ends_s) / length_s) + 1
        self._slices.extend([0.0] * min(passed, _SLICES + 1))
        self._slice_ends_s += passed * length_s
