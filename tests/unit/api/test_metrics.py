"""`/metrics` as Prometheus reads it: its own parser judges every page."""

import math
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from appliance.api.exposition import Page
from appliance.api.metrics import metrics
from appliance.cluster.config import Policy
from appliance.cluster.state import NodeRole, Operation, OperationKind, Phase, SyncSet, SyncVersion
from appliance.ha.seen import DirectoryKind, DirectorySeen

from .building import LSN, TAKEN_S, ask, member, published, report, seen, standby, state

PATRONI = {
    "patroni_version": "gauge",
    "patroni_postgres_running": "gauge",
    "patroni_postmaster_start_time": "gauge",
    "patroni_primary": "gauge",
    "patroni_xlog_location": "counter",
    "patroni_standby_leader": "gauge",
    "patroni_replica": "gauge",
    "patroni_sync_standby": "gauge",
    "patroni_quorum_standby": "gauge",
    "patroni_xlog_received_location": "counter",
    "patroni_xlog_replayed_location": "counter",
    "patroni_xlog_replayed_timestamp": "gauge",
    "patroni_xlog_paused": "gauge",
    "patroni_postgres_streaming": "gauge",
    "patroni_postgres_in_archive_recovery": "gauge",
    "patroni_postgres_server_version": "gauge",
    "patroni_cluster_unlocked": "gauge",
    "patroni_failsafe_mode_is_active": "gauge",
    "patroni_failsafe_mode_enabled": "gauge",
    "patroni_postgres_timeline": "counter",
    "patroni_dcs_last_seen": "gauge",
    "patroni_pending_restart": "gauge",
    "patroni_is_paused": "gauge",
    "patroni_postgres_state": "gauge",
    "patroni_failover_priority": "gauge",
}
"""Names and kinds of Patroni 4.1, without the members of its failsafe mode, which there is not."""


def families(value, now_s=TAKEN_S):
    """Kinds by name, values by name and own labels; each page is one that Prometheus reads, nothing in it twice."""
    text = metrics(value, now_s)
    lines = text.splitlines()
    kinds = dict(line.split()[2:] for line in lines if line.startswith("# TYPE "))
    read = [sample for family in parse(text) for sample in family.samples]
    written = [line for line in lines if not line.startswith("#")]
    assert len(lines) == 2 * len(kinds) + len(written)
    assert {(s.labels["scope"], s.labels["name"]) for s in read} == {(value.cluster, value.node)}
    # the parser calls a counter without it `_total`
    values = {
        (s.name if s.name in text else s.name.removesuffix("_total"), *own_labels(s)): s.value
        for s in read
        if math.isfinite(s.value)
    }
    assert len(values) == len(written)
    return kinds, values


def own_labels(sample):
    return [value for label, value in sample.labels.items() if label not in {"scope", "name"}]


def samples(value, now_s=TAKEN_S):
    return families(value, now_s)[1]


def test_every_name_of_patroni_is_there_with_its_kind():
    kinds = families(published())[0]
    assert {name: kind for name, kind in kinds.items() if name.startswith("patroni_")} == PATRONI
    assert all(name.startswith("appliance_") for name in kinds if name not in PATRONI)


def test_a_primary_in_patronis_words():
    shown = samples(published())
    assert shown["patroni_version",] == 40104
    assert shown["patroni_postmaster_start_time",] == 1795410000.123456
    assert shown["patroni_postgres_server_version",] == 150014
    assert (shown["patroni_xlog_location",], shown["patroni_xlog_received_location",]) == (LSN, 0)
    assert (shown["patroni_primary",], shown["patroni_replica",], shown["patroni_postgres_streaming",]) == (1, 0, 0)
    assert (shown["patroni_postgres_running",], shown["patroni_postgres_state",]) == (1, 5)
    assert (shown["patroni_postgres_timeline",], shown["patroni_cluster_unlocked",]) == (2, 0)
    assert shown["patroni_dcs_last_seen",] == 1_789_999_999


def test_a_standby_in_patronis_words():
    value = replace(
        standby(),
        replay_timestamp="2026-11-23 05:00:00.500000+00:00",
        replay_paused=True,
        policy=Policy(synchronous_mode="quorum"),
        state=state(sync=(SyncVersion(3, 4, SyncSet(1, frozenset({"pg1", "pg2"}))),)),
    )
    shown = samples(value)
    assert (shown["patroni_xlog_location",], shown["patroni_xlog_replayed_location",]) == (0, LSN)
    assert shown["patroni_xlog_replayed_timestamp",] == 1795410000.5
    assert shown["patroni_xlog_paused",] == 1
    assert (shown["patroni_primary",], shown["patroni_replica",], shown["patroni_postgres_streaming",]) == (0, 1, 1)
    assert (shown["patroni_sync_standby",], shown["patroni_quorum_standby",]) == (0, 1)
    assert shown["appliance_synchronous_members",] == 2


@pytest.mark.parametrize(
    ("tags", "priority"), [({}, 1), ({"failover_priority": 7}, 7), ({"nofailover": True, "failover_priority": 7}, 0)]
)
def test_the_priority_is_what_the_tags_say(tags, priority):
    assert samples(standby(tags=tags))["patroni_failover_priority",] == priority


@pytest.mark.parametrize(("status", "number"), [("starting", 6), ("crashed", 14), ("what is this", -1)])
def test_a_postgresql_that_does_not_run(status, number):
    value = seen(published(), instance=None, postmaster=None)
    shown = samples(replace(value, report=replace(value.report, status=status, running=False)))
    assert (shown["patroni_postgres_running",], shown["patroni_postgres_state",]) == (0, number)
    assert (shown["patroni_postmaster_start_time",], shown["patroni_xlog_location",]) == (0, 0)


def test_the_lease_shrinks_with_the_age_of_what_is_published():
    assert samples(published())["appliance_lease_left_seconds",] == 5.5
    late = samples(published(), TAKEN_S + 6)
    assert (late["appliance_lease_left_seconds",], late["appliance_primary",]) == (0, 0)
    assert (late["appliance_snapshot_age_seconds",], late["appliance_quorum",]) == (6, 0)
    assert late["appliance_quorum_contact_age_seconds",] == pytest.approx(6.2)
    assert late["appliance_problems", "stale"] == 1
    assert samples(published())["appliance_primary",] == 1
    assert samples(standby())["appliance_primary",] == samples(standby())["appliance_lease_left_seconds",] == 0


def test_what_is_agreed():
    operation = Operation("1", OperationKind.SWITCHOVER, "me", "", "pg1", "pg2", 4, Phase.DONE)
    others = (replace(operation, id="2", phase=Phase.FAILED), replace(operation, id="3", phase=Phase.ELECTING))
    shown = samples(published(state=state(operations=(operation, *others))))
    changes = ("bootstrap", "failover", "switchover", "reappointed")
    assert [shown["appliance_primary_changes", change] for change in changes] == [1, 1, 0, 0]
    phases = ("requested", "stopping", "electing", "promoting", "done", "failed")
    assert [shown["appliance_operations", phase] for phase in phases] == [0, 0, 1, 0, 1, 1]
    assert [shown["appliance_members", role] for role in ("data", "witness", "learner")] == [3, 0, 0]
    assert (shown["appliance_epoch",], shown["appliance_config_version",]) == (4, 3)
    assert shown["appliance_member_lag_bytes", "pg2"] == 0
    assert ("appliance_member_lag_bytes", "pg1") not in shown
    assert shown["appliance_member_report_age_seconds", "pg3"] == 0.3


def test_the_replica():
    raft = replace(
        published().raft,
        fsync_count=9,
        fsync_total_s=0.25,
        tick_late_longest_s=0.5,
        ticks_late=2,
        refused={"junk": 3, "tls": 0},
        peers={"pg2": True, "pg3": False},
        certificate_expires_s=1.8e9,
    )
    kinds, shown = families(published(raft=raft))
    assert (shown["appliance_raft_term",], shown["appliance_raft_is_leader",], shown["appliance_raft_votes",]) == (
        7,
        1,
        1,
    )
    assert (shown["appliance_raft_applied_index",], shown["appliance_raft_tick_late_seconds",]) == (42, 0.5)
    assert kinds["appliance_raft_fsync_seconds"] == "summary"
    assert (shown["appliance_raft_fsync_seconds_count",], shown["appliance_raft_fsync_seconds_sum",]) == (9, 0.25)
    assert (kinds["appliance_raft_ticks_late_total"], shown["appliance_raft_ticks_late_total",]) == ("counter", 2)
    assert [shown["appliance_raft_refusals_total", reason] for reason in raft.refused] == [3, 0]
    assert [shown["appliance_raft_peer_connected", peer] for peer in raft.peers] == [1, 0]
    assert shown["appliance_raft_certificate_expiry_timestamp_seconds",] == 1.8e9
    assert ("appliance_raft_certificate_expiry_timestamp_seconds",) not in samples(published())


def test_a_witness_has_no_postgresql():
    value = seen(
        published("pg3"),
        me=member("pg3", NodeRole.WITNESS),
        directory=DirectorySeen(DirectoryKind.MISSING),
        postmaster=None,
        instance=None,
    )
    shown = samples(replace(value, report=report("pg3", status="stopped", running=False)))
    assert (shown["patroni_primary",], shown["patroni_replica",], shown["patroni_postgres_running",]) == (0, 0, 0)


def test_names_are_data():
    value = replace(published(), node='a"b\\n\nc{}é', cluster="}")
    assert samples(value)["appliance_epoch",] == 4


def test_a_label_and_a_number_as_they_are_written():
    page = Page(scope="s")
    page.gauge("a_seconds", "Why.", 1.5)
    page.gauge("b", "No value.", None)
    page.gauges("c", "More.", "peer", {'q"': True})
    assert page.text() == (
        '# HELP a_seconds Why.\n# TYPE a_seconds gauge\na_seconds{scope="s"} 1.5\n'
        '# HELP c More.\n# TYPE c gauge\nc{scope="s",peer="q\\""} 1\n'
    )


@pytest.mark.parametrize("path", ["/metrics", "/metrics/x?name=1"])
def test_over_http(http, path):
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {family.name for family in parse(answer.text)} >= {"patroni_primary", "appliance_raft_tick_late_seconds"}
    for method in ("HEAD", "OPTIONS"):
        said = http.request(method, path)
        assert (said.status_code, said.content, said.headers["content-length"]) == (200, b"", "0")


def test_a_path_that_is_not_tidy(server):
    assert ask(server, "GET", "//metrics/").getheader("content-type").startswith("text/plain")
