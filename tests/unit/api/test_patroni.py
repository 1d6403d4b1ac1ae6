"""The documents that tools written for Patroni read: keys, words and units as there."""

from dataclasses import replace

import pytest

from appliance.api.patroni import cluster_document, history_document, patroni_document, read
from appliance.cluster.config import Policy
from appliance.cluster.state import Change, Config, HistoryEntry, LeaseStatus, NodeRole, SyncSet, SyncVersion, Timeline
from appliance.ha.seen import DirectoryKind, DirectorySeen, ReportSeen

from .building import HISTORY, LSN, TAKEN_S, member, published, report, seen, standby, state, witness

IDENTITY = {"version": "4.1.4", "scope": "shop", "implementation": "pg-appliance 0.1.0"}


def test_a_primary_in_full():
    assert patroni_document(published(), TAKEN_S) == {
        "state": "running",
        "role": "primary",
        "timeline": 2,
        "postmaster_start_time": "2026-11-23 05:00:00.123456+00:00",
        "server_version": 150014,
        "xlog": {"location": LSN},
        "dcs_last_seen": 1_789_999_999,
        "database_system_identifier": "7423474350493388827",
        "patroni": IDENTITY | {"name": "pg1"},
    }


def test_a_standby_in_full():
    xlog = {"received_location": LSN, "replayed_location": LSN, "replayed_timestamp": None, "paused": False}
    assert patroni_document(standby(tags={"site": "berlin"}), TAKEN_S) == {
        "state": "running",
        "role": "replica",
        "timeline": 2,
        "postmaster_start_time": "2026-11-23 05:00:00.123456+00:00",
        "server_version": 150014,
        "xlog": xlog,
        "replication_state": "streaming",
        "dcs_last_seen": 1_789_999_999,
        "tags": {"site": "berlin"},
        "database_system_identifier": "7423474350493388827",
        "patroni": IDENTITY | {"name": "pg2"},
    }


def test_without_an_answer_the_keys_of_a_running_server_are_absent():
    down = seen(published(report=report("pg1", running=False, in_recovery=None, status="stopped")), instance=None)
    document = patroni_document(down, TAKEN_S)
    assert document["state"] == "stopped"
    assert document["role"] == "primary"
    assert not {"xlog", "timeline", "server_version", "postmaster_start_time"} & set(document)


def test_an_empty_directory_is_uninitialized():
    empty = seen(published("pg2"), instance=None, directory=DirectorySeen(DirectoryKind.EMPTY))
    assert patroni_document(empty, TAKEN_S)["role"] == "uninitialized"


@pytest.mark.parametrize(
    ("value", "key", "shown"),
    [
        (published(), "cluster_unlocked", False),
        (published(state=state(lease=LeaseStatus.EXPIRED)), "cluster_unlocked", True),
        (replace(seen(published(), contact_s=None), last_renewal_s=None), "cluster_unlocked", True),
        (published(), "pending_restart", False),
        (published(report=report("pg1", pending_restart=True)), "pending_restart", True),
        (published("pg2"), "sync_standby", False),
        (
            published("pg2", state=state(sync=(SyncVersion(1, 4, SyncSet(1, frozenset({"pg2"}), ("pg2",))),))),
            "sync_standby",
            True,
        ),
        (
            published(
                "pg2",
                policy=replace(Policy(), synchronous_mode="quorum"),
                state=state(sync=(SyncVersion(1, 4, SyncSet(1, frozenset({"pg2"}))),)),
            ),
            "quorum_standby",
            True,
        ),
        (published(), "pause", False),
    ],
)
def test_flags_are_absent_when_false(value, key, shown):
    document = patroni_document(value, TAKEN_S)
    assert (key in document) is shown
    assert document.get(key, True) is True


def test_last_contact_is_with_a_quorum_and_not_with_oneself():
    alone = replace(seen(published(), contact_s=None), last_renewal_s=None)
    assert patroni_document(alone, TAKEN_S)["dcs_last_seen"] == 0
    late = replace(seen(published(), contact_s=30.0), last_renewal_s=None)
    assert patroni_document(late, TAKEN_S + 5)["dcs_last_seen"] == 1_789_999_970


def test_a_start_time_that_is_no_time_is_passed_on():
    odd = published(report=report("pg1", postmaster_start="yesterday"))
    assert patroni_document(odd, TAKEN_S)["postmaster_start_time"] == "yesterday"


def test_the_cluster_in_full():
    lags = {
        "receive_lsn": "0/3000060",
        "receive_lag": 0,
        "replay_lsn": "0/3000000",
        "replay_lag": 96,
        "lsn": "0/3000060",
        "lag": 0,
    }
    base = published()
    reports = {**base.reports, "pg2": ReportSeen(report("pg2", replayed_lsn=LSN - 96), 0.3)}
    value = replace(base, reports=reports)
    document = cluster_document(value, TAKEN_S)
    assert document["scope"] == "shop"
    assert document["members"][:2] == [
        {
            "name": "pg1",
            "role": "leader",
            "state": "running",
            "api_url": "http://10.0.0.1:8008/patroni",
            "host": "10.0.0.1",
            "port": 5432,
            "timeline": 2,
        },
        {
            "name": "pg2",
            "role": "replica",
            "state": "streaming",
            "api_url": "http://10.0.0.2:8008/patroni",
            "host": "10.0.0.2",
            "port": 5432,
            "timeline": 2,
            **lags,
        },
    ]
    assert [m["name"] for m in document["members"]] == ["pg1", "pg2", "pg3"]


def test_a_member_that_is_silent_for_a_lease_is_unknown():
    value = published()
    late = replace(value, reports={"pg2": ReportSeen(report("pg2"), 6.1)})
    members = {m["name"]: m for m in cluster_document(late, TAKEN_S)["members"]}
    for name in ("pg2", "pg3"):
        assert members[name]["state"] == "unknown"
        assert "timeline" not in members[name]
        for key in ("receive_lsn", "receive_lag", "replay_lsn", "replay_lag", "lsn", "lag"):
            assert members[name][key] == "unknown"


def test_lag_is_never_negative():
    ahead = published(reports={"pg2": ReportSeen(report("pg2", lsn=LSN + 500), 0.1)})
    assert cluster_document(ahead, TAKEN_S)["members"][1]["lag"] == 0


def test_a_witness_is_no_member_for_patroni_and_ipv6_loses_its_brackets():
    members = {
        "pg1": replace(member("pg1"), postgres="[fd00::1]:5433"),
        "w1": member("w1", NodeRole.WITNESS),
    }
    shown = cluster_document(published(state=state(members=members)), TAKEN_S)["members"]
    assert [(m["name"], m["host"], m["port"]) for m in shown] == [("pg1", "fd00::1", 5433)]


def test_a_witness_says_what_it_is():
    shown = patroni_document(witness(), TAKEN_S)
    assert (shown["role"], "xlog" in shown) == ("witness", False)


def test_synchronous_standbys_have_their_role():
    sync = (SyncVersion(1, 4, SyncSet(1, frozenset({"pg2"}), ("pg2",))),)
    members = cluster_document(published(state=state(sync=sync)), TAKEN_S)["members"]
    assert [m["role"] for m in members] == ["leader", "sync_standby", "replica"]


def test_history_says_which_timeline_ended_where():
    assert history_document(state()) == [[1, 0x2000000, "pg3 was silent", "2026-11-23T05:00:00+00:00", "pg1"]]


def test_history_follows_timelines_with_gaps_and_leaves_out_what_never_opened():
    more = (
        HistoryEntry("t3", Change.FAILOVER, 6, 4, 0x5000000, "pg1", "pg2", "gap"),
        HistoryEntry("t4", Change.SWITCHOVER, 7, 5, 0, "pg2", "pg3", "not open yet"),
    )
    timelines = (*state().timelines, Timeline(4, 6, "pg2", 2, 0x5000000), Timeline(5, 7, "pg3", 4))
    lines = history_document(state(history=HISTORY + more, timelines=timelines))
    assert [line[:2] for line in lines] == [[1, 0x2000000], [2, 0x5000000]]


def test_config_is_the_document_or_502():
    assert read(published(), "/config", {}, TAKEN_S) == (
        200,
        {"ttl": "6s", "postgresql": {"parameters": {"work_mem": "8MB"}}},
    )
    assert read(published(state=state(config=Config())), "/config", {}, TAKEN_S) == (502, None)
    assert read(published(), "/failsafe", {}, TAKEN_S) == (502, None)
