"""What a node says of its replica, and to whom it hands the raft leadership."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from appliance.api.published import OperatorRequest
from appliance.node.messages import Operate
from appliance.node.operator import Desk
from appliance.node.raft_status import raft_view
from raft import Applied, HeardRefusal, Member, Members, PeerStatus, Refused, ReplicaStatus, Unknown
from raft.tls import CertificateStatus
from tests.unit.cluster.building import state

from .building import Consensus, done

MEMBERS = Members.of(
    Member(name, f"id-{name}", f"{name}:7400", "voter" if name != "pg4" else "joining")
    for name in ("pg1", "pg2", "pg3", "pg4")
)


def peer(name, match, *, connected=True):
    return PeerStatus(name, f"{name}:7400", connected, match, None, None if connected else f"peer {name}: refused")


def status(*peers, **changes):
    values = {
        "name": "pg1",
        "cluster": "shop",
        "cluster_id": "cafe",
        "incarnation": 0,
        "role": "leader",
        "term": 3,
        "leader": "pg1",
        "commit_index": 9,
        "applied_index": 9,
        "first_index": 2,
        "last_index": 10,
        "log_bytes": 100,
        "replica_id": "id-pg1",
        "members": MEMBERS,
        "votes": True,
        "fsync_count": 5,
        "fsync_last_s": 0.001,
        "fsync_longest_s": 0.002,
        "tick_late_s": 0.0,
        "tick_late_longest_s": 0.0,
        "ticks_late": 0,
        "fsync_total_s": 0.01,
        "peers": peers,
    }
    return ReplicaStatus(**(values | changes))


WHOLE = status(peer("pg2", 8), peer("pg3", 10), peer("pg4", 1))


class Transferring(Consensus):
    def __init__(self, outcome, seen=WHOLE):
        super().__init__(state(), leads=True)
        self.outcome, self.seen, self.transferred = outcome, seen, []

    def status(self):
        return self.seen

    def transfer(self, to, limit_s):
        self.transferred.append(to)
        return done(self.outcome)


def ask(consensus, target="", *, dry_run=False):
    request = OperatorRequest("raft_transfer", "t1", "anna", target=target, dry_run=dry_run)
    return Desk(consensus, dict).handle(Operate(request))


def test_a_leader_says_how_far_behind_each_member_is():
    view = raft_view(WHOLE)
    shown = {
        member.name: (member.role, member.leads, member.connected, member.match_index, member.lag)
        for member in view.members
    }
    assert shown == {
        "pg1": ("voter", True, None, 10, 0),
        "pg2": ("voter", False, True, 8, 2),
        "pg3": ("voter", False, True, 10, 0),
        "pg4": ("joining", False, True, 1, 9),
    }


def test_a_follower_knows_nothing_of_that():
    view = raft_view(status(peer("pg2", None), name="pg3", role="follower", leader="pg2"))
    assert {(member.match_index, member.lag) for member in view.members} == {(None, None)}
    assert [member.name for member in view.members if member.leads] == ["pg2"]
    assert view.certificate is None


def test_what_a_peer_said_when_it_refused_is_shown_with_its_age():
    heard = replace(peer("pg2", None, connected=False), refused_us=HeardRefusal("no member", 7.5, no_member=True))
    view = raft_view(status(heard, peer("pg3", None), removed_by=("pg2", "pg3")))
    said = {member.name: (member.refused_us, member.refused_us_age_s) for member in view.members}
    assert said["pg2"] == ("no member", 7.5)
    assert {said[name] for name in ("pg1", "pg3", "pg4")} == {(None, None)}
    assert view.removed_by == ("pg2", "pg3")


def test_a_certificate_is_shown_with_its_end_or_its_problem():
    until = CertificateStatus(datetime(2027, 1, 1, tzinfo=UTC), None)
    assert raft_view(status(certificate=until)).certificate.expires_at == "2027-01-01T00:00:00+00:00"
    broken = raft_view(status(certificate=CertificateStatus(None, "no such file"))).certificate
    assert (broken.expires_at, broken.problem) == (None, "no such file")


def test_the_leadership_goes_to_the_voter_with_most_of_the_log():
    consensus = Transferring(Applied(9))
    answer = ask(consensus)
    assert (answer.outcome, consensus.transferred) == ("accepted", ["pg3"])
    assert answer.message == "pg1 has handed the raft leadership over to pg3"


def test_one_that_is_away_is_passed_over_and_a_named_one_is_obeyed():
    seen = status(peer("pg2", 8), peer("pg3", 10, connected=False))
    consensus = Transferring(Applied(9), seen)
    assert ask(consensus).outcome == "accepted"
    assert ask(Transferring(Applied(9)), "pg2").message.endswith("to pg2")
    assert consensus.transferred == ["pg2"]


@pytest.mark.parametrize(
    ("target", "seen", "code"),
    [
        ("pg4", WHOLE, "raft.voter"),
        ("pg9", WHOLE, "raft.voter"),
        ("pg1", WHOLE, "raft.not_leader"),
        ("pg3", status(peer("pg3", 10, connected=False)), "raft.connected"),
        ("", status(members=Members.of([MEMBERS.get("pg1")])), "raft.voter"),
    ],
)
def test_nobody_is_asked_to_lead_who_cannot(target, seen, code):
    consensus = Transferring(Applied(9), seen)
    answer = ask(consensus, target)
    assert (answer.outcome, answer.code, consensus.transferred) == ("refused", code, [])
    assert any(not check.ok for check in answer.checks)


def test_a_dry_run_hands_nothing_over():
    consensus = Transferring(Applied(9))
    assert ask(consensus, dry_run=True).outcome == "accepted"
    assert consensus.transferred == []


@pytest.mark.parametrize(("outcome", "said"), [(Refused("not in time", None), "refused"), (Unknown("lost"), "unknown")])
def test_a_transfer_that_did_not_happen_is_no_success(outcome, said):
    assert ask(Transferring(outcome)).outcome == said


def test_without_a_majority_nothing_is_tried():
    consensus = Transferring(Applied(9))
    consensus.barrier_answer = Refused("no majority", None)
    assert ask(consensus).outcome == "no_quorum"
    assert consensus.transferred == []
