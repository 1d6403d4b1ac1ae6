"""The documents of Patroni's read routes, so that what was set up for Patroni works unchanged.

Keys that Patroni leaves out when they are false are left out here: check_patroni tests for their presence.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from appliance import __version__
from appliance.api.health import health, replication_state, tidy
from appliance.api.present import Present, split_address
from appliance.api.published import Published
from appliance.cluster.codec import to_json
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import ClusterState, HistoryEntry, Member, NodeRole
from appliance.cluster.synchronous import vouchers
from appliance.ha.seen import DirectoryKind, ReportSeen

EMULATED_VERSION = "4.1.4"
"""The level of Patroni's API that is kept to; check_patroni reads it."""

UNKNOWN = "unknown"

Document = dict[str, object]


def read(published: Published, path: str, query: Mapping[str, str], now_s: float) -> tuple[int, object | None]:
    """Status and body of a GET of any path outside our own API; None: a status without a body."""
    match tidy(path).split("/")[1]:
        case "patroni":
            return 200, patroni_document(published, now_s)
        case "cluster":
            return 200, cluster_document(published, now_s)
        case "history":
            return 200, history_document(published.state)
        case "config":
            config = published.state.config
            return (200, to_json(config.document)) if config.version else (502, None)
        case "failsafe":
            vouching = failsafe_document(published)
            return (200, vouching) if vouching else (502, None)
        case "liveness" | "readiness":
            return health(published, path, query, now_s), None
        case _:
            return health(published, path, query, now_s), patroni_document(published, now_s)


def failsafe_document(published: Published) -> Mapping[str, str]:
    """The primary and who has to vouch for it without a quorum (R16); empty while nobody could."""
    state = published.state
    vouching = vouchers(state.sync) if published.policy.failsafe_mode else None
    if state.appointment is None or not vouching:
        return {}
    members = (state.members.get(name) for name in sorted({state.appointment.node, *vouching}))
    return {member.name: f"{member.api_url}/patroni" for member in members if member is not None}


def patroni_document(published: Published, now_s: float) -> Document:
    """What `/patroni` and every health route show of this node."""
    present = Present.at(published, now_s)
    state, report, seen = published.state, published.report, published.seen
    document: Document = {"state": report.status, "role": _role(present)}
    if present.instance is not None:
        document |= _instance(present)
    synchronous = present.synchronous_role(present.me)
    optional = {
        synchronous or "sync_standby": synchronous is not None,
        "cluster_unlocked": state.primary is None or not present.in_contact(present.policy.ttl_s),
        "pending_restart": report.pending_restart,
        "failsafe_mode_is_active": seen.vouched_by is not None or seen.promised_left_s > 0,
    }
    document |= {key: True for key, shown in optional.items() if shown}
    document["dcs_last_seen"] = _last_contact(published)
    if seen.me.tags:
        document["tags"] = dict(seen.me.tags)
    identifier = state.system_identifier or seen.directory.system_identifier
    if identifier:
        document["database_system_identifier"] = identifier
    document["patroni"] = {
        "version": EMULATED_VERSION,
        "scope": published.cluster,
        "name": published.node,
        "implementation": f"pg-appliance {published.version or __version__}",
    }
    return document


def _role(present: Present) -> str:
    """The role of PostgreSQL here, not of the lease; guessed from the lease while PostgreSQL does not answer."""
    if present.instance is not None:
        return "replica" if present.instance.in_recovery else "primary"
    if present.member.role is NodeRole.WITNESS:
        return "witness"
    if present.published.seen.directory.kind is not DirectoryKind.CLUSTER:
        return "uninitialized"
    return "primary" if present.state.primary == present.me else "replica"


def _instance(present: Present) -> Document:
    instance, report = present.instance, present.published.report
    assert instance is not None
    document: Document = {"timeline": instance.timeline}
    if report.postmaster_start:
        document["postmaster_start_time"] = _timestamp(report.postmaster_start)
    if report.server_version:
        document["server_version"] = report.server_version
    if instance.in_recovery:
        document["xlog"] = {
            "received_location": instance.received_lsn,
            "replayed_location": instance.replayed_lsn,
            "replayed_timestamp": present.published.replay_timestamp,
            "paused": present.published.replay_paused,
        }
        state = replication_state(present)
        document |= {} if state is None else {"replication_state": state}
    else:
        document["xlog"] = {"location": instance.lsn}
    if present.published.walsenders:
        document["replication"] = to_json(present.published.walsenders)
    return document


def _timestamp(text: str) -> str:
    """As Python prints an aware datetime, with a space: consumers of Patroni parse that."""
    try:
        return str(datetime.fromisoformat(text))
    except ValueError:
        return text


def _last_contact(published: Published) -> int:
    """Wall clock of the last contact with a quorum, 0 for none; Patroni's Raft always said "now"."""
    contact_s = Present(published, 0.0).contact_s
    return 0 if contact_s is None else int(published.wall_time - contact_s)


def cluster_document(published: Published, now_s: float) -> Document:
    """What `/cluster` shows: every member with PostgreSQL, by name."""
    present = Present.at(published, now_s)
    members = sorted(published.state.members.values(), key=lambda member: member.name)
    shown = [_member(present, member) for member in members if member.role is not NodeRole.WITNESS]
    return {"members": shown, "scope": published.cluster}


def _member(present: Present, member: Member) -> Document:
    leader = present.state.primary == member.name
    seen = present.report(member.name)
    heard = seen if seen is not None and seen.age_s <= present.policy.ttl_s else None
    document: Document = {
        "name": member.name,
        "role": "leader" if leader else present.synchronous_role(member.name) or "replica",
        "state": member_state(heard, leader=leader),
        "api_url": f"{member.api_url.rstrip('/')}/patroni",
    }
    address = split_address(member.postgres)
    if address is not None:
        document["host"], document["port"] = address
    if heard is not None and heard.report.timeline:
        document["timeline"] = heard.report.timeline
    if heard is not None and heard.report.pending_restart:
        document["pending_restart"] = True
    if member.tags:
        document["tags"] = dict(member.tags)
    return document if leader else document | _lags(present, heard)


def member_state(heard: ReportSeen | None, *, leader: bool) -> str:
    """`streaming` for a standby that does, else PostgreSQL's own state; `unknown` without a recent report."""
    if heard is None:
        return UNKNOWN
    streams = not leader and heard.report.running and heard.report.streaming
    return "streaming" if streams else heard.report.status


def _lags(present: Present, heard: ReportSeen | None) -> Document:
    report = None if heard is None else heard.report
    document: Document = {}
    for prefix, lsn in (
        ("receive_", report.received_lsn if report else 0),
        ("replay_", report.replayed_lsn if report else 0),
        ("", report.lsn if report else 0),
    ):
        known = lsn > 0
        document[f"{prefix}lsn"] = format_lsn(lsn) if known else UNKNOWN
        document[f"{prefix}lag"] = max(0, present.primary_lsn - lsn) if known else UNKNOWN
    return document


def history_document(state: ClusterState) -> list[list[object]]:
    """`[[timeline that ended, where, why, when, who came next], …]`; the first timeline has no such line."""
    return [list(line) for line in _history(state)]


def _history(state: ClusterState) -> Iterator[tuple[object, ...]]:
    parents = {timeline.number: timeline.parent for timeline in state.timelines}
    for entry in state.history:
        if entry.lsn > 0:
            yield _ended(entry, parents), entry.lsn, entry.reason, entry.at, entry.primary


def _ended(entry: HistoryEntry, parents: Mapping[int, int]) -> int:
    return parents.get(entry.timeline) or entry.timeline - 1
