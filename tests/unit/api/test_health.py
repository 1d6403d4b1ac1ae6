"""Every health route as a pure function: who gets 200, and what turns it into 503."""

from dataclasses import replace

import pytest

from appliance.api.health import health, tidy
from appliance.cluster.config import Policy
from appliance.cluster.state import LeaseStatus, SyncSet, SyncVersion
from appliance.ha.seen import LeaseSeen, PostmasterSeen

from .building import LSN, MIB, TAKEN_S, instance, published, seen, standby, state, witness

PRIMARY_PATHS = ("/", "/primary", "/leader", "/master", "/read-write")
STANDBY_PATHS = ("/replica", "/async", "/asynchronous")
BOTH_PATHS = ("/read-only", "/health", "/liveness", "/readiness")
NOBODYS_PATHS = (
    "/standby-leader", "/standby_leader", "/sync", "/synchronous", "/quorum", "/metrics", "/nonsense", "/favicon.ico",
)  # fmt: skip


def ask(value, path, age_s=0.0, **query):
    return health(value, path, query, TAKEN_S + age_s)


@pytest.mark.parametrize("path", [*PRIMARY_PATHS, *BOTH_PATHS, "/read-only-sync", "/read-only-quorum"])
def test_a_primary_answers(path):
    assert ask(published(), path) == 200


@pytest.mark.parametrize("path", [*STANDBY_PATHS, *NOBODYS_PATHS])
def test_a_primary_does_not_answer(path):
    assert ask(published(), path) == 503


@pytest.mark.parametrize("path", [*PRIMARY_PATHS, *STANDBY_PATHS, *BOTH_PATHS, *NOBODYS_PATHS])
def test_a_witness_is_alive_and_takes_no_client(path):
    assert ask(witness(), path) == (200 if path == "/liveness" else 503)


@pytest.mark.parametrize("path", [*STANDBY_PATHS, *BOTH_PATHS])
def test_a_standby_answers(path):
    assert ask(standby(), path) == 200


@pytest.mark.parametrize("path", [*PRIMARY_PATHS, *NOBODYS_PATHS, "/read-only-sync", "/read-only-quorum"])
def test_a_standby_does_not_answer(path):
    assert ask(standby(), path) == 503


@pytest.mark.parametrize(
    ("path", "tidied"),
    [
        ("/", "/"),
        ("", "/"),
        ("//", "/"),
        ("//leader", "/leader"),
        ("/primary/", "/primary"),
        ("///read-only///", "/read-only"),
        ("/patroni//x/", "/patroni/x"),
    ],
)
def test_paths_are_taken_tolerantly(path, tidied):
    assert tidy(path) == tidied
    assert ask(published(), path) == ask(published(), tidied)


@pytest.mark.parametrize(
    ("path", "on_primary", "on_standby"),
    [
        # By substring and in this order, as Patroni does.
        ("/primary/anything", 200, 503),
        ("/is-it-primary", 200, 503),
        ("/x/replica", 503, 200),
        ("/my-standby-leader", 503, 503),
        ("/read-only-replica", 503, 200),
        ("/healthz", 200, 200),
        ("/sync/extra", 503, 503),
        ("/liveness/x", 200, 200),
        ("/readiness/", 200, 200),
    ],
)
def test_routes_match_by_substring(path, on_primary, on_standby):
    assert ask(published(), path) == on_primary
    assert ask(standby(), path) == on_standby


def _appointment(**changes):
    base = state()
    return published(state=replace(base, appointment=replace(base.appointment, **changes)))


NOT_WRITABLE = {
    "somebody else is primary": _appointment(node="pg2"),
    "not opened yet": _appointment(opened=False),
    "lease expired in the log": published(state=state(lease=LeaseStatus.EXPIRED)),
    "lease given back": published(state=state(lease=LeaseStatus.RELEASED)),
    "nobody was ever appointed": published(state=state(appointment=None, lease=LeaseStatus.NONE)),
    "no lease here": seen(published(), lease=None),
    "lease of an older epoch": seen(published(), lease=LeaseSeen(3, 5.5)),
    "lease run out": seen(published(), lease=LeaseSeen(4, 0.0)),
    "PostgreSQL does not answer": seen(published(), instance=None, answer_age_s=2.1),
    "a new postmaster has not answered yet": seen(
        published(), instance=None, answer_age_s=1.5, postmaster=PostmasterSeen(1.4)
    ),
    "PostgreSQL does not answer and is being stopped": seen(published(), instance=None, stopping_s=0.1),
    "PostgreSQL does not answer and was not opened": seen(_appointment(opened=False), instance=None),
    "no postmaster": seen(published(), postmaster=None),
    "being stopped": seen(published(), stopping_s=0.1),
    "still in recovery": seen(published(), instance=instance(primary=False)),
    "on another timeline": seen(published(), instance=instance(primary=True, timeline=1)),
}


@pytest.mark.parametrize("why", NOT_WRITABLE)
@pytest.mark.parametrize("path", PRIMARY_PATHS)
def test_writes_go_only_to_an_open_and_leased_primary(path, why):
    assert ask(NOT_WRITABLE[why], path) == 503


def test_a_gated_primary_is_alive_and_gets_no_client():
    """R5a; also at a look without an answer."""
    gated = seen(published(), admitted=False, instance=replace(instance(primary=True), admits=False))
    for value in (gated, seen(gated, instance=None, answer_age_s=0.6)):
        assert {ask(value, path) for path in (*PRIMARY_PATHS, "/read-only", "/readiness")} == {503}
        assert ask(value, "/liveness") == ask(value, "/health") == 200


def test_one_look_without_an_answer_moves_no_address():
    busy = seen(published(), instance=None, answer_age_s=0.6)
    for path in (*PRIMARY_PATHS, "/health", "/read-only", "/readiness"):
        assert ask(busy, path) == 200
    assert ask(busy, "/primary", age_s=1.5) == 503
    # What a standby was is not known from the appointment, so it leaves the read pool until it answers.
    assert ask(standby(instance=None, answer_age_s=0.6), "/replica") == 503


def test_a_primary_answers_without_a_quorum_as_long_as_its_lease_lasts():
    cut_off = replace(seen(published(), contact_s=4.0, lease=LeaseSeen(4, 1.5)), last_renewal_s=4.0)
    assert ask(cut_off, "/primary") == 200
    assert ask(cut_off, "/primary", age_s=1.6) == 503


@pytest.mark.parametrize("path", PRIMARY_PATHS)
def test_the_age_of_the_snapshot_is_taken_from_the_lease(path):
    assert ask(published(), path, age_s=5.4) == 200
    assert ask(published(), path, age_s=5.5) == 503


@pytest.mark.parametrize(
    ("value", "path", "dies_s"),
    [
        (published(), "/health", 6.0),
        (published(), "/liveness", 6.0),
        (standby(), "/health", 6.0),
        (standby(), "/replica", 6.0),
        (standby(), "/read-only", 6.0),
        (standby(), "/liveness", 12.0),
        (standby(), "/readiness", 5.8),
    ],
)
def test_a_loop_that_hangs_stops_looking_healthy(value, path, dies_s):
    assert ask(value, path, age_s=dies_s - 0.1) == 200
    assert ask(value, path, age_s=dies_s + 0.1) == 503


def test_a_clock_that_reads_before_the_snapshot_makes_no_lease_longer():
    assert ask(published(), "/primary", age_s=-1.0) == 200
    assert ask(seen(published(), lease=LeaseSeen(4, 0.0)), "/primary", age_s=-100.0) == 503


def test_a_standby_without_a_source_serves_reads_but_is_not_ready():
    fenced = standby(instance=instance(primary=False, streaming=False))
    assert ask(fenced, "/replica") == 200
    assert ask(fenced, "/replica", replication_state="streaming") == 503
    assert ask(fenced, "/readiness") == 503


def test_noloadbalance_leaves_the_read_pool_only():
    quiet = standby(tags={"noloadbalance": True})
    assert ask(quiet, "/replica") == 503
    assert ask(quiet, "/read-only") == 503
    assert ask(quiet, "/health") == 200


def lagging(behind):
    """A standby that has received all and replayed all but `behind` bytes."""
    return standby(instance=replace(instance(primary=False), replayed_lsn=LSN - behind))


@pytest.mark.parametrize(
    ("lag", "behind", "status"),
    [
        ("1MB", MIB, 200),
        ("1MB", MIB + 1, 503),
        ("1048576", MIB, 200),
        ("1048575", MIB, 503),
        ("1024kB", MIB, 200),
        ("0", 0, 200),
        ("0", 1, 503),
        ("2GB", 40 * MIB, 200),
        ("many", 40 * MIB, 200),
        ("-5", 40 * MIB, 200),
        ("10 PB", 40 * MIB, 200),
    ],
)
@pytest.mark.parametrize("path", ["/replica", "/read-only", "/async"])
def test_lag_is_counted_in_bytes_or_postgresqls_units(path, lag, behind, status):
    assert ask(lagging(behind), path, lag=lag) == status


def test_a_primary_in_the_read_pool_never_lags():
    assert ask(published(), "/read-only", lag="0") == 200


def test_an_unknown_primary_position_never_lags():
    value = standby(instance=replace(instance(primary=False), received_lsn=0, replayed_lsn=LSN))
    unknown = replace(value, state=state(last_known=None), reports={})
    assert ask(unknown, "/replica", lag="0") == 200


@pytest.mark.parametrize(
    ("query", "behind", "status"),
    [
        ({}, MIB, 200),
        ({}, MIB + 1, 503),
        ({"lag": "2MB"}, MIB + 1, 200),
        ({"lag": "0", "mode": "write"}, MIB, 200),
        ({"lag": "0", "mode": "apply"}, MIB, 503),
        ({"mode": "else"}, MIB + 1, 503),
    ],
)
def test_readiness_measures_replayed_or_received(query, behind, status):
    assert health(lagging(behind), "/readiness", query, TAKEN_S) == status


def test_readiness_needs_contact_with_a_quorum():
    cut_off = replace(standby(contact_s=6.1), last_renewal_s=None)
    assert ask(cut_off, "/readiness") == 503
    assert ask(replace(cut_off, last_renewal_s=0.1), "/readiness") == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"tag_site": "berlin"}, 200),
        ({"tag_site": "paris"}, 503),
        ({"tag_site": "Berlin"}, 503),
        ({"tag_missing": "x"}, 503),
        ({"tag_fast": "true"}, 200),
        ({"tag_fast": "True"}, 503),
        ({"tag_weight": "1.4"}, 200),
        ({"tag_site": "berlin", "tag_fast": "true"}, 200),
        ({"tag_site": "berlin", "tag_fast": "false"}, 503),
        ({"unknown": "x"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/replica", "/read-only", "/async", "/health"])
def test_tags_filter(path, query, status):
    value = standby(tags={"site": "berlin", "fast": True, "weight": 1.4})
    assert health(value, path, query, TAKEN_S) == status


def test_tags_filter_the_primary_in_a_read_pool_but_not_as_a_primary():
    assert ask(published(), "/primary", tag_site="nowhere") == 200
    assert ask(published(), "/read-only", tag_site="nowhere") == 503


def synchronous(mode, *names):
    value = standby()
    policy = replace(Policy(), synchronous_mode=mode)
    wanted = SyncSet(min(1, len(names)), frozenset(names), names if mode == "on" else ())
    return replace(value, policy=policy, state=state(sync=(SyncVersion(1, 4, wanted),)))


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (synchronous("on", "pg2"), {"/sync", "/synchronous", "/read-only-sync", "/read-only-synchronous"}),
        (synchronous("quorum", "pg2", "pg3"), {"/quorum", "/read-only-quorum"}),
        (synchronous("quorum", "pg3"), {"/async", "/asynchronous"}),
        (synchronous("off"), {"/async", "/asynchronous"}),
    ],
    ids=["sync", "quorum", "outside", "off"],
)
def test_synchronous_names_follow_the_newest_set(value, good):
    names = {
        "/sync", "/synchronous", "/read-only-sync", "/read-only-synchronous",
        "/quorum", "/read-only-quorum", "/async", "/asynchronous",
    }  # fmt: skip
    assert {name for name in names if ask(value, name) == 200} == good


def test_synchronous_names_need_contact():
    cut_off = replace(seen(synchronous("on", "pg2"), contact_s=6.1), last_renewal_s=None)
    assert ask(cut_off, "/sync") == 503
    assert ask(replace(cut_off, state=state(sync=())), "/async") == 503
    assert ask(cut_off, "/replica") == 200
