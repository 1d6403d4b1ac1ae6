"""`/metrics`: Patroni's names, so that its dashboards go on working, and our own, of the published value alone."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from appliance.api.exposition import Page
from appliance.api.patroni import EMULATED_VERSION, patroni_document
from appliance.api.present import Present
from appliance.api.published import Published, RaftSeen
from appliance.api.verdict import findings
from appliance.api.view import members_view
from appliance.cluster.state import HISTORY_LIMIT, OPERATIONS_LIMIT, Change, ClusterState, NodeRole, Phase

_STATES = {
    "initializing new cluster": 0,
    "initdb failed": 1,
    "running custom bootstrap script": 2,
    "custom bootstrap failed": 3,
    "creating replica": 4,
    "running": 5,
    "starting": 6,
    "starting after custom bootstrap": 7,
    "start failed": 8,
    "restarting": 9,
    "restart failed": 10,
    "stopping": 11,
    "stopped": 12,
    "stop failed": 13,
    "crashed": 14,
}
"""Patroni's numbers for what it calls PostgreSQL's state."""
_SEVERITIES = ("degraded", "critical", "stale")


def metrics(published: Published, now_s: float) -> str:
    present = Present.at(published, now_s)
    page = Page(scope=published.cluster, name=published.node)
    _patroni(page, patroni_document(published, now_s), published.policy.failsafe_mode)
    _node(page, present)
    _cluster(page, present)
    _agreed(page, published.state)
    _raft(page, published.raft)
    return page.text()


def _patroni(page: Page, shown: Mapping[str, Any], enabled: bool) -> None:
    """From the document that `/patroni` shows, as there. Patroni has pauses and standby clusters as well."""
    version = "".join(f"{int(part):02}" for part in EMULATED_VERSION.split("."))
    page.gauge("patroni_version", "Level of Patroni's API that is kept to, two digits a part.", int(version))
    page.gauge("patroni_postgres_running", "1 if PostgreSQL runs.", shown["state"] == "running")
    page.gauge("patroni_postgres_state", "State of PostgreSQL as a number.", _STATES.get(shown["state"], -1))
    started = _epoch_s(shown.get("postmaster_start_time"))
    page.gauge("patroni_postmaster_start_time", "When the postmaster began, 0 if it does not answer.", started)
    page.gauge("patroni_primary", "1 if PostgreSQL is out of recovery.", shown["role"] == "primary")
    page.gauge("patroni_standby_leader", "Always 0: there are no standby clusters.", 0)
    page.gauge("patroni_replica", "1 if PostgreSQL is a standby.", shown["role"] == "replica")
    page.gauge("patroni_sync_standby", "1 if it is a synchronous standby.", "sync_standby" in shown)
    page.gauge("patroni_quorum_standby", "1 if it is one of a quorum.", "quorum_standby" in shown)
    _patroni_wal(page, shown.get("xlog", {}))
    streaming = shown.get("replication_state") == "streaming"
    page.gauge("patroni_postgres_streaming", "1 if it is a standby that streams.", streaming)
    page.gauge("patroni_postgres_in_archive_recovery", "Always 0: there is no archive.", 0)
    page.gauge("patroni_postgres_server_version", "Of the PostgreSQL that runs.", shown.get("server_version", 0))
    page.gauge("patroni_cluster_unlocked", "1 if nobody holds the lease.", "cluster_unlocked" in shown)
    active = "failsafe_mode_is_active" in shown
    page.gauge("patroni_failsafe_mode_is_active", "1 if it goes on, or lets the primary, without a quorum.", active)
    page.gauge("patroni_failsafe_mode_enabled", "1 if failsafe_mode is on.", enabled)
    page.counter("patroni_postgres_timeline", "Timeline of the PostgreSQL that runs.", shown.get("timeline", 0))
    page.gauge("patroni_dcs_last_seen", "Wall clock of the last contact with a quorum.", shown["dcs_last_seen"])
    page.gauge("patroni_pending_restart", "1 if a setting waits for a restart.", "pending_restart" in shown)
    page.gauge("patroni_is_paused", "1 if automatic failover is off.", "pause" in shown)
    tags = shown.get("tags", {})
    priority = 0 if tags.get("nofailover") is True else tags.get("failover_priority", 1)
    page.gauge("patroni_failover_priority", "By the tags; 0: never becomes primary.", priority)


def _patroni_wal(page: Page, wal: Mapping[str, Any]) -> None:
    page.counter("patroni_xlog_location", "End of the WAL of a primary, else 0.", wal.get("location", 0))
    page.counter("patroni_xlog_received_location", "What a standby has received.", wal.get("received_location", 0))
    page.counter("patroni_xlog_replayed_location", "What a standby has replayed.", wal.get("replayed_location", 0))
    replayed = _epoch_s(wal.get("replayed_timestamp"))
    page.gauge("patroni_xlog_replayed_timestamp", "Wall clock of the last replayed commit.", replayed)
    page.gauge("patroni_xlog_paused", "1 if replay is paused.", wal.get("paused", False))


def _epoch_s(text: str | None) -> float:
    """0 for none, as in Patroni."""
    return datetime.fromisoformat(text).timestamp() if text else 0


def _node(page: Page, present: Present) -> None:
    found = Counter[str](finding.severity for finding in findings(present))
    page.gauges("appliance_info", "The version that runs.", "version", {present.published.version: 1})
    page.gauge("appliance_snapshot_age_seconds", "Since the control loop last looked.", present.age_s)
    page.gauge("appliance_quorum", "1 if this node was in contact with a quorum just now.", present.in_contact())
    page.gauge("appliance_quorum_contact_age_seconds", "Since the last contact with a quorum.", present.contact_s)
    page.gauge("appliance_primary", "1 if writes may go here: promoted, running, leased.", present.writable)
    page.gauge(
        "appliance_lease_left_seconds", "Left of the lease that this node holds, else 0.", present.lease_left_s or 0
    )
    _storage(page, present.published)
    problems = {severity: found[severity] for severity in _SEVERITIES}
    page.gauges("appliance_problems", "What `appliance status` finds wrong.", "severity", problems)


def _storage(page: Page, published: Published) -> None:
    """Of this node's PostgreSQL, by the directory; without `wal` both lie in one file system."""
    storage, instance = published.seen.storage, published.seen.instance
    found = {} if storage is None else {"data": storage.data, **({"wal": storage.wal} if storage.wal else {})}
    free = {name: place.free_bytes for name, place in found.items() if place.free_bytes is not None}
    size = {name: place.total_bytes for name, place in found.items() if place.total_bytes is not None}
    stalled = {name: place.stalled_s for name, place in found.items()}
    page.gauges("appliance_storage_free_bytes", "What PostgreSQL's user may still write.", "directory", free)
    page.gauges("appliance_storage_size_bytes", "Of the file system.", "directory", size)
    words = "Since the first write of the probe began that has not succeeded, 0 if the last one did."
    page.gauges("appliance_storage_stalled_seconds", words, "directory", stalled)
    words = "Since the postmaster was asked for the connection that it has not taken up, 0 if it takes them."
    page.gauge("appliance_postmaster_stalled_seconds", words, storage.door_stalled_s if storage else None)
    refused = instance is not None and instance.refuses_writes
    page.gauge("appliance_writes_refused", "1 if new writes are refused for want of disk space.", refused)


def _cluster(page: Page, present: Present) -> None:
    """The members as they reported, so far as this node has heard of it."""
    members = members_view(present.published, present.published.taken_s + present.age_s)
    ages = {m.name: m.reported_age_s for m in members if m.reported_age_s is not None}
    lags = {m.name: m.lag_bytes for m in members if m.lag_bytes is not None}
    page.gauges("appliance_member_report_age_seconds", "Since a member last reported.", "member", ages)
    clocks = {name: seen.clock for name in present.state.members if (seen := present.report(name)) and seen.clock}
    drift = {name: clock.drift for name, clock in clocks.items() if clock.drift is not None}
    ahead = {name: clock.wall_ahead_s for name, clock in clocks.items()}
    words = "How much faster a member's clock since boot runs than those of the members together, as a share of one."
    page.gauges("appliance_clock_drift", words, "member", drift)
    words = "Of a member's wall clock against those of the members together."
    page.gauges("appliance_clock_wall_ahead_seconds", words, "member", ahead)
    page.gauges("appliance_member_lag_bytes", "Behind the highest position known of the primary.", "member", lags)


def _agreed(page: Page, state: ClusterState) -> None:
    """What is the same on all nodes that have applied the same log."""
    held, wanted = state.appointment, state.sync_now.wanted
    page.gauge(
        "appliance_epoch", "Of the last appointment: grows with each change of the primary.", held.epoch if held else 0
    )
    page.gauge("appliance_config_version", "Of the configuration document.", state.config.version)
    page.gauge("appliance_synchronous_members", "In the newest synchronous set.", len(wanted.members))
    roles = Counter(member.role.value for member in state.members.values())
    page.gauges("appliance_members", "By role.", "role", {role.value: roles[role.value] for role in NodeRole})
    changes = Counter(entry.change.value for entry in state.history)
    words = f"Changes of the primary by reason, among the last {HISTORY_LIMIT}."
    page.gauges(
        "appliance_primary_changes", words, "change", {change.value: changes[change.value] for change in Change}
    )
    phases = Counter(operation.phase.value for operation in state.operations)
    words = f"Switchovers and failovers on request by phase, among the last {OPERATIONS_LIMIT}."
    page.gauges("appliance_operations", words, "phase", {phase.value: phases[phase.value] for phase in Phase})


def _raft(page: Page, raft: RaftSeen) -> None:
    page.gauge("appliance_raft_term", "Of this node's replica.", raft.term)
    page.gauge("appliance_raft_is_leader", "1 if this node leads.", raft.role == "leader")
    page.gauge("appliance_raft_votes", "1 if the others count this replica as a voter.", raft.votes)
    page.gauge("appliance_raft_commit_index", "Known to be on a majority's disks.", raft.commit_index)
    page.gauge("appliance_raft_applied_index", "Applied here.", raft.index)
    page.gauge("appliance_raft_last_index", "End of the log here.", raft.last_index)
    page.gauge("appliance_raft_log_entries", "In the journal.", raft.log_entries)
    page.gauge("appliance_raft_log_bytes", "Size of the journal.", raft.log_bytes)
    words = "How long the disk took to make the journal durable."
    page.summary("appliance_raft_fsync_seconds", words, total=raft.fsync_total_s, count=raft.fsync_count)
    page.gauge("appliance_raft_fsync_longest_seconds", "Since the start.", raft.fsync_longest_s)
    page.gauge("appliance_raft_tick_late_seconds", "The latest tick of the last minute.", raft.tick_late_longest_s)
    page.counter("appliance_raft_ticks_late_total", "Ticks later than 100 ms.", raft.ticks_late)
    page.gauges("appliance_raft_peer_connected", "1 if there is a connection.", "peer", raft.peers)
    words = "Connections that were not let in, or not kept."
    page.counters("appliance_raft_refusals_total", words, "reason", raft.refused)
    words = "Wall clock of the end of the Raft port's certificate."
    page.gauge("appliance_raft_certificate_expiry_timestamp_seconds", words, raft.certificate_expires_s)
