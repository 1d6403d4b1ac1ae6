"""What a watchdog setting does to whole nodes where no device is (R4): there is none where the tests run."""

import signal

import pytest

from tests.harness.cluster import START_LIMIT_S, Cluster

NULL = "/dev/null"
"""A character device that refuses the ioctl of a watchdog, as the kernel does."""


def watchdogs(node) -> list[str]:
    return [problem["member"] for problem in node.view()["problems"] if problem["code"] == "watchdog.unusable"]


def formed(cluster) -> None:
    """All but healthy."""
    cluster.start()
    cluster.bootstrap()
    states = ["running", *["streaming"] * (len(cluster.nodes) - 1)]
    cluster.wait_until(
        lambda: sorted(member["state"] for member in cluster["n1"].view()["members"]) == states,
        START_LIMIT_S,
        "a primary, and standbys that stream",
    )
    cluster.wait_until(
        lambda: not any(member["lag_bytes"] for member in cluster["n1"].view()["members"]),
        START_LIMIT_S,
        "they have caught up",
    )


def test_nobody_opens_without_a_required_device_and_status_says_why():
    with Cluster(1, config={"watchdog": {"mode": "required", "device": "/dev/watchdog-of-no-host"}}) as cluster:
        node = cluster["n1"]
        cluster.start()
        cluster.wait_until(lambda: node.view()["quorum"], 15, "the node is up")
        node.command("bootstrap", "--yes", "--no-wait")
        because = "candidate.watchdog: /dev/watchdog-of-no-host: No such file or directory"
        cluster.wait_until(lambda: because in node.view()["coordinating"], START_LIMIT_S, "nobody can be chosen")
        assert node.view()["primary"] is None
        shown = node.command("status").stdout
        assert "Watchdog    n1 not usable (required)" in shown
        assert "it is not made primary" in shown
        node.end(signal.SIGTERM)
        node.config["watchdog"] = "off"
        node.start()
        cluster.wait_until(lambda: node.view()["primary"] == "n1", START_LIMIT_S, "it opens without one")


def test_what_the_kernel_refuses_when_it_is_opened_gives_the_appointment_back():
    """The look finds nothing wrong with it: only the guard does, before anything is writable."""
    with Cluster(1, config={"watchdog": {"mode": "required", "device": NULL}}) as cluster:
        node = cluster["n1"]
        cluster.start()
        cluster.wait_until(lambda: node.view()["quorum"], 15, "the node is up")
        node.command("bootstrap", "--yes", "--no-wait")
        because = f"{NULL} is no watchdog: Inappropriate ioctl for device"
        cluster.wait_until(lambda: because in node.view()["coordinating"], START_LIMIT_S, "nobody can be chosen")
        assert node.view()["primary"] is None
        refused = node.logged("action.failed")
        assert any("(watchdog)" in line["error"] for line in refused), refused


def test_an_automatic_device_that_cannot_be_used_keeps_nobody_from_opening():
    with Cluster(1, config={"watchdog": {"mode": "automatic", "device": NULL}}) as cluster:
        node = cluster["n1"]
        formed(cluster)
        cluster.wait_until(lambda: watchdogs(node) == ["n1"], 10, "it says that nothing is behind its guard")
        shown = node.command("status", "--exit-code")
        assert shown.returncode == 10
        assert f"{NULL} is no watchdog: Inappropriate ioctl for device; its guard has nothing behind it" in shown.stdout


@pytest.mark.parametrize("lacking", ["n2"])
def test_a_switchover_goes_to_a_member_that_has_what_it_must_have(lacking):
    with Cluster(3) as cluster:
        cluster[lacking].config["watchdog"] = {"mode": "required", "device": "/dev/watchdog-of-no-host"}
        formed(cluster)
        refused = cluster["n1"].command("switchover", "--to", lacking, "--yes")
        assert refused.returncode == 4
        assert "candidate.watchdog" in refused.stdout + refused.stderr
        done = cluster["n1"].command("switchover", "--yes")
        assert done.returncode == 0, done
        assert cluster["n1"].view()["primary"] == "n3"
