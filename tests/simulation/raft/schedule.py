"""Virtual time: what is to happen, in order. Equal times keep the order in which they were asked for."""

import heapq


class Schedule:
    def __init__(self):
        self.now_s = 0.0
        self._events = []
        self._number = 0

    def at(self, when_s, action, *arguments):
        """Do it then, or now if that has passed."""
        self._number += 1
        heapq.heappush(self._events, (max(when_s, self.now_s), self._number, action, arguments))

    def after(self, delay_s, action, *arguments):
        self.at(self.now_s + delay_s, action, *arguments)

    def run(self, until_s):
        """Let everything happen that is due until then."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, action, arguments = heapq.heappop(self._events)
            action(*arguments)
        self.now_s = until_s
