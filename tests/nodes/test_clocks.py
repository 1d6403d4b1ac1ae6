"""A host whose clock runs wild is named by every node, and keeps streaming (safety.md R3, R9)."""

import pytest

from tests.harness.cluster import Cluster
from tests.harness.skew_clock import SkewClock

FAST = 0.05
SHOWN_S = 90
"""Three buckets of 10 s between two that may not be whole, and some for the messages."""


def clock_problems(node):
    return [(p["code"], p["member"]) for p in node.view()["problems"] if p["code"].startswith("clock.")]


@pytest.mark.timeout(180)
def test_a_clock_that_runs_five_percent_fast_is_shown_on_all_nodes():
    with Cluster(3) as cluster:
        fast = cluster["n2"]
        clock = SkewClock(fast.directory)
        fast.environment = clock.environment
        cluster.up()
        epoch = cluster["n1"].view()["epoch"]
        clock.drift(FAST)
        for node in cluster:
            cluster.wait_until(
                lambda node=node: clock_problems(node) == [("clock.drift", "n2")], SHOWN_S, "it is named"
            )
        (found,) = (p for p in cluster["n1"].view()["problems"] if p["code"] == "clock.drift")
        assert "% fast" in found["message"]
        assert cluster["n1"].view()["epoch"] == epoch, "nobody was deposed for it"
        clock.step(200)
        cluster.wait_until(lambda: ("clock.wall", "n2") in clock_problems(cluster["n3"]), 10, "and its wall clock")
