"""Prometheus' text format, version 0.0.4: a page of metrics with labels that all of them have."""

from collections.abc import Mapping

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Page:
    """A metric that has no value is left out, never shown as zero."""

    def __init__(self, **labels: str) -> None:
        self._common = _pairs(labels)
        self._lines: list[str] = []

    def gauge(self, name: str, words: str, value: float | None) -> None:
        if value is not None:
            self._head(name, "gauge", words)
            self._sample(name, value)

    def gauges(self, name: str, words: str, label: str, values: Mapping[str, float]) -> None:
        """One sample for each value of a label."""
        self._head(name, "gauge", words)
        for key, value in values.items():
            self._sample(name, value, **{label: key})

    def counter(self, name: str, words: str, value: float) -> None:
        self._head(name, "counter", words)
        self._sample(name, value)

    def counters(self, name: str, words: str, label: str, values: Mapping[str, float]) -> None:
        self._head(name, "counter", words)
        for key, value in values.items():
            self._sample(name, value, **{label: key})

    def summary(self, name: str, words: str, *, total: float, count: int) -> None:
        self._head(name, "summary", words)
        self._sample(f"{name}_sum", total)
        self._sample(f"{name}_count", count)

    def text(self) -> str:
        return "".join(self._lines)

    def _head(self, name: str, kind: str, words: str) -> None:
        self._lines.append(f"# HELP {name} {words}\n# TYPE {name} {kind}\n")

    def _sample(self, name: str, value: float, **labels: str) -> None:
        more = f",{_pairs(labels)}" if labels else ""
        self._lines.append(f"{name}{{{self._common}{more}}} {+value}\n")  # +: what is true is 1


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
