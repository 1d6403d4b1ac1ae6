"""A published value as it reads some time after it was taken: ages grow, leases shrink, nothing is asked anew.

Everything the API says of a node goes through here, so a control loop that hangs stops looking healthy.
"""

from dataclasses import dataclass, replace

from appliance.api.published import Published
from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, Member
from appliance.ha.seen import InstanceSeen, ReportSeen

CONTACT_S = 2.0
"""A proof of contact with a quorum older than this is no contact."""


@dataclass(frozen=True, slots=True)
class Present:
    published: Published
    age_s: float

    @classmethod
    def at(cls, published: Published, now_s: float) -> "Present":
        return cls(published, max(0.0, now_s - published.taken_s))

    @property
    def me(self) -> str:
        return self.published.node

    @property
    def state(self) -> ClusterState:
        return self.published.state

    @property
    def policy(self) -> Policy:
        return self.published.policy

    @property
    def instance(self) -> InstanceSeen | None:
        return self.published.seen.instance

    @property
    def fresh(self) -> bool:
        """Whether what this node saw of its own PostgreSQL still says anything: a lease's length at most."""
        return self.age_s <= self.policy.ttl_s

    @property
    def contact_s(self) -> float | None:
        """Age of the last proof of contact with a quorum; None: none yet."""
        known = (self.published.seen.contact_s, self.published.last_renewal_s)
        ages = [age + self.age_s for age in known if age is not None]
        return min(ages, default=None)

    def in_contact(self, limit_s: float = CONTACT_S) -> bool:
        return self.contact_s is not None and self.contact_s <= limit_s

    @property
    def lease_left_s(self) -> float | None:
        """Of the present epoch; None: this node does not hold it."""
        lease, held = self.published.seen.lease, self.state.appointment
        if lease is None or held is None or self.state.primary != self.me or lease.epoch != held.epoch:
            return None
        return max(0.0, lease.left_s - self.age_s)

    @property
    def running(self) -> bool:
        """Whether PostgreSQL answers here, or did a moment ago, and is not on its way down."""
        seen = self.published.seen
        answers = seen.instance is not None or self._answered_lately
        return seen.postmaster is not None and answers and seen.stopping_s is None and self.fresh

    @property
    def _answered_lately(self) -> bool:
        """One look without an answer is no outage: a busy server would lose its address for it.

        The answer must have come from the postmaster that runs now, not from the one before.
        """
        seen = self.published.seen
        silent_s = seen.answer_age_s + self.age_s
        same = seen.postmaster is not None and seen.postmaster.age_s > seen.answer_age_s
        return same and silent_s <= self.policy.failure_timeout_s

    @property
    def writable(self) -> bool:
        """Whether writes may go here: promoted on its timeline, running, leased (R5), and clients let in (R5a)."""
        held, instance = self.state.appointment, self.instance
        if held is None or not held.opened or self.state.primary != self.me or not self.running:
            return False
        # Without an answer just now: opened in this epoch and not restarted since, it is what it was.
        promoted = instance is None or (not instance.in_recovery and instance.timeline == held.timeline)
        return promoted and self.published.seen.admitted and (self.lease_left_s or 0.0) > 0.0

    @property
    def standby(self) -> bool:
        """Whether reads may go here as to a standby, with or without a source."""
        return self.running and self.instance is not None and self.instance.in_recovery

    def report(self, name: str) -> ReportSeen | None:
        """The latest word of a member: this node's own, or what the raft leader passed on."""
        seen = self.published.reports.get(name)
        if name == self.me:
            return ReportSeen(self.published.report, self.age_s, None if seen is None else seen.clock)
        return None if seen is None else replace(seen, age_s=seen.age_s + self.age_s)

    @property
    def primary_lsn(self) -> int:
        """The highest position known of the appointed primary, 0 when none is; never the present one for sure."""
        held = self.state.appointment
        seen = self.report(held.node) if held is not None else None
        known = self.state.last_known.lsn if self.state.last_known is not None else 0
        return max(known, seen.report.lsn if seen is not None else 0)

    def synchronous_role(self, name: str) -> str | None:
        """`sync_standby` or `quorum_standby` for a member of the newest synchronous set, as Patroni names them."""
        wanted = self.state.sync_now.wanted
        if wanted.k == 0 or name not in wanted.members or name == self.state.primary:
            return None
        return "sync_standby" if wanted.order else "quorum_standby"

    @property
    def member(self) -> Member:
        """This node, with the tags it announces now."""
        return self.published.seen.me


def split_address(address: str) -> tuple[str, int] | None:
    """`host:port` or `[v6]:port`; None when it is neither."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)
