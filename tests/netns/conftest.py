"""Whole nodes, each on a host of its own: network namespaces, so only for root."""

import os
import shutil

import pytest

from tests.harness.cluster import Cluster
from tests.harness.evidence import pytest_runtest_makereport  # noqa: F401  # pytest finds it here
from tests.harness.network import Network


def pytest_collection_modifyitems(items):
    missing = [tool for tool in ("ip", "iptables", "nsenter") if shutil.which(tool) is None]
    reason = "needs root" if os.geteuid() != 0 else f"needs {', '.join(missing)}" if missing else ""
    for item in items if reason else []:
        if item.path.is_relative_to(os.path.dirname(__file__)):
            item.add_marker(pytest.mark.skip(reason=f"network namespaces: {reason}"))


class Site:
    """A network and the cluster on it."""

    def __init__(self):
        self.network = Network()
        self.cluster = Cluster(places=self.network.places, namespaces=self.network.namespaces)
        self.network.build()
        self.cluster.up()

    def end(self):
        self.cluster.__exit__()


class Shared:
    """One living site for many tests; a new one after a test that failed or did not leave it whole."""

    def __init__(self):
        self._site = None

    def whole(self):
        if self._site is not None and not self._site.cluster.whole():
            self.end()
        if self._site is None:
            self._site = Site()
        return self._site

    def end(self):
        site, self._site = self._site, None
        if site is not None:
            site.end()


@pytest.fixture(scope="session")
def shared():
    shared = Shared()
    yield shared
    shared.end()


@pytest.fixture
def site(shared):
    """Three hosts with a whole cluster, and a client's; the network is healed afterwards."""
    site = shared.whole()
    site.cluster.mark_logs()
    yield site
    site.network.heal()
