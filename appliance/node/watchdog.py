"""The node's side of the watchdog device: what its guard is told to arm, and whether that could work."""

import os
import stat
from pathlib import Path

from appliance.cluster.config import Policy
from appliance.cluster.state import NodeRole
from appliance.ha.seen import WatchdogSeen
from appliance.node.config import NO_WATCHDOG, NodeConfig, WatchdogSection
from appliance.node.guard_client import GuardStatus, Watchdog


def timeout_s(policy: Policy) -> int:
    """As long as a primary that the agent leaves alone can always be fed: the lease that is left when that fences.

    The device is fed until its timeout before the end of the lease, less a quarter of the margin. Whole seconds.
    """
    return max(1, int(policy.fence_below_s - policy.guard_margin_s / 4))


def section_of(config: NodeConfig) -> WatchdogSection:
    """What this node's file asks for; a witness has nothing to reset a host for."""
    return NO_WATCHDOG if config.role is NodeRole.WITNESS else config.watchdog


def asked(config: NodeConfig, policy: Policy) -> Watchdog | None:
    """What stands behind each deadline; None when nothing does."""
    section = section_of(config)
    if section.mode == "off":
        return None
    return Watchdog(str(section.device), timeout_s(policy), required=section.mode == "required")


def seen(section: WatchdogSection, status: GuardStatus | None) -> WatchdogSeen | None:
    """What is known of the device; None when there shall be none."""
    if section.mode == "off":
        return None
    required, device = section.mode == "required", str(section.device)
    if status is not None and status.watchdog is None:
        return WatchdogSeen(device, required, problem="the guard that runs knows of none: end the node (SIGINT) once")
    known = status.watchdog if status is not None else None
    if known is not None and known.timeout_s is not None:
        return WatchdogSeen(device, required, known.timeout_s, known.problem)
    return WatchdogSeen(device, required, problem=(known.problem if known else "") or obstacle(section.device))


def obstacle(device: Path) -> str:
    """Why it could not be opened, as far as that shows without doing so: opening starts it. Empty: nothing shows."""
    try:
        mode = device.stat().st_mode
    except OSError as error:
        return f"{device}: {error.strerror}"
    if not stat.S_ISCHR(mode):
        return f"{device} is no device"
    return (
        ""
        if os.access(device, os.W_OK, effective_ids=True)
        else f"{device} may not be written by the user of this node"
    )
