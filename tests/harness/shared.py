"""One cluster for many tests, as starting one costs more than most tests do."""

from collections.abc import Callable

from tests.harness.cluster import Cluster


class Shared:
    """One living cluster; a new one after a test that did not leave it whole."""

    def __init__(self, make: Callable[[], Cluster]) -> None:
        self._make = make
        self._cluster: Cluster | None = None

    def whole(self) -> Cluster:
        """What it logged before is no evidence for the next test."""
        if self._cluster is not None and not self._cluster.whole():
            self.end()
        if self._cluster is None:
            self._cluster = self._make()
            self._cluster.up()
        self._cluster.mark_logs()
        return self._cluster

    def end(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.__exit__()
