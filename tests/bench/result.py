"""One figure of several runs."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    what: str
    unit: str
    runs: tuple[float, ...]
    notes: str = ""

    def line(self) -> str:
        middle = statistics.median(self.runs)
        spread = f"{min(self.runs):.2f} - {max(self.runs):.2f}"
        return f"{self.what:<66} {middle:8.2f} {self.unit:<10} ({spread}, {len(self.runs)} runs) {self.notes}"
