"""Whole nodes, each on a host of its own: network namespaces, so only for root."""

import os
import shutil

import pytest

from tests.harness.cluster import Cluster
from tests.harness.evidence import pytest_runtest_makereport  # noqa: F401  # pytest finds it here
from tests.harness.network import Network
from tests.harness.shared import Shared


def pytest_collection_modifyitems(items):
    missing = [tool for tool in ("ip", "iptables", "nsenter") if shutil.which(tool) is None]
    reason = "needs root" if os.geteuid() != 0 else f"needs {', '.join(missing)}" if missing else ""
    for item in items if reason else []:
        if item.path.is_relative_to(os.path.dirname(__file__)):
            item.add_marker(pytest.mark.skip(reason=f"network namespaces: {reason}"))


@pytest.fixture(scope="session")
def network():
    return Network()


@pytest.fixture(scope="session")
def shared(network):
    shared = Shared(lambda: Cluster(network=network))
    yield shared
    shared.end()


@pytest.fixture
def cluster(shared, network):
    """Three hosts with a whole cluster, and a client's; the network is healed afterwards."""
    yield shared.whole()
    network.heal()
