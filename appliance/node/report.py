"""What this node tells the raft leader and its API, made of one observation. Pure."""

from dataclasses import replace
from datetime import UTC, datetime

from appliance import __version__
from appliance.api.published import WalSenderSeen
from appliance.cluster.state import FORMAT, ClusterState, NodeRole
from appliance.cluster.zones import unknown_zone
from appliance.ha.decide import cast_vote, wants_lease
from appliance.ha.facts import awaits_recovery, needs_rebuild, strange
from appliance.ha.gate import why_closed
from appliance.ha.seen import CertificateSeen, DirectoryKind, Observation, Report
from appliance.ha.start import progress
from appliance.postgres.instance import InstanceSeen as Answer

_JOB_STATUS = {"initialise": "initializing new cluster", "clone": "creating replica"}


def status(seen: Observation) -> str:
    """PostgreSQL's state in Patroni's words, which have none for a node without it."""
    if seen.me.role is NodeRole.WITNESS:
        return "witness"
    if seen.job is not None and seen.job.running and seen.job.kind in _JOB_STATUS:
        return _JOB_STATUS[seen.job.kind]
    if seen.stopping_s is not None:
        return "stopping"
    if seen.postmaster is not None:
        return "running" if seen.instance is not None else "starting"
    crashed = seen.directory.kind is DirectoryKind.CLUSTER and not seen.directory.shut_down
    return "crashed" if crashed and seen.job is None else "stopped"


def make_report(
    state: ClusterState,
    seen: Observation,
    answer: Answer | None,
    doing: str,
    certificate: CertificateSeen | None = None,
) -> Report:
    # R13a: data that is not this cluster's has no position
    ours = strange(state, seen) is None and not awaits_recovery(state, seen)
    instance, directory = (seen.instance, seen.directory) if ours else (None, replace(seen.directory, timeline=0))
    started = datetime.fromtimestamp(answer.postmaster_start_time, UTC) if answer is not None else None
    return Report(
        node=seen.me.name,
        incarnation=directory.incarnation if ours else "",
        notes=seen.notes,
        directory=seen.directory.kind,
        running=seen.postmaster is not None,
        in_recovery=instance.in_recovery if instance is not None else None,
        timeline=instance.timeline if instance is not None else directory.timeline,
        lsn=instance.lsn if instance is not None else 0,
        received_lsn=instance.received_lsn if instance is not None else 0,
        replayed_lsn=instance.replayed_lsn if instance is not None else 0,
        streaming=instance.streaming if instance is not None else False,
        status=status(seen),
        doing=doing,
        vote=cast_vote(state, seen),
        renew_epoch=wants_lease(state, seen),
        checkpointed_operation=seen.checkpointed_operation,
        progress=progress(seen.job) if seen.job is not None and seen.job.running else "",
        postmaster_start=started.isoformat(sep=" ") if started is not None else "",
        server_version=answer.server_version if answer is not None else 0,
        pending_restart=instance.pending_restart if instance is not None else False,
        version=__version__,
        oldest_lsn=instance.oldest_lsn if instance is not None else 0,
        certificate=certificate,
        senders=instance.senders if instance is not None and not instance.in_recovery else (),
        wants_rebuild=needs_rebuild(state, seen) is not None,
        format=FORMAT,
        watchdog=seen.watchdog,
        storage=seen.storage,
        gate=why_closed(state, seen) if instance is not None else "",
        objection=unknown_zone(state, seen.me) or "",
    )


def alike(one: Report, other: Report) -> bool:
    """But for what changes all the time: any other difference is worth a plan, or a look, at once."""
    return one == other or _lasting(one) == _lasting(other)


def _lasting(report: Report) -> Report:
    senders = tuple(replace(sender, flushed_lsn=0) for sender in report.senders)
    moving = replace(report, lsn=0, received_lsn=0, replayed_lsn=0, doing="", progress="", senders=senders)
    return replace(moving, storage=None)


def walsenders(answer: Answer | None) -> tuple[WalSenderSeen, ...]:
    senders = answer.walsenders if answer is not None else ()
    return tuple(
        WalSenderSeen(s.user, s.application_name, s.client_addr, s.state, s.sync_state, s.sync_priority)
        for s in senders
    )


def replay_timestamp(answer: Answer | None) -> str | None:
    """As Python prints an aware datetime: consumers of Patroni's API parse that."""
    if answer is None or answer.replay_timestamp is None:
        return None
    return str(datetime.fromtimestamp(answer.replay_timestamp, UTC))
