"""Two versions in one cluster: an upgrade host by host, and one that is put back to the older version too late."""

import re
import shutil
import signal

import pytest

from appliance.cluster.state import FORMAT
from tests.harness.cluster import Cluster
from tests.harness.places import give
from tests.harness.sweeper import REPOSITORY

NEXT = FORMAT + 1
END_LIMIT_S = 20.0


@pytest.fixture
def cluster():
    with Cluster() as cluster:
        yield cluster.up()


@pytest.fixture
def newer(cluster):
    """The sources of a version that knows one format more."""
    sources = cluster.directory / "newer"
    for part in ("appliance", "raft"):
        shutil.copytree(REPOSITORY / part, sources / part, ignore=shutil.ignore_patterns("__pycache__"))
    file = sources / "appliance" / "cluster" / "state.py"
    text, times = re.subn(rf"^FORMAT = {FORMAT}$", f"FORMAT = {NEXT}", file.read_text(), flags=re.MULTILINE)
    assert times == 1
    file.write_text(text)
    for path in (sources, *sources.rglob("*")):
        give(path)
    return sources


def install(node, sources):
    assert node.end(signal.SIGTERM) == 0
    node.sources = sources
    node.start()


def raised(cluster):
    return [line["because"] for node in cluster for line in node.logged("coordinator.proposed", rule="raise_format")]


def test_the_format_is_raised_after_the_last_host_and_an_older_version_then_ends_in_words(cluster, newer):
    standbys, primary = cluster.standbys(), cluster.primary()
    for node in standbys:
        install(node, newer)
        cluster.wait_whole()
    install(standbys[0], REPOSITORY)
    cluster.wait_whole()
    install(standbys[0], newer)
    cluster.wait_whole()
    assert raised(cluster) == []
    assert primary.command("switchover", "--to", standbys[1].name, "--yes").returncode == 0
    cluster.wait_whole()
    install(primary, newer)
    cluster.wait_until(lambda: raised(cluster), 20, "the format is raised")
    cluster.wait_whole()
    assert set(raised(cluster)) == {f"all 3 members know format {NEXT}"}
    back = standbys[0]
    install(back, REPOSITORY)
    assert back.wait(END_LIMIT_S) == 1
    words = rf"appliance: raft: entry \d+ holds the step to format {NEXT}; this node knows up to format"
    assert re.search(words, back.log_file.read_text())
    assert back.postmaster is not None, "a standby goes on under its guard"
    back.sources = newer
    back.start()
    cluster.wait_whole()
