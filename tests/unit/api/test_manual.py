"""Patroni's POST /switchover and POST /failover over real HTTP: its codes and texts."""

import base64
import threading
import time

import pytest

from appliance.api import manual
from appliance.api.published import OperatorAnswer
from appliance.cluster.state import Phase


def post(client, path, body, node=None, *, phase=None, primary=None, message=""):
    """Post, and let the operation end that way meanwhile."""

    def end():
        while node.value.state.running_operation() is None:
            time.sleep(0.01)
        node.advance(phase, primary=primary, message=message)

    ending = threading.Thread(target=end) if phase is not None else None
    if ending is not None:
        ending.start()
    answer = client.post(path, json=body)
    if ending is not None:
        ending.join()
    assert answer.headers["content-type"].startswith("text/html")
    return answer.status_code, answer.text


def test_a_switchover(trusted, node):
    body = {"leader": "pg1", "candidate": "pg2"}
    answer = post(trusted, "/switchover", body, node, phase=Phase.DONE, primary="pg2")
    assert answer == (200, 'Successfully switched over to "pg2"')
    asked = node.requests[0]
    assert (asked.kind, asked.target, asked.expected_primary) == ("switchover", "pg2", "pg1")


def test_a_switchover_to_anybody(trusted, node):
    answer = post(trusted, "/switchover/", {"leader": "pg1"}, node, phase=Phase.DONE, primary="pg3")
    assert answer == (200, 'Successfully switched over to "pg3"')


def test_a_switchover_that_ends_elsewhere(trusted, node):
    body = {"leader": "pg1", "member": "pg2"}
    answer = post(trusted, "/switchover", body, node, phase=Phase.DONE, primary="pg3")
    assert answer == (200, 'Switched over to "pg3" instead of "pg2"')


def test_a_failover(trusted, node):
    answer = post(trusted, "/failover", {"candidate": "pg2"}, node, phase=Phase.DONE, primary="pg2")
    assert answer == (200, 'Successfully failed over to "pg2"')
    assert node.requests[0].kind == "failover"


def test_a_failover_from_a_leader_is_a_switchover(trusted, node):
    body = {"leader": "pg1", "candidate": "pg2"}
    assert post(trusted, "/failover", body, node, phase=Phase.DONE, primary="pg2")[0] == 200
    assert node.requests[0].kind == "switchover"


def test_one_that_fails_and_one_that_does_not_end(trusted, node, monkeypatch):
    monkeypatch.setattr(manual, "RESULT_LIMIT_S", 0.3)
    body = {"leader": "pg1"}
    answer = post(trusted, "/switchover", body, node, phase=Phase.FAILED, message="pg2 <b> went away")
    assert answer == (503, "Switchover failed: pg2 &lt;b> went away")
    assert post(trusted, "/switchover", body) == (503, "Switchover status unknown")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("cluster.primary_name", "leader name does not match"),
        ("member.unknown", "candidate does not exists"),
        ("candidate.lagging", "switchover is not possible"),
    ],
)
def test_a_refusal_is_412_and_says_why(trusted, node, code, said):
    node.answer = OperatorAnswer("refused", "", code, "because", "do this")
    assert post(trusted, "/switchover", {"leader": "pg1"}) == (412, f"{said}: because: do this")


def test_no_quorum_and_unknown_are_503(trusted, node):
    node.answer = OperatorAnswer("no_quorum")
    assert post(trusted, "/switchover", {"leader": "pg1"}) == (503, "switchover is not possible: no quorum")
    node.answer = OperatorAnswer("unknown", "", "", "no answer")
    status, text = post(trusted, "/failover", {"candidate": "pg2"})
    assert status == 503
    assert text.startswith("Failover status unknown: no answer; operation ")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/switchover", {}, 400),
        ("/switchover", {"candidate": "pg2"}, 400),
        ("/switchover", {"leader": "pg1", "candidate": "pg1"}, 400),
        ("/switchover", {"leader": ["pg1"]}, 400),
        ("/failover", {"candidate": "x" * 201}, 400),
        ("/switchover", [], 400),
        ("/failover", {}, 400),
        ("/failover", {"leader": "pg1"}, 400),
        ("/switchover", {"leader": "pg1", "scheduled_at": "2026-12-01T02:00+01:00"}, 501),
    ],
)
def test_bodies_that_do_not_do(trusted, node, path, body, status):
    assert post(trusted, path, body)[0] == status
    assert node.requests == []


def test_bodies_that_are_none(trusted):
    assert trusted.post("/switchover", content=b"").status_code == 400
    assert trusted.post("/switchover", content=b"{").status_code == 400
    assert trusted.post("/switchover", content=(part for part in [b"{}"])).status_code == 411
    assert trusted.post("/switchover", content=b" " * 70000).status_code == 413


def test_a_name_that_no_answer_could_repeat_is_refused(trusted, node):
    """JSON may hold halves of characters."""
    for path, body in (("/failover", b'{"candidate": "\\udfff"}'), ("/switchover", b'{"leader": "\\ud800"}')):
        answer = trusted.post(path, content=body)
        assert (answer.status_code, answer.text) == (400, "leader and candidate must be names of members")
    assert node.requests == []


def test_it_needs_a_token_and_takes_it_as_a_password_too(http, node):
    denied = http.post("/switchover", json={"leader": "pg1"})
    assert denied.status_code == 401
    assert "Basic" in denied.headers["www-authenticate"]
    assert node.requests == []
    basic = base64.b64encode(b"anybody:s3cret-token").decode()
    allowed = http.post("/switchover", json={}, headers={"authorization": f"Basic {basic}"})
    assert allowed.status_code == 400
