"""`status`: what it shows, and what its exit code says."""

import io
import json
from dataclasses import replace

import pytest
import yaml

from appliance.api.server import ApiServer
from appliance.cli import status
from appliance.cli.output import Format, Table, rendered, say
from appliance.cluster.state import LeaseStatus
from appliance.ha.seen import CertificateSeen, WatchdogSeen
from tests.unit.api import building


def test_a_healthy_cluster_on_one_screen(appliance, url):
    found = appliance("status", "--api", url, "--exit-code")

    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0].startswith("shop · system 7423474350493388827 · ✓ HEALTHY")
    assert lines[2].split() == ["MEMBER", "HOST", "ROLE", "STATE", "TL", "LAG", "AGE", "RAFT", "DOING"]
    assert lines[3].split()[:6] == ["pg1", "10.0.0.1:5432", "●", "primary", "running", "2"]
    assert "pg2     10.0.0.2:5432  standby    streaming  2   0 B" in lines[4]
    assert "Primary     pg1 · epoch 4 · lease held, 5.5 s left" in lines
    assert "Last change 2026-11-23T05:00:00+00:00 failover to pg1: pg3 was silent" in lines


def test_a_copy_under_way_is_told_once(appliance, node, url):
    copying = "clone for 3 s, copying, 40 % of 30 MiB"
    report = replace(node.value.reports["pg3"].report, running=False, streaming=False, doing=copying, progress=copying)
    heard = replace(node.value.reports["pg3"], report=report)
    node.value = replace(node.value, reports={**node.value.reports, "pg3": heard})
    lines = [line for line in appliance("status", "--api", url).out.splitlines() if "clone" in line]

    assert [line.count(copying) for line in lines] == [1, 1], "in the table and below the problem"


def test_json_and_yaml_are_the_object_of_the_api(appliance, url):
    document = json.loads(appliance("status", "--api", url, "-o", "json").out)

    assert (document["verdict"], document["primary"]) == ("healthy", "pg1")
    assert yaml.safe_load(appliance("status", "--api", url, "-o", "yaml").out)["members"] == document["members"]


def test_names_and_tab_separated(appliance, url):
    assert appliance("status", "--api", url, "-o", "name").out == "pg1\npg2\npg3\n"
    rows = [line.split("\t") for line in appliance("members", "list", "--api", url, "-o", "tsv").out.splitlines()]
    assert rows[0] == ["MEMBER", "ROLE", "STATE", "POSTGRESQL", "RAFT", "VOTE"]
    assert rows[2] == ["pg2", "data", "streaming", "10.0.0.2:5432", "10.0.0.2:7400", "voter"]


def test_a_cell_keeps_within_its_column():
    assert rendered({}, Table(["A", "B"], [["one\ttwo\nthree", "4"]]), Format.TSV) == ["A\tB", "one two three\t4"]


def test_it_finds_the_node_on_this_host_by_its_file(appliance, config, monkeypatch):
    assert appliance("status", "--config", config).code == 0
    monkeypatch.setenv("APPLIANCE_API", "")
    monkeypatch.setattr("appliance.cli.target.SYSTEM_CONFIG", config)

    assert appliance("status").code == 0


def degraded(value):
    reports = {name: seen for name, seen in value.reports.items() if name != "pg3"}
    return replace(value, reports=reports)


def critical(value):
    return replace(value, state=replace(value.state, lease=LeaseStatus.EXPIRED))


def stale(value):
    return replace(building.seen(value, contact_s=7.5), last_renewal_s=None)


@pytest.mark.parametrize(
    ("changed", "plain", "asked", "words"),
    [
        (degraded, 0, 10, "! member.silent  pg3 has not reported"),
        (critical, 0, 11, "✗ cluster.no_primary"),
        (stale, 3, 3, "last known view of pg1, 7.5 s old"),
    ],
)
def test_exit_codes_and_problems(appliance, node, url, changed, plain, asked, words):
    node.value = changed(node.value)
    found = appliance("status", "--api", url)

    assert found.code == plain
    assert words in found.out
    assert appliance("status", "--api", url, "--exit-code").code == asked


@pytest.mark.parametrize(
    ("sync", "words"),
    [
        ({"mode": "quorum", "k": 1, "members": ["pg2", "pg3"]}, "1 of pg2, pg3"),
        ({"mode": "quorum", "k": 0, "members": []}, "no standby: nobody else becomes primary by itself"),
        ({"mode": "off", "k": 0, "members": []}, "asynchronous: a failover loses what no standby had received"),
    ],
)
def test_what_a_failover_would_lose_is_told_by_the_mode(sync, words):
    assert status._durability(sync) == words


def test_a_node_with_a_quorum_is_believed_before_one_without(appliance, url):
    behind = building.Node()
    behind.value = stale(building.published("pg2"))
    other = ApiServer(behind, "127.0.0.1:0", None, "t")
    other.start()
    try:
        host, port = other.addresses[0]
        found = appliance("status", "--api", f"127.0.0.1:1,http://{host}:{port},{url}", "-o", "json")
    finally:
        other.stop(3.0)

    assert found.code == 0
    assert json.loads(found.out)["node"] == "pg1"


def test_watch_draws_until_it_is_interrupted(appliance, url, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    found = appliance("status", "--watch", "--interval", "250ms", "--api", url)

    assert found.code == 0
    assert slept == [0.25, 0.25]
    assert found.out.count("HEALTHY") == 2


def test_watch_goes_on_while_nobody_answers(appliance, monkeypatch):
    monkeypatch.setattr(status.time, "sleep", interrupt)
    found = appliance("status", "--watch", "--api", "127.0.0.1:1")

    assert found.code == 0
    assert "no node answers" in found.out


def interrupt(_seconds):
    raise KeyboardInterrupt


def test_a_plain_terminal_gets_plain_signs():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say(stream, "✓ pg1 · fine")

    assert stream.buffer.getvalue() == b"+ pg1 - fine\n"


def test_an_answer_that_is_no_cluster_is_3(appliance, node, url, monkeypatch):
    monkeypatch.setattr(node, "published", lambda: 1 / 0)
    found = appliance("status", "--api", url)

    assert found.code == 3
    assert "HTTP 500" in found.err


def test_the_watchdogs_of_members_that_shall_have_one_are_shown(appliance, node, url):
    assert "Watchdog" not in appliance("status", "--api", url).out

    watchdogs = {
        "pg1": WatchdogSeen("/dev/watchdog", required=True, armed_s=2),
        "pg2": WatchdogSeen("/dev/watchdog", required=False),
        "pg3": WatchdogSeen("/dev/watchdog", required=True, problem="/dev/watchdog: No such file or directory"),
    }
    heard = {
        name: replace(seen, report=replace(seen.report, watchdog=watchdogs[name]))
        for name, seen in node.value.reports.items()
    }
    own = replace(node.value.report, watchdog=watchdogs["pg1"])
    node.value = replace(node.value, reports=heard, report=own)

    out = appliance("status", "--api", url).out
    assert "Watchdog    pg1 armed, 2 s (required) · pg2 ready · pg3 not usable (required)" in out
    assert "watchdog.unusable  the watchdog of pg3 is not usable: /dev/watchdog: No such file or directory" in out


def test_the_certificate_that_expires_first_is_named(appliance, node, url):
    assert "TLS" not in appliance("status", "--api", url).out

    ends = {"pg1": "2027-11-23T12:00:00+00:00", "pg2": "2027-10-01T08:30:00+00:00", "pg3": ""}
    heard = {
        name: replace(seen, report=replace(seen.report, certificate=CertificateSeen(ends[name])))
        for name, seen in node.value.reports.items()
    }
    node.value = replace(node.value, reports=heard)

    lines = appliance("status", "--api", url).out.splitlines()
    assert "TLS         certificates until 2027-10-01 08:30Z, when that of pg2 expires" in lines
