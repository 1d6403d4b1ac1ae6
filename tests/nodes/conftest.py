"""Whole nodes on loopback. Tests share one cluster as long as they leave it whole."""

import pytest

from tests.harness.cluster import Cluster
from tests.harness.evidence import pytest_runtest_makereport  # noqa: F401  # pytest finds it here
from tests.harness.shared import Shared


@pytest.fixture(scope="session")
def shared():
    shared = Shared(Cluster)
    yield shared
    shared.end()


@pytest.fixture
def cluster(shared):
    """Three nodes, bootstrapped, whole; whatever a test does to them, it makes good again."""
    return shared.whole()
