"""`appliance config`: what it shows, what it asks for, and the exit code of every refusal."""

import json

import pytest

from appliance.api.published import OperatorAnswer


def test_it_shows_what_is_set(appliance, node, config):
    found = appliance("config", "show", "--config", config)
    assert found.code == 0
    assert [line.split(maxsplit=1) for line in found.out.splitlines()] == [
        ["SETTING", "VALUE"],
        ["postgresql.parameters", "{work_mem: 8MB}"],
        ["ttl", "6s"],
    ]
    assert json.loads(appliance("config", "show", "-o", "json", "--config", config).out)["version"] == 3


def test_a_change_says_what_it_changes_and_asks_with_the_version_that_was_shown(appliance, node, config):
    said = appliance(
        "config", "set", "synchronous_mode=on", "failover.fencing=lease", "ttl=null", "--yes", "--config", config
    )
    assert said.code == 0
    assert said.err.splitlines() == [
        "  failover.fencing: (default) -> lease",
        "  synchronous_mode: (default) -> true",
        "  ttl: 6s -> (default)",
    ]
    assert said.out == "✓ version 4 is in force\n"
    (request,) = node.requests
    assert request.patch == {"synchronous_mode": True, "failover": {"fencing": "lease"}, "ttl": None}
    assert (request.kind, request.version) == ("config", 3)


def test_what_is_so_already_is_not_asked_for(appliance, node, config):
    found = appliance("config", "set", "ttl=6s", "--config", config)
    assert (found.code, found.out, node.requests) == (0, "nothing to change in version 3\n", [])


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (OperatorAnswer("refused", code="config.invalid", message="ttl: no"), 4, "refused: ttl: no (config.invalid)"),
        (OperatorAnswer("refused", code="config.version", message="version 9 is current"), 7, "changed under you"),
        (OperatorAnswer("no_quorum", code="quorum.none", message="no quorum"), 3, "no quorum"),
    ],
)
def test_each_refusal_has_its_exit_code(appliance, node, config, answer, code, words):
    node.answer = answer
    found = appliance("config", "set", "ttl=9s", "--yes", "--config", config)
    assert (found.code, words in found.err) == (code, True), found.err


@pytest.mark.parametrize("setting", ["ttl", "=1", "ttl=[", "ttl=1 ttl.x=2"])
def test_what_is_no_setting_is_a_mistake_in_usage(appliance, node, config, setting):
    assert appliance("config", "set", *setting.split(), "--yes", "--config", config).code == 2
    assert node.requests == []


def test_without_a_terminal_and_without_yes_nothing_is_changed(appliance, node, config, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    found = appliance("config", "set", "ttl=9s", "--config", config)
    assert (found.code, node.requests) == (4, [])
