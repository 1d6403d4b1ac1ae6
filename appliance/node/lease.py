"""The holder's side of the lease (R3): counted on this host's clock from before the renewal was asked for."""

from dataclasses import dataclass, replace

from appliance.cluster.config import Policy
from appliance.ha.seen import LeaseSeen
from appliance.node.guard_client import Deadline, GuardStatus


@dataclass(frozen=True, slots=True)
class Lease:
    epoch: int
    until_s: float
    """CLOCK_BOOTTIME"""

    def seen(self, now_s: float) -> LeaseSeen:
        return LeaseSeen(self.epoch, self.until_s - now_s)

    def renewed(self, epoch: int, asked_s: float, policy: Policy) -> "Lease":
        """After a confirmation of a request that was sent at `asked_s`. Never shortens the lease of one epoch."""
        until_s = asked_s + policy.lease_s
        if epoch == self.epoch:
            return replace(self, until_s=max(self.until_s, until_s))
        return Lease(epoch, until_s)

    def deadline(self, policy: Policy) -> Deadline:
        """When the guard ends PostgreSQL: a margin before the lease does (R4)."""
        return Deadline(self.epoch, self.until_s - policy.guard_margin_s, policy.guard_margin_s / 2)


NO_LEASE = Lease(0, 0.0)


def adopted(status: GuardStatus) -> Lease:
    """The lease that an earlier node process held, up to the deadline that its guard keeps.

    The margin behind the deadline is left out: this process has not read the log yet, and so not the margin that
    was in force; a guess could make the lease longer than it was.
    """
    if status.deadline_s is None or status.deadline_epoch is None:
        return NO_LEASE
    return Lease(status.deadline_epoch, status.deadline_s)
