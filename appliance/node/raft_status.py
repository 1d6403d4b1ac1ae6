"""The replica's status in the API's terms."""

from appliance.api.raft_view import Fsyncs, RaftCertificate, RaftMember, RaftView
from raft import Member, ReplicaStatus


def raft_view(status: ReplicaStatus) -> RaftView:
    certificate = None
    if status.certificate is not None:
        expires_at = status.certificate.expires_at
        shown = expires_at.isoformat() if expires_at is not None else None
        certificate = RaftCertificate(shown, status.certificate.problem)
    return RaftView(
        node=status.name,
        cluster=status.cluster,
        cluster_id=status.cluster_id,
        incarnation=status.incarnation,
        replica_id=status.replica_id,
        role=status.role,
        votes=status.votes,
        term=status.term,
        leader=status.leader,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        first_index=status.first_index,
        last_index=status.last_index,
        log_bytes=status.log_bytes,
        fsyncs=Fsyncs(status.fsync_count, status.fsync_last_s, status.fsync_longest_s),
        tick_late_s=status.tick_late_s,
        tick_late_longest_s=status.tick_late_longest_s,
        failure=status.failure,
        members=tuple(_member(status, member) for member in status.members.all),
        refusals={str(reason): count for reason, count in status.refusals.items()},
        certificate=certificate,
        removed_by=status.removed_by,
    )


def _member(status: ReplicaStatus, member: Member) -> RaftMember:
    peer = next((peer for peer in status.peers if peer.name == member.name), None)
    leading, own = status.role == "leader", member.name == status.name
    heard = peer.refused_us if peer is not None else None
    match = (status.last_index if own else peer.match_index if peer is not None else None) if leading else None
    return RaftMember(
        name=member.name,
        role=member.role,
        replica_id=member.replica_id,
        address=member.address,
        leads=member.name == status.leader,
        connected=None if own else peer is not None and peer.connected,
        match_index=match,
        lag=None if match is None else max(0, status.last_index - match),
        problem=peer.problem if peer is not None else None,
        refused_us=None if heard is None else heard.words,
        refused_us_age_s=None if heard is None else heard.age_s,
    )
