"""Why it is as it is: each code has its case, and each answer its numbers."""

from dataclasses import replace

import pytest

from appliance.api.explained import seconds_between
from appliance.cluster.apply import apply
from appliance.cluster.commands import Depose, OpenElection, Promoted
from appliance.cluster.config import read_policy
from appliance.cluster.state import (
    Change,
    ClusterState,
    HistoryEntry,
    LeaseStatus,
    Lost,
    NodeRole,
    Position,
    SyncSet,
)
from appliance.ha.candidates import field, prospect
from appliance.ha.explain import CHANGES_SHOWN, explain
from appliance.ha.seen import Notes, PlaceSeen, StorageSeen, WatchdogSeen
from tests.unit.cluster.building import (
    AT,
    LIMIT,
    LSN,
    appoint,
    contested,
    member,
    state,
    sync,
    synchronous,
    vacant,
    vote,
    with_members,
)

from .building import ALL, APPOINTED, heard, operation, report

FULL = StorageSeen(PlaceSeen(free_bytes=1 << 20, total_bytes=1 << 41))
HUNG = StorageSeen(PlaceSeen(stalled_s=9.0))
NO_DEVICE = WatchdogSeen("/dev/watchdog", required=True, problem="/dev/watchdog: absent")
STANDBYS = heard(report("pg2"), report("pg3"))


def told(present, reports=None, contact_s=0.2):
    return explain(
        present, ALL if reports is None else reports, read_policy(present.config.document), contact_s, seconds_between
    )


def why(present, name, reports=None):
    return next(m for m in told(present, reports).members if m.member == name).why


def silent(age_s, *reports):
    """pg1 was last heard of so long ago."""
    return heard(report("pg1"), age_s=age_s) | heard(*reports)


# Failover, or none


@pytest.mark.parametrize(
    ("present", "reports", "code", "words"),
    [
        (ClusterState(), {}, "cluster.not_initialised", "no data"),
        (synchronous(), ALL, "primary.open", "pg1 reported 0.2 s ago and is open"),
        (synchronous(), ALL | heard(report("pg1", running=False, status="crashed", doing="start in place")),
         "primary.not_writable", "its PostgreSQL is crashed: start in place"),
        (synchronous(), ALL | heard(report("pg1", storage=HUNG)), "primary.stalled",
         "has succeeded for 9.0 s; it ends its epoch after 12 s for another one: pg2, pg3 could take over"),
        (synchronous(), heard(report("pg1", storage=HUNG), report("pg2")), "primary.stalled",
         "nobody could take over, so it stays"),
        (APPOINTED, STANDBYS, "primary.opening", "pg2 was appointed in epoch 5"),
        (synchronous(), silent(9.0, report("pg2"), report("pg3")), "election.due", "pg1 has been silent for 9.0 s"),
        (synchronous(), heard(report("pg2")), "quorum.votes_missing", "1 of 2 needed votes of pg2, pg3"),
        (synchronous(sync(0)), STANDBYS, "quorum.votes_missing", "nobody else is known to have every commit"),
        (state(), silent(9.0, report("pg2")), "lease.held",
         "its lease ends 6.06 s after the last renewal that was confirmed"),
        (contested(), STANDBYS, "election.open", "election 5 is open (pg1 is silent); pg2 is about to win it"),
        (contested(), heard(report("pg3")), "quorum.votes_missing", "1 of 2 needed votes of pg2, pg3"),
        (vacant(), heard(report("pg2", lsn=LSN - LIMIT - 1)), "candidate.reachable", "the limit is"),
        (vacant(election=None), STANDBYS, "election.due", "the lease is expired: pg1 was silent"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)  # fmt: skip
def test_why_there_is_a_failover_or_none(present, reports, code, words):
    present = replace(present, lease_over="pg1 was silent") if present.lease is LeaseStatus.EXPIRED else present
    answer = told(present, reports).failover

    assert answer.code == code
    assert words in answer.text


@pytest.mark.parametrize(("contact_s", "words"), [(None, "since this node started"), (7.0, "for 7.0 s")])
def test_a_node_without_a_majority_says_that_it_decides_nothing_and_what_it_knows(contact_s, words):
    answer = told(synchronous(), STANDBYS, contact_s)

    assert answer.failover.code == "quorum.none"
    assert words in answer.failover.text
    assert answer.primary.member == "pg1", "the last known one"
    assert [m.member for m in answer.members] == ["pg1", "pg2", "pg3"]


# Members


@pytest.mark.parametrize(
    ("present", "reports", "code", "words"),
    [
        (synchronous(), ALL, "candidate.next", "pg1 is primary of epoch 4; it would be appointed if pg1 were lost now"),
        (synchronous(), ALL | heard(report("pg3", lsn=LSN + 9)), "candidate.behind",
         "0/3000000 on timeline 2: 9 bytes behind pg3"),
        (with_members(synchronous(), member("pg2", NodeRole.WITNESS)), ALL, "candidate.data", "a witness"),
        (with_members(synchronous(), member("pg2", rebuilding=True)), ALL, "candidate.data", "no complete data"),
        (with_members(state(), member("pg2", tags={"nofailover": True})), ALL, "candidate.nofailover", "nofailover"),
        (state(), heard(report("pg2"), age_s=9.0), "candidate.reachable", "silent for 9.0 s, the limit is 2 s"),
        (state(), ALL | heard(report("pg2", watchdog=NO_DEVICE)), "candidate.watchdog", "/dev/watchdog: absent"),
        (state(), ALL | heard(report("pg2", storage=FULL)), "candidate.room", "1048576 bytes free"),
        (state(), ALL | heard(report("pg2", incarnation="other")), "candidate.incarnation", "it has no more"),
        (state(), heard(report("pg2", lsn=LSN - LIMIT - 1)), "candidate.lagging", f"{LIMIT + 1} bytes behind"),
        (state(), ALL | heard(report("pg2", timeline=0)), "candidate.no_vote", "no position of it is known"),
        (synchronous(), heard(report("pg2")), "quorum.votes_missing", "1 of 2 needed votes of pg2, pg3"),
        (with_members(state(), member("pg3", tags={"failover_priority": 2})), ALL, "candidate.after",
         "pg3 has the higher failover_priority"),
        (with_members(state(), member("pg2", leaving=True, tags={"failover_priority": 9})), ALL, "candidate.after",
         "pg3 is not about to leave the cluster"),
        (vacant(), STANDBYS, "candidate.next", "there is no primary; it would be appointed now"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)  # fmt: skip
def test_why_a_member_is_not_primary(present, reports, code, words):
    answer = why(present, "pg2", reports)

    assert answer.code == code
    assert words in answer.text


def test_an_equal_that_is_not_first_by_name_comes_after():
    answer = why(synchronous(), "pg3")

    assert (answer.code, answer.text.rpartition("; ")[2]) == (
        "candidate.after", "it could be appointed if pg1 were lost now, but pg2 is first by name",
    )  # fmt: skip


def test_every_check_is_there_with_its_numbers_also_after_the_first_that_fails():
    far = report("pg2", lsn=LSN - LIMIT - 1, notes=Notes(epoch=4, pledge=7))
    present = with_members(state(), member("pg2", tags={"nofailover": True, "failover_priority": 3}))
    found = next(m for m in told(present, ALL | heard(far)).members if m.member == "pg2")

    assert [(check.code, check.ok) for check in found.checks] == [
        ("candidate.data", True),
        ("candidate.reachable", True),
        ("candidate.nofailover", False),
        ("candidate.watchdog", True),
        ("candidate.room", True),
        ("candidate.behind", False),
        ("candidate.lagging", False),
    ]
    assert (found.position, found.behind_bytes) == (Position(2, LSN - LIMIT - 1), LIMIT + 1)
    assert (found.pledge, found.priority, found.reported_age_s) == (7, 3, 0.2)


def test_r7_is_shown_on_the_votes_that_could_be_had_without_the_primary():
    assert told(synchronous()).votes.detail == "2 votes, 2 of them of pg2, pg3, where 2 suffice (k = 1)"
    assert told(synchronous(sync(2, "pg2", "pg3")), heard(report("pg3"))).votes.detail == (
        "1 vote, 1 of them of pg2, pg3, where 1 suffice (k = 2)"
    )
    assert told(state()).votes is None, "R10 decides"


# The primary, and changes


def failed_over():
    """As `apply` records it: pg1 fell silent, pg2 won with the votes of pg2 and pg3."""
    before = synchronous(last_known_at=AT)
    for command in (
        OpenElection(5, 4, "pg1 did not renew its lease of epoch 4 for 2.1 s", at="2026-11-23T05:00:01.000Z"),
        replace(
            appoint("pg2", vote("pg2"), vote("pg3", LSN - 8), wanted=SyncSet(1, frozenset({"pg3"}))),
            at="2026-11-23T05:00:01.250Z",
        ),
        Promoted(5, "pg2", 3, 2, LSN, "2026-11-23T05:00:01.600Z"),
    ):
        applied = apply(before, command)
        assert applied.refused is None, applied.refused
        before = applied.state
    return before


def test_the_primary_is_explained_by_the_election_it_won():
    primary = told(failed_over(), heard(report("pg2", primary=True, timeline=3))).primary

    assert (primary.member, primary.epoch, primary.timeline) == ("pg2", 5, 3)
    assert primary.since == "2026-11-23T05:00:01.250Z"
    assert primary.why.code == "primary.open"
    assert "(election 5: pg2 0/3000000 on timeline 2, pg3 0/2FFFFF8 on timeline 2)" in primary.why.text


def test_a_change_has_its_reason_its_votes_and_its_times():
    change = told(failed_over()).changes[0]

    assert (change.entry.change, change.election_s, change.opening_s) == (Change.FAILOVER, 0.25, pytest.approx(0.35))
    assert change.text.startswith("failover from pg1 to pg2: ")
    assert change.text.endswith("; appointed 0.25 s after the election opened; open 0.35 s after that")


def test_what_was_given_up_is_told():
    lost = Lost(Position(2, LSN), AT, 1000, "quorum.votes_missing", "uid 0", "op1", "they burnt")
    entry = HistoryEntry(AT, Change.FAILOVER, 5, 3, 0, "pg1", "pg3", "why", start=Position(2, LSN - 1000), lost=lost)
    text = told(state(history=(entry,))).changes[0].text

    assert (
        "given up by uid 0 (they burnt): 1000 bytes of WAL between 0/2FFFC18 on timeline 2 and 0/3000000 on timeline 2,"
        f" as of {AT}, and what was acknowledged after that (operation op1, quorum.votes_missing)"
    ) in text
    unknown = replace(entry, lost=replace(lost, bytes=None, known_at="", reason=""))
    assert "given up by uid 0: an unknown amount of WAL" in told(state(history=(unknown,))).changes[0].text


def test_the_last_changes_only_newest_first():
    entries = tuple(HistoryEntry(AT, Change.FAILOVER, n, n, 0, "a", "b", "why") for n in range(1, 9))

    assert [c.entry.epoch for c in told(state(history=entries)).changes] == list(range(8, 8 - CHANGES_SHOWN, -1))


def test_a_primary_whose_lease_is_over_or_that_is_to_open_is_told_as_such():
    over = apply(synchronous(), Depose(4, "pg1 did not renew")).state
    ended = told(over).primary.why
    assert (ended.code, ended.text) == ("primary.ended", "its lease of epoch 4 is expired: pg1 did not renew")
    assert told(contested()).primary.why.text.endswith("an election was opened while it was held")
    assert told(APPOINTED).primary.why.code == "primary.opening"
    assert why(APPOINTED, "pg2").code == "primary.opening"
    assert told(ClusterState(), {}).primary is None


# What a failover would give up


def seen_by_anna(present, reports, target="pg3", noted_s=None):
    return prospect(present, reports, read_policy(present.config.document), target, noted_s)


def test_a_prospect_has_the_last_known_position_its_age_and_everybodys_distance():
    shown = seen_by_anna(contested(lease=LeaseStatus.EXPIRED), heard(report("pg3", lsn=LSN - 500)), noted_s=9.0)

    assert (shown.primary, shown.known, shown.known_age_s) == ("pg1", Position(2, LSN), 9.0)
    assert [(c.member, c.behind_bytes) for c in shown.candidates] == [("pg1", None), ("pg2", None), ("pg3", 500)]
    assert (shown.accepts.candidate, shown.accepts.known) == (Position(2, LSN - 500), Position(2, LSN))
    assert shown.lost_bytes == 500
    assert shown.objection.startswith("quorum.votes_missing: no vote of pg1, the last primary, and 1 of 2")


def test_a_report_of_the_lost_primary_is_later_than_the_log():
    shown = seen_by_anna(contested(), silent(40.0, report("pg3")) | heard(report("pg1", lsn=LSN + 70), age_s=40.0))

    assert (shown.known, shown.known_age_s) == (Position(2, LSN + 70), 40.0)
    assert shown.lost_bytes == 70


def test_somebody_else_who_has_more_counts_as_known():
    shown = seen_by_anna(contested(), heard(report("pg3", lsn=LSN - 5), report("pg2", lsn=LSN + 5)))

    assert (shown.known, shown.accepts.known, shown.lost_bytes) == (Position(2, LSN), Position(2, LSN + 5), 10)


def test_a_target_that_has_told_no_position_cannot_be_accepted():
    shown = seen_by_anna(contested(), heard(report("pg2")))

    assert (shown.accepts, shown.lost_bytes) == (None, None)
    assert shown.known_age_s is None, "nobody said when"


def test_r10_in_asynchronous_mode_the_objection_is_the_lag():
    shown = seen_by_anna(vacant(), heard(report("pg3", lsn=LSN - LIMIT - 1)))

    assert shown.objection.startswith("candidate.lagging: ")
    assert seen_by_anna(vacant(), STANDBYS).objection == ""


def test_a_running_operation_and_its_target_do_not_change_what_the_rules_say():
    present = vacant(operations=(operation(target="pg3"),))

    assert [c.member for c in field(present, STANDBYS, read_policy(present.config.document)).candidates if c.wins] == [
        "pg2"
    ]


def test_times_that_are_none_have_nothing_between_them():
    assert seconds_between("2026-11-23T05:00:00.000Z", "2026-11-23T05:00:41+00:00") == 41.0
    for begin, end in (("", AT), (AT, ""), ("yesterday", AT), (AT, "2026-11-23T05:00:41")):
        assert seconds_between(begin, end) is None
