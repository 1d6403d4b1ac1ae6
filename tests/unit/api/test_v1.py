"""`/api/v1` over real HTTP: reading, asking for a change, and every way of not getting it."""

import threading
import time
from dataclasses import replace

import pytest

from appliance.api import desk as desk_module
from appliance.api import front
from appliance.api.published import OperatorAnswer
from appliance.cluster.state import AcceptedLoss, FailedBootstrap, Phase, Position
from appliance.ha.checks import Check
from tests.harness.load import largest_bodies

from .building import ask, published, seen

CHECKS = (
    Check("member.known", "pg2", True, "10.0.0.2:5432"),
    Check("candidate.lagging", "pg2", False, "9 bytes behind"),
)


def is_problem(answer, status, code):
    body = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"urn:pg-appliance:problem:{code}"
    assert body["title"]
    assert body["detail"]
    return body


def later(wait_s, *steps):
    """Run the steps one after another while a request waits."""

    def run():
        for step in steps:
            time.sleep(wait_s)
            step()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_reads_are_open_and_say_how_old_they_are(http):
    for path in ("cluster", "members", "members/pg2", "operations", "history"):
        answer = http.get(f"/api/v1/{path}")
        assert answer.status_code == 200
        assert answer.headers["x-applied-index"] == "42"
        assert answer.headers["x-applied-age"] == "0.200"
    assert http.get("/api/v1/cluster").json()["verdict"] == "healthy"
    assert [m["name"] for m in http.get("/api/v1/members").json()["members"]] == ["pg1", "pg2", "pg3"]
    assert http.get("/api/v1/members/pg2").json()["role"] == "standby"
    assert [h["change"] for h in http.get("/api/v1/history").json()["history"]] == ["bootstrap", "failover"]


def test_the_replica_is_shown_and_its_leadership_handed_over_by_those_who_may(http, trusted, node):
    shown = http.get("/api/v1/raft").json()
    assert (shown["role"], shown["term"], shown["incarnation"]) == ("leader", 7, 1)
    assert [(member["name"], member["lag"]) for member in shown["members"]] == [("pg1", 0), ("pg2", 1), ("pg3", 38)]
    is_problem(http.post("/api/v1/raft/leader", json={"to": "pg2"}), 401, "access.denied")
    is_problem(trusted.post("/api/v1/raft/leader", json={"two": "pg2"}), 422, "request.invalid")
    assert node.requests == []
    answer = trusted.post("/api/v1/raft/leader", json={"to": "pg2"})
    assert (answer.status_code, answer.json()) == (200, {"message": "as you say"})
    assert (node.requests[0].kind, node.requests[0].target) == ("raft_transfer", "pg2")
    node.answer = OperatorAnswer("refused", code="raft.voter", message="pg9: is no voter")
    is_problem(trusted.post("/api/v1/raft/leader", json={"to": "pg9"}), 409, "raft.voter")


def test_the_configuration_is_shown_with_its_version_and_changed_by_who_says_it(http, trusted, node):
    shown = http.get("/api/v1/config")
    assert (shown.status_code, shown.headers["etag"]) == (200, '"3"')
    assert (shown.json()["version"], shown.json()["document"]["ttl"]) == (3, "6s")
    is_problem(http.patch("/api/v1/config", json={"ttl": "9s"}), 401, "access.denied")
    for without in ({}, {"if-match": "seven"}, {"if-match": '"' + "9" * 5000 + '"'}):
        is_problem(trusted.patch("/api/v1/config", json={"ttl": "9s"}, headers=without), 428, "config.if_match")
    assert node.requests == []

    def apply_it():
        held = node.value.state.config
        node.value = replace(node.value, state=replace(node.value.state, config=replace(held, version=4)))

    thread = later(0.1, apply_it)
    answer = trusted.patch("/api/v1/config", json={"failover": {"fencing": None}}, headers={"if-match": '"3"'})
    thread.join()
    assert (answer.status_code, answer.headers["etag"]) == (200, '"4"')
    (request,) = node.requests
    assert (request.kind, request.patch, request.version) == ("config", {"failover": {"fencing": None}}, 3)
    node.answer = OperatorAnswer("refused", code="config.version", message="version 5 is current")
    is_problem(trusted.patch("/api/v1/config", json={}, headers={"if-match": '"4"'}), 412, "config.version")
    node.answer = OperatorAnswer("refused", code="config.invalid", message="ttl: no")
    is_problem(trusted.patch("/api/v1/config", json={"ttl": 0}, headers={"if-match": "*"}), 409, "config.invalid")
    assert node.requests[-1].version is None


def test_an_index_of_unknown_age_says_so(http, node):
    node.value = replace(seen(published(), contact_s=None), last_renewal_s=None)
    assert http.get("/api/v1/cluster").headers["x-applied-age"] == "unknown"


def test_head_is_get_without_a_body(http):
    answer = http.head("/api/v1/cluster")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/json"


def test_slashes_do_not_matter(server):
    assert ask(server, "GET", "//api//v1/cluster/").status == 200


def test_what_does_not_exist_is_a_problem(http, trusted):
    is_problem(http.get("/api/v1/nonsense"), 404, "path.unknown")
    is_problem(http.get("/api"), 404, "path.unknown")
    is_problem(http.get("/api/v1/members/pg9"), 404, "member.unknown")
    is_problem(http.get("/api/v1/operations/none"), 404, "operation.unknown")
    is_problem(trusted.delete("/api/v1/cluster"), 405, "method.unknown")
    is_problem(http.get("/api/v1/switchovers"), 405, "method.unknown")
    is_problem(http.get("/api/v1/cluster?consistency=linearizable"), 422, "request.invalid")


def test_a_switchover_becomes_an_operation(trusted, node):
    answer = trusted.post("/api/v1/switchovers", json={"to": "pg2", "from": "pg1", "reason": "kernel update"})
    assert answer.status_code == 202
    operation = answer.json()
    assert answer.headers["location"] == f"/api/v1/operations/{operation['id']}"
    assert (operation["kind"], operation["target"], operation["phase"]) == ("switchover", "pg2", "requested")
    asked = node.requests[0]
    assert (asked.kind, asked.target, asked.expected_primary, asked.reason) == (
        "switchover", "pg2", "pg1", "kernel update",
    )  # fmt: skip
    assert asked.requester == "token from 127.0.0.1"
    assert trusted.get(answer.headers["location"]).json() == operation
    assert trusted.get("/api/v1/operations").json()["operations"] == [operation]
    assert trusted.get("/api/v1/cluster").json()["operation"] == operation


def test_a_switchover_needs_no_body(trusted, node):
    assert trusted.post("/api/v1/switchovers").status_code == 202
    assert (node.requests[0].target, node.requests[0].expected_primary) == ("", "")


def test_a_body_need_not_be_called_json(trusted, node):
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert trusted.post("/api/v1/switchovers", content=b'{"to": "pg3"}', headers=form).status_code == 202
    assert node.requests[0].target == "pg3"


def test_a_removal_passes_its_words_on(trusted, node):
    answer = trusted.post("/api/v1/removals", json={"member": "pg3", "force": True, "reason": "sold"})
    assert (answer.status_code, answer.json()["member"]) == (200, "pg3")
    asked = node.requests[0]
    assert (asked.kind, asked.target, asked.force, asked.reason) == ("remove", "pg3", True, "sold")
    node.answer = OperatorAnswer("refused", code="member.running", message="pg3: runs", checks=CHECKS)
    is_problem(trusted.post("/api/v1/removals", json={"member": "pg3"}), 409, "member.running")
    node.answer = OperatorAnswer("accepted", message="all checks pass", checks=CHECKS[:1])
    dry = trusted.post("/api/v1/removals", params={"dry_run": "true"}, json={"member": "pg3"})
    assert (dry.status_code, dry.json()["message"]) == (200, "all checks pass")
    assert node.requests[-1].dry_run
    assert trusted.post("/api/v1/removals", json={}).status_code == 422


def test_a_failover_passes_its_words_on(trusted, node):
    body = {"to": "pg3", "allow_data_loss": True}
    answer = trusted.post("/api/v1/failovers", json=body)
    assert (answer.status_code, answer.json()["kind"], answer.json()["allow_data_loss"]) == (202, "failover", True)
    assert (node.requests[0].kind, node.requests[0].allow_data_loss) == ("failover", True)


def test_a_failover_that_may_lose_data_passes_on_whose_and_how_much(trusted, node):
    shown = {"candidate": {"timeline": 2, "lsn": 5}, "known": {"timeline": 2, "lsn": 9}}
    body = {"to": "pg3", "allow_data_loss": True, "cluster": "shop", "accepts": shown}
    assert trusted.post("/api/v1/failovers", json=body).status_code == 202
    asked = node.requests[0]
    assert (asked.cluster, asked.accepts) == ("shop", AcceptedLoss(Position(2, 5), Position(2, 9)))
    node.answer = OperatorAnswer("refused", code="loss.confirmed", message="give the cluster's name, 'shop'")
    is_problem(trusted.post("/api/v1/failovers", json=body | {"cluster": "y"}), 409, "loss.confirmed")


def test_explain_is_a_read_that_says_how_old_it_is(http, node):
    found = http.get("/api/v1/explain").json()
    assert (found["node"], found["quorum"], found["applied"]["index"]) == ("pg1", True, 42)
    assert found["explanation"]["failover"]["code"] == "primary.open"
    one = http.get("/api/v1/explain?member=pg2").json()["explanation"]["members"]
    assert [(m["member"], m["why"]["code"]) for m in one] == [("pg2", "candidate.next")]
    is_problem(http.get("/api/v1/explain?member=pg9"), 404, "member.unknown")


def test_waiting_ends_with_the_operation(trusted, node):
    phases = (Phase.STOPPING, Phase.ELECTING, Phase.PROMOTING, Phase.DONE)
    steps = [lambda phase=phase: node.advance(phase) for phase in phases]
    thread = later(0.1, *steps)
    answer = trusted.post("/api/v1/switchovers?wait=20s", json={"to": "pg2"})
    thread.join()
    assert (answer.status_code, answer.json()["phase"]) == (200, "done")


def test_waiting_has_an_end(trusted):
    began_s = time.monotonic()
    answer = trusted.post("/api/v1/switchovers?wait=300ms", json={"to": "pg2"})
    assert (answer.status_code, answer.json()["phase"]) == (202, "requested")
    assert 0.3 <= time.monotonic() - began_s < 2
    running = trusted.get(f"{answer.headers['location']}?wait=0.2s")
    assert (running.status_code, running.json()["phase"]) == (200, "requested")


def test_one_can_wait_for_an_operation(trusted, node):
    location = trusted.post("/api/v1/switchovers").headers["location"]
    thread = later(0.1, lambda: node.advance(Phase.FAILED, message="pg2 went away"))
    ended = trusted.get(f"{location}?wait=10s").json()
    thread.join()
    assert (ended["phase"], ended["message"]) == ("failed", "pg2 went away")


def test_nobody_waits_for_an_operation_that_never_was(http):
    began_s = time.monotonic()
    is_problem(http.get("/api/v1/operations/none?wait=30s"), 404, "operation.unknown")
    assert time.monotonic() - began_s < 5


def test_an_operation_not_applied_here_yet_is_answered_from_memory(trusted, node, monkeypatch):
    monkeypatch.setattr("appliance.api.changes.SEEN_LIMIT_S", 0.1)
    node.answer = OperatorAnswer("accepted")
    operation = trusted.post("/api/v1/switchovers", json={"to": "pg2"}).json()
    assert (operation["target"], operation["phase"]) == ("pg2", "requested")
    assert "not applied on this node yet" in operation["message"]


def test_a_dry_run_shows_the_checks(trusted, node):
    node.answer = OperatorAnswer("accepted", message="would go ahead", checks=CHECKS[:1])
    answer = trusted.post("/api/v1/switchovers?dry_run=true", json={"to": "pg2"})
    assert answer.status_code == 200
    assert answer.json() == {
        "message": "would go ahead",
        "checks": [{"code": "member.known", "candidate": "pg2", "ok": True, "detail": "10.0.0.2:5432"}],
        "prospect": None,
    }
    assert node.requests[0].dry_run
    assert node.value.state.operations == ()


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_refusal_names_every_check(trusted, node, query):
    node.answer = OperatorAnswer("refused", "", "candidate.lagging", "pg2 lags", "wait until it has caught up", CHECKS)
    body = is_problem(trusted.post(f"/api/v1/switchovers{query}", json={"to": "pg2"}), 409, "candidate.lagging")
    assert (body["detail"], body["hint"]) == ("pg2 lags", "wait until it has caught up")
    assert [(c["code"], c["ok"]) for c in body["checks"]] == [("member.known", True), ("candidate.lagging", False)]
    assert "operation" not in body


def test_a_refusal_names_the_operation_that_is_in_the_way(trusted, node):
    first = trusted.post("/api/v1/switchovers").json()
    node.answer = OperatorAnswer("refused", "", "operation.running", "one is under way")
    assert is_problem(trusted.post("/api/v1/switchovers"), 409, "operation.running")["operation"] == first["id"]


def test_no_quorum_and_unknown_are_told_apart(trusted, node):
    node.answer = OperatorAnswer("no_quorum", message="no raft leader for 3.0 s")
    is_problem(trusted.post("/api/v1/switchovers"), 503, "quorum.none")
    node.answer = OperatorAnswer("unknown", message="the raft leader went away")
    answer = trusted.post("/api/v1/switchovers", headers={"idempotency-key": "change-4711"})
    body = is_problem(answer, 503, "outcome.unknown")
    assert "may still happen" in body["detail"]
    assert body["operation"] == "change-4711"
    assert answer.headers["location"] == "/api/v1/operations/change-4711"


def test_a_gateway_that_breaks_leaves_the_outcome_unknown(trusted, node, monkeypatch):
    monkeypatch.setattr(node, "submit", lambda request, limit_s: 1 / 0)
    assert "ZeroDivisionError" in is_problem(trusted.post("/api/v1/switchovers"), 503, "outcome.unknown")["detail"]


def test_the_same_key_is_the_same_operation(trusted, node):
    key = {"idempotency-key": "change-4711"}
    first = trusted.post("/api/v1/switchovers", json={"to": "pg2"}, headers=key)
    again = trusted.post("/api/v1/switchovers", json={"to": "pg2"}, headers=key)
    assert (first.json(), first.json()["id"]) == (again.json(), "change-4711")
    assert len(node.requests) == 1
    other = trusted.post("/api/v1/switchovers", json={"to": "pg3"}, headers=key)
    assert is_problem(other, 422, "idempotency.mismatch")["operation"] == "change-4711"
    is_problem(trusted.post("/api/v1/failovers", json={"to": "pg2"}, headers=key), 422, "idempotency.mismatch")


def test_a_key_that_the_raft_leader_knows_already_is_followed(trusted, node):
    node.answer = OperatorAnswer("refused", "", "operation.known", "was started before")
    assert trusted.post("/api/v1/switchovers", headers={"idempotency-key": "k"}).status_code == 202


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("switchovers", {"too": "pg2"}, "too"),
        ("switchovers", {"to": 5}, "to"),
        ("switchovers", {"to": "x" * 201}, "to"),
        ("switchovers", [], "body"),
        ("switchovers?wait=soon", {}, "wait"),
        ("switchovers?dry_run=perhaps", {}, "dry_run"),
        ("failovers", {}, "to"),
        ("failovers", {"to": ""}, "to"),
        ("failovers", {"to": "pg2", "allow_data_loss": "a bit"}, "allow_data_loss"),
        ("failovers", None, "body"),
        ("bootstrap", {"force": True}, "force"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_and_says_where(trusted, node, path, body, named):
    answer = trusted.post(f"/api/v1/{path}", json=body) if body is not None else trusted.post(f"/api/v1/{path}")
    problem = is_problem(answer, 422, "request.invalid")
    assert named in problem["errors"][0]["field"]
    assert named in problem["detail"]
    assert node.requests == []


def test_a_key_with_odd_characters_is_refused(trusted):
    answer = trusted.post("/api/v1/switchovers", headers={"idempotency-key": "../../etc"})
    is_problem(answer, 422, "request.invalid")


def test_junk_and_giants_are_refused(trusted):
    json = {"content-type": "application/json"}
    problem = is_problem(
        trusted.post("/api/v1/switchovers", content=b"{not json", headers=json), 422, "request.invalid"
    )
    assert [mistake["field"] for mistake in problem["errors"]] == ["body"]
    assert problem["detail"].startswith("body: not JSON at character 1: ")
    is_problem(trusted.post("/api/v1/switchovers", content=b" " * 65537, headers=json), 413, "body.too_large")
    chunks = (b" " * 1024 for _ in range(65))
    is_problem(trusted.post("/api/v1/switchovers", content=chunks, headers=json), 413, "body.too_large")


def test_a_body_that_never_ends_is_given_up(trusted, monkeypatch):
    monkeypatch.setattr(front, "BODY_LIMIT_S", 0.2)

    def slowly():
        yield b"{"
        time.sleep(0.6)
        yield b"}"

    is_problem(trusted.post("/api/v1/switchovers", content=slowly()), 408, "body.slow")


def test_bootstrap(trusted, node):
    answer = trusted.post("/api/v1/bootstrap")
    assert (answer.status_code, answer.json()["initialised"]) == (200, True)
    assert answer.headers["location"] == "/api/v1/cluster"
    assert node.requests[0].kind == "bootstrap"
    whole = node.value
    node.value = replace(whole, state=replace(whole.state, appointment=None))
    assert trusted.post("/api/v1/bootstrap").status_code == 202
    thread = later(0.1, lambda: setattr(node, "value", whole))
    assert trusted.post("/api/v1/bootstrap?wait=10s").status_code == 200
    thread.join()
    node.answer = OperatorAnswer("refused", "", "bootstrap.done", "cluster 'shop' has data")
    is_problem(trusted.post("/api/v1/bootstrap"), 409, "bootstrap.done")


def test_an_invitation_is_told_once(trusted, http, node):
    node.answer = OperatorAnswer("accepted", "", message="the token")
    answer = trusted.post("/api/v1/members", json={"name": "pg4", "role": "learner", "valid_for": "10min"})
    assert answer.status_code == 201
    assert {**answer.json(), "expires_at": ""} == {
        "member": "pg4",
        "role": "learner",
        "token": "the token",
        "expires_at": "",
    }
    (request,) = node.requests
    assert (request.member, request.role, request.valid_for_s) == ("pg4", "learner", 600)
    assert trusted.post("/api/v1/members?dry_run=true", json={"name": "pg4"}).status_code == 200
    for wrong in ({}, {"name": "a b"}, {"name": "pg4", "role": "king"}, {"name": "pg4", "valid_for": "soon"}):
        is_problem(trusted.post("/api/v1/members", json=wrong), 422, "request.invalid")
    is_problem(http.post("/api/v1/members", json={"name": "pg4"}), 401, "access.denied")
    assert len(node.requests) == 1
    node.answer = OperatorAnswer("refused", "", "token.lifetime", "too long")
    is_problem(trusted.post("/api/v1/members", json={"name": "pg4"}), 409, "token.lifetime")


def test_a_bootstrap_that_is_given_up_ends_the_wait_with_the_reason(trusted, node):
    failed = FailedBootstrap("pg1", "key-0001", "no room")
    blank = replace(node.value.state, appointment=None, system_identifier="")
    node.value = replace(node.value, state=blank)
    given_up = replace(node.value, state=replace(blank, failed_bootstrap=failed))
    thread = later(0.1, lambda: setattr(node, "value", given_up))
    answer = trusted.post("/api/v1/bootstrap?wait=10s", headers={"Idempotency-Key": "key-0001"})
    thread.join()
    is_problem(answer, 409, "bootstrap.failed")
    assert "no room" in answer.json()["detail"]
    assert trusted.post("/api/v1/bootstrap").status_code == 202, "another one is not that one"


def test_a_stuck_request_holds_up_nobody_else(trusted, http, node, monkeypatch):
    monkeypatch.setattr(desk_module, "SUBMIT_LIMIT_S", 0.2)
    monkeypatch.setattr(desk_module, "_MARGIN_S", 0.1)
    node.stuck.clear()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(trusted.post("/api/v1/switchovers"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        began_s = time.monotonic()
        assert http.get("/primary").status_code == 200
        assert time.monotonic() - began_s < 0.5
    for thread in threads:
        thread.join()
    for answer in answers:
        is_problem(answer, 503, "outcome.unknown")
    # They still sit in the gateway: no more threads are spent on it.
    is_problem(trusted.post("/api/v1/switchovers"), 409, "api.busy")
    node.stuck.set()
    deadline_s = time.monotonic() + 5
    while trusted.post("/api/v1/switchovers").status_code != 202:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_bug_is_a_problem_and_not_the_end(trusted, node, caplog):
    whole = node.value
    node.value = replace(whole, state=replace(whole.state, operations=None))
    body = is_problem(trusted.get("/api/v1/operations/x"), 500, "internal")
    assert "Traceback" not in str(body)
    node.value = whole
    assert trusted.get("/api/v1/cluster").status_code == 200
    assert "Exception in ASGI application" in caplog.text


def test_the_schema_is_complete(http):
    schema = http.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    named = ("bootstrap", "failovers", "members", "raft/leader", "removals", "switchovers")
    posts = [f"/api/v1/{name}" for name in named]
    assert [path for path, methods in sorted(schema["paths"].items()) if "post" in methods] == posts
    for path in posts:
        refused = schema["paths"][path]["post"]["responses"]["409"]["content"]
        assert list(refused) == ["application/problem+json"]
        assert schema["paths"][path]["post"]["security"]
    assert "verdict" in schema["components"]["schemas"]["ClusterView"]["properties"]
    is_problem(http.get("/api/docs"), 404, "path.unknown")


def test_a_body_of_thousands_of_keys_costs_one_sentence(trusted, node):
    """Each of them refused by name was an answer ten times the size, and a tenth of a second nobody else could run."""
    _, dense = largest_bodies()
    assert len(dense) > front.BODY_LIMIT_BYTES - 16
    for path in ("switchovers", "failovers", "bootstrap"):
        answer = trusted.post(f"/api/v1/{path}", content=dense)
        is_problem(answer, 422, "request.invalid")
        assert " keys, the limit is 32" in answer.json()["detail"]
        assert len(answer.content) < 1000
    assert node.requests == []
