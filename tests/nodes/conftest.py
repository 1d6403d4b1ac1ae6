"""Whole nodes on loopback. Tests share one cluster as long as they leave it whole."""

import pytest

from tests.harness.cluster import Cluster
from tests.harness.evidence import pytest_runtest_makereport  # noqa: F401  # pytest finds it here


class Shared:
    """One living cluster for many tests; a new one after a test that failed or did not leave it whole."""

    def __init__(self):
        self._cluster = None

    def whole(self):
        if self._cluster is not None and not self._cluster.whole():
            self.end()
        if self._cluster is None:
            cluster = Cluster()
            try:
                self._cluster = cluster.up()
            except BaseException:
                cluster.__exit__()
                raise
        return self._cluster

    def end(self):
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.__exit__()


@pytest.fixture(scope="session")
def shared():
    shared = Shared()
    yield shared
    shared.end()


@pytest.fixture
def cluster(shared):
    """Three nodes, bootstrapped, whole; whatever a test does to them, it makes good again."""
    cluster = shared.whole()
    cluster.mark_logs()
    return cluster
