"""What the node tells its guard to arm, and what it shows of the device."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.config import Policy
from appliance.ha.seen import WatchdogSeen
from appliance.node import watchdog
from appliance.node.config import NodeConfig
from appliance.node.guard_client import Watchdog, WatchdogStatus

from .building import STATUS

MINIMAL = {"name": "pg1", "cluster": "shop", "members": {"pg1": "10.0.0.11:7400"}}


def config(**changes):
    return NodeConfig.read(MINIMAL | changes)


def look(mode, device, known=WatchdogStatus(None, None, "")):
    section = config(watchdog={"mode": mode, "device": str(device)}).watchdog
    return watchdog.seen(section, replace(STATUS, watchdog=known))


@pytest.mark.parametrize(("ttl_s", "timeout_s"), [(4, 1), (6, 2), (10, 3), (30, 11), (60, 23)])
def test_the_timeout_follows_from_ttl(ttl_s, timeout_s):
    assert watchdog.timeout_s(Policy(ttl_s=ttl_s)) == timeout_s


@given(ttl_s=st.floats(5, 300), margin_s=st.floats(0.1, 1), drift=st.floats(0, 0.05))
def test_r4_whoever_has_enough_lease_for_the_agent_can_be_fed(ttl_s, margin_s, drift):
    """The last feeding lies a timeout before the reset; the agent ends a primary before that."""
    policy = Policy(ttl_s=ttl_s, guard_margin_s=margin_s, clock_drift=drift)
    reset_before_the_end_s = margin_s / 4
    assert watchdog.timeout_s(policy) + reset_before_the_end_s <= policy.fence_below_s


def test_what_the_guard_is_told():
    device = {"device": "/dev/watchdog1"}
    assert watchdog.asked(config(), Policy()) is None
    automatic = config(watchdog=device | {"mode": "automatic"})
    assert watchdog.asked(automatic, Policy()) == Watchdog("/dev/watchdog1", 2, required=False)
    assert watchdog.asked(config(watchdog="required"), Policy()) == Watchdog("/dev/watchdog", 2, required=True)
    witness = config(watchdog="required", role="witness")
    assert watchdog.asked(witness, Policy()) is None
    assert watchdog.seen(watchdog.section_of(witness), STATUS) is None


def test_what_is_shown():
    assert look("off", "/dev/null") is None
    assert look("automatic", "/dev/null") == WatchdogSeen("/dev/null", required=False)
    armed = WatchdogStatus("/dev/null", 2, "")
    assert look("required", "/dev/null", armed) == WatchdogSeen("/dev/null", required=True, armed_s=2)
    failed = WatchdogStatus("/dev/null", None, "/dev/null is no watchdog")
    assert look("required", "/dev/null", failed).problem == "/dev/null is no watchdog"
    assert "knows of none" in look("required", "/dev/null", None).problem


@pytest.mark.parametrize(
    ("device", "problem"),
    [("absent", "absent: No such file or directory"), ("plain", "plain is no device")],
)
def test_an_obstacle_is_seen_without_opening_the_device(tmp_path, device, problem):
    (tmp_path / "plain").write_text("")
    seen = look("required", tmp_path / device)
    assert seen.problem.endswith(problem)
    assert seen.keeps_from_promotion
    assert not look("automatic", tmp_path / device).keeps_from_promotion


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a device, and becomes another user")
def test_a_device_that_the_user_may_not_write():
    with TemporaryDirectory(dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        device = Path(place) / "device"
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        assert watchdog.obstacle(device) == ""
        os.seteuid(65534)
        try:
            found = watchdog.obstacle(device)
        finally:
            os.seteuid(0)
    assert found == f"{device} may not be written by the user of this node"
