"""`/api/v1/cluster` as a pure function: the object, the verdict, and every problem it can name."""

import json
from dataclasses import replace

import pytest

from appliance.api.published import ReplicaSeen
from appliance.api.view import MemberReplica, cluster_view
from appliance.cluster.codec import to_json
from appliance.cluster.state import (
    Bootstrap,
    ClusterState,
    Election,
    FailedBootstrap,
    LeaseStatus,
    NodeRole,
    Operation,
    OperationKind,
    Phase,
    SyncSet,
    SyncVersion,
)
from appliance.ha.seen import CertificateSeen, ReportSeen, WatchdogSeen

from .building import LSN, MIB, TAKEN_S, VOTERS, member, published, raft, report, seen, standby, state


def look(value, age_s=0.0):
    return cluster_view(value, TAKEN_S + age_s)


def codes(value, age_s=0.0):
    return {p.code for p in look(value, age_s).problems}


def with_report(name, age_s=0.3, *, me="pg1", **changes):
    value = published(me)
    changed = replace(value.reports[name].report, **changes)
    return replace(value, reports={**value.reports, name: ReportSeen(changed, age_s)})


def test_a_healthy_cluster_looks_the_same_from_everywhere():
    for me in ("pg1", "pg2", "pg3"):
        view = look(published(me))
        assert (view.verdict, view.problems) == ("healthy", ())
        assert (view.primary, view.epoch, view.timeline, view.quorum) == ("pg1", 4, 2, True)
        assert [(m.name, m.role, m.state) for m in view.members] == [
            ("pg1", "primary", "running"),
            ("pg2", "standby", "streaming"),
            ("pg3", "standby", "streaming"),
        ]


def test_the_object_is_json_with_stable_names():
    view = to_json(look(published()))
    json.dumps(view, allow_nan=False)
    assert set(view) == {
        "name", "node", "version", "verdict", "problems", "system_identifier", "primary", "epoch", "timeline", "lease",
        "sync", "members", "raft", "config_version", "operation", "last_change", "failed_bootstrap",
        "applied", "snapshot_age_s", "quorum", "waiting_for", "doing", "coordinating", "rule",
    }  # fmt: skip
    assert set(view["members"][0]) == {
        "name", "role", "state", "host", "port", "api_url", "timeline", "lsn", "lag_bytes", "replay_lag_bytes",
        "reported_age_s", "tags", "doing", "progress", "pending_restart", "rebuilding", "version", "certificate",
        "watchdog", "raft", "kind",
    }  # fmt: skip
    assert view["lease"] == {"status": "held", "left_s": 5.5}
    assert view["applied"] == {"index": 42, "age_s": 0.2}
    assert view["last_change"]["reason"] == "pg3 was silent"


def test_ages_grow_and_the_lease_shrinks_with_the_snapshot():
    view = look(published(), age_s=1.0)
    assert view.lease.left_s == 4.5
    assert view.snapshot_age_s == 1.0
    assert [m.reported_age_s for m in view.members] == [1.0, 1.3, 1.3]


def test_only_the_holder_knows_its_lease():
    assert look(published("pg2")).lease.left_s is None


def test_lag_is_told_per_member():
    view = look(with_report("pg2", lsn=LSN - 100, replayed_lsn=LSN - 300))
    assert [(m.lag_bytes, m.replay_lag_bytes) for m in view.members] == [(None, None), (100, 300), (0, 0)]
    assert view.members[1].lsn == "0/2FFFFFC"


def test_a_member_that_never_reported_is_unknown_and_not_zero():
    value = published()
    quiet = look(replace(value, reports={"pg2": value.reports["pg2"]})).members[2]
    assert (quiet.state, quiet.timeline, quiet.lsn, quiet.lag_bytes, quiet.reported_age_s) == ("unknown", *[None] * 4)


def test_the_operation_under_way_and_the_synchronous_set_are_shown():
    operation = Operation("x1", OperationKind.SWITCHOVER, "me", "", "pg1", "pg2", 4, Phase.STOPPING)
    view = look(
        published(
            state=state(operations=(operation,), sync=(SyncVersion(1, 4, SyncSet(1, frozenset({"pg3"}), ("pg3",))),))
        )
    )
    assert view.operation == operation
    assert (view.sync.k, view.sync.members) == (1, ("pg3",))
    assert [m.role for m in view.members] == ["primary", "standby", "sync_standby"]


def test_before_bootstrap_it_says_what_to_do():
    blank = published(state=ClusterState(members={"pg1": member("pg1")}), waiting_for="bootstrap", reports={})
    view = look(blank)
    assert (view.verdict, view.waiting_for, view.primary, view.epoch) == ("critical", "bootstrap", None, 0)
    assert view.problems[0].code == "cluster.not_initialised"
    assert "appliance bootstrap" in view.problems[0].hint
    begun = published(state=ClusterState(bootstrap=Bootstrap("pg3")))
    assert "pg3 is initialising" in look(begun).problems[0].message


def test_a_bootstrap_that_was_given_up_says_why():
    failed = FailedBootstrap("pg3", "op1", "max_connections: no")
    view = look(published(state=ClusterState(failed_bootstrap=failed)))
    problem = next(p for p in view.problems if p.code == "bootstrap.failed")
    assert "max_connections: no" in problem.message
    assert view.failed_bootstrap == failed


def _opened(opened):
    base = state()
    return state(appointment=replace(base.appointment, opened=opened))


LATER = "2027-11-23T12:00:00+00:00"

CRITICAL = {
    "cluster.no_primary": published(
        state=state(lease=LeaseStatus.EXPIRED, election=Election(5, "pg1 was silent for 6.1 s"))
    ),
    "primary.opening": published(state=_opened(False)),
    "primary.silent": with_report("pg1", age_s=2.1, me="pg2"),
    "primary.not_writable": with_report("pg1", me="pg2", running=False, status="stopped"),
    "primary.gated": with_report("pg1", me="pg2", gate="lets no application in"),
    "watchdog.unusable": with_report(
        "pg1", me="pg2", watchdog=WatchdogSeen("/dev/watchdog", required=True, problem="/dev/watchdog: absent")
    ),
    "certificate.unusable": with_report("pg3", certificate=CertificateSeen(LATER, "it has expired", usable=False)),
}


@pytest.mark.parametrize("code", CRITICAL)
def test_what_stops_writes_now_or_at_the_next_reconnect_is_critical(code):
    view = look(CRITICAL[code])
    assert view.verdict == "critical"
    assert code in {p.code for p in view.problems}


@pytest.mark.parametrize(
    "value",
    [
        with_report("pg1", me="pg2", in_recovery=True),
        with_report("pg1", me="pg2", in_recovery=None),
        seen(published(), lease=None),
        seen(published(), instance=None, answer_age_s=2.1),
    ],
    ids=["in recovery", "unknown", "no lease", "no answer"],
)
def test_a_primary_that_cannot_be_written_to_is_critical(value):
    assert look(value).verdict == "critical"
    assert "primary.not_writable" in codes(value)


def test_one_look_without_an_answer_changes_no_verdict_at_home():
    quiet = report("pg1", primary=True, in_recovery=None, lsn=LSN)
    assert look(seen(published(report=quiet), instance=None, answer_age_s=0.6)).verdict == "healthy"


DEGRADED = {
    "member.silent": with_report("pg3", age_s=2.1),
    "member.down": with_report("pg3", running=False, in_recovery=None, streaming=False, status="stopped"),
    "member.not_streaming": with_report("pg3", streaming=False),
    "member.not_fenced": with_report("pg3", in_recovery=False, streaming=False),
    "member.lagging": with_report("pg3", lsn=LSN - MIB - 1),
    "quorum.no_margin": published(raft=raft(peers={"pg2": True, "pg3": False})),
    "watchdog.unusable": with_report("pg3", watchdog=WatchdogSeen("/dev/watchdog", False, problem="/dev/w: absent")),
    "certificate.due": with_report("pg3", certificate=CertificateSeen(LATER, "it expires and is not renewed")),
    "raft.refused": published(raft=raft(peers={"pg2": True, "pg3": True}, refusals={"pg3": "cluster is lab"})),
    "member.leaving": published(
        state=state(members={"pg1": member("pg1"), "pg2": member("pg2")}, removed=frozenset({"pg3"}))
    ),
}


@pytest.mark.parametrize(("name", "hint"), [("pg3", "when no commit waits for it"), ("pg1", "`appliance switchover`")])
def test_who_is_to_leave_and_cannot_yet_is_shown_with_what_lets_it(name, hint):
    members = {**state().members, name: replace(state().members[name], leaving=True)}
    (found,) = (f for f in look(published(state=state(members=members))).problems if f.code == "member.leaving")
    assert (found.severity, found.member) == ("degraded", name)
    assert hint in found.hint


BACK = "the others do not take pg1 for a member: `appliance members add pg1` on one of them if it is to come back"


def test_a_standby_whose_required_watchdog_is_missing_is_not_made_primary_and_shown():
    watchdog = WatchdogSeen("/dev/watchdog", required=True, problem="/dev/watchdog: No such file or directory")
    view = look(with_report("pg3", watchdog=watchdog))
    (found,) = [problem for problem in view.problems if problem.code == "watchdog.unusable"]
    assert (found.severity, found.member) == ("degraded", "pg3")
    assert found.message.endswith("No such file or directory; it is not made primary")
    assert view.members[2].watchdog == watchdog


@pytest.mark.parametrize(
    ("why", "remedy"),
    [
        ("cluster is lab", "correct its node.yml"),
        ("pg3 shows a certificate that is not accepted: it has expired", "`appliance certs show` on both"),
        ("peer pg3 refused us: 'pg1' is no other member of cluster 'shop': removed, or not added yet", BACK),
    ],
)
def test_the_remedy_fits_the_reason_of_a_refusal(why, remedy):
    view = look(published(raft=raft(peers={"pg2": True, "pg3": True}, refusals={"pg3": why})))
    (hint,) = [problem.hint for problem in view.problems if problem.code == "raft.refused"]
    assert hint.startswith(remedy)


@pytest.mark.parametrize(
    ("problem", "remedy"),
    [
        (
            "the certificate in /c is valid from tomorrow on, and here it is today: set the clock",
            "set the clock of pg3",
        ),
        ("cannot read /ca.crt: No such file or directory; put it there", "mend the file on pg3"),
        ("tls.key: /k has mode 0644, which PostgreSQL refuses; make it 0600", "mend the file on pg3"),
        ("the certificate in /c expired on Monday: renew it", "`appliance certs renew` on pg3"),
    ],
)
def test_the_remedy_fits_what_is_wrong_with_a_certificate(problem, remedy):
    view = look(with_report("pg3", certificate=CertificateSeen(LATER, problem, usable=False)))
    (hint,) = [problem.hint for problem in view.problems if problem.code == "certificate.unusable"]
    assert hint.startswith(remedy)


def test_one_that_was_removed_is_not_told_to_mend_the_network():
    refused = "peer refused us: 'pg1' is no other member of cluster 'shop': removed, or not added yet"
    away = {"pg2": f"{refused} (pg2)", "pg3": f"{refused} (pg3)"}
    cut = seen(published(raft=raft(peers={"pg2": False, "pg3": False}, away=away), last_renewal_s=None), contact_s=9.0)
    (hint,) = [problem.hint for problem in look(cut).problems if problem.code == "quorum.none"]
    assert hint == BACK


@pytest.mark.parametrize("code", DEGRADED)
def test_less_than_everything_is_degraded(code):
    view = look(DEGRADED[code])
    assert view.verdict == "degraded"
    assert [p.code for p in view.problems] == [code]
    assert view.problems[0].message
    assert view.problems[0].hint


def test_a_node_that_was_removed_says_by_whose_word_and_what_would_do():
    """It was down meanwhile: its own state knows nothing of it."""
    refusals = {"pg1": "refused us: 'pg3' is no other member", "pg2": "refused us: 'pg3' is no other member"}
    removed = raft("follower", peers={"pg1": False, "pg2": False}, refusals=refusals, removed_by=("pg1", "pg2"))
    value = replace(published("pg3", raft=removed), last_renewal_s=None)
    first, *others = look(seen(value, contact_s=None)).problems

    assert (first.code, first.severity, first.member) == ("node.removed", "critical", "pg3")
    assert first.message == "pg3 was removed from the cluster, by the word of pg1, pg2"
    assert "`appliance members add pg3`" in first.hint
    assert "`appliance join`" in first.hint
    assert "remove its data" in first.hint
    assert "raft.refused" not in {problem.code for problem in others}, "its node.yml is not what is wrong"


def test_a_silent_member_shows_why_there_is_no_connection_and_is_not_called_refused():
    away = raft("follower", leader="pg2", peers={"pg2": True, "pg3": False}, away={"pg3": "pg3: timed out"})
    problems = {p.code: p.hint for p in look(replace(with_report("pg3", age_s=2.1), raft=away)).problems}

    assert set(problems) == {"member.silent", "quorum.no_margin"}
    assert problems["member.silent"].endswith("From pg1: pg3: timed out")


def test_only_voters_count_for_the_margin():
    learner = {**VOTERS, "pg4": ReplicaSeen("learner", "10.0.0.4:7400")}
    away = raft(members=learner, peers={"pg2": True, "pg3": True, "pg4": False})

    assert look(published(raft=away)).verdict == "healthy"
    assert codes(published(raft=replace(away, peers={"pg2": True, "pg3": False, "pg4": True}))) == {"quorum.no_margin"}


def test_a_member_shows_its_role_and_that_of_its_replica():
    members = {**state().members, "pg4": member("pg4", NodeRole.LEARNER)}
    raft_members = {**VOTERS, "pg4": ReplicaSeen("learner", "10.0.0.9:7400")}
    value = published(state=state(members=members), raft=raft(members=raft_members, peers={"pg4": True}))
    shown = look(value).members[3]

    assert (shown.kind, shown.raft) == ("learner", MemberReplica(True, "10.0.0.9:7400", "learner"))


def test_a_lag_within_the_limit_is_healthy():
    assert look(with_report("pg3", lsn=LSN - MIB)).verdict == "healthy"


def test_a_member_that_never_came_is_degraded():
    value = published()
    assert codes(replace(value, reports={"pg2": value.reports["pg2"]})) == {"member.silent"}


def test_a_witness_needs_no_postgresql():
    members = {**state().members, "w1": member("w1", NodeRole.WITNESS)}
    value = published(state=state(members=members))
    seen_witness = ReportSeen(report("w1", running=False, in_recovery=None, streaming=False, status="witness"), 0.1)
    view = look(replace(value, reports={**value.reports, "w1": seen_witness}))
    assert view.verdict == "healthy"
    assert view.members[3].role == "witness"


@pytest.mark.parametrize("contact_s", [None, 2.1])
def test_without_a_quorum_the_view_is_stale_whatever_else_it_shows(contact_s):
    value = replace(standby(contact_s=contact_s), last_renewal_s=contact_s)
    worse = replace(value, state=state(lease=LeaseStatus.EXPIRED))
    for cut_off in (value, worse):
        view = look(cut_off)
        assert (view.verdict, view.quorum) == ("stale", False)
        assert view.applied.age_s == contact_s
        assert "quorum.none" in {p.code for p in view.problems}


def test_a_stuck_control_loop_is_stale():
    assert look(published(), age_s=7.0).verdict == "stale"
    assert {"node.stuck", "quorum.none"} <= codes(published(), age_s=7.0)


def test_the_message_names_peers_that_are_away():
    alone = raft("candidate", leader=None, peers={"pg1": False, "pg3": False})
    value = replace(standby(contact_s=9.0), last_renewal_s=None, raft=alone)
    message = next(p.message for p in look(value).problems if p.code == "quorum.none")
    assert "9.0 s" in message
    assert "pg1, pg3" in message
