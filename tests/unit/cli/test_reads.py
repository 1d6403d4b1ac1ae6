"""History, operations and connection strings."""

import json

import pytest
from psycopg.conninfo import conninfo_to_dict

from appliance.cli.dsn import Application, Form, Role, render
from appliance.cluster.state import Operation, OperationKind, Phase, PhaseMark

PATIENCE = "connect_timeout=2&keepalives_idle=1&keepalives_interval=1&keepalives_count=2&tcp_user_timeout=3000"
HOSTS = [("10.0.0.1", 5432), ("fd00::2", 5433)]
OPERATION = Operation(
    id="0a1b",
    kind=OperationKind.SWITCHOVER,
    requester="uid 0",
    reason="",
    source="pg1",
    target="pg2",
    epoch=4,
    phase=Phase.DONE,
    marks=(PhaseMark(Phase.REQUESTED, "2026-11-23T06:00:00Z"), PhaseMark(Phase.DONE, "2026-11-23T06:00:01Z", "fine")),
)


def test_the_history_is_newest_first(appliance, url):
    found = appliance("history", "--api", url)

    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[1].split()[1:6] == ["4", "2", "failover", "pg3", "pg1"]
    assert lines[2].split()[3:5] == ["bootstrap", "-"]
    assert [e["epoch"] for e in json.loads(appliance("history", "--limit", 1, "--api", url, "-o", "json").out)] == [4]


def test_operations(appliance, node, url):
    node.put(OPERATION)

    assert appliance("operations", "list", "--api", url, "-o", "name").out == "0a1b\n"
    assert appliance("operations", "show", "0a1b", "--api", url).out.splitlines() == [
        "switchover 0a1b: done",
        "  2026-11-23T06:00:00Z  requested",
        "  2026-11-23T06:00:01Z  done  fine",
    ]


def test_an_unknown_operation_is_1(appliance, url):
    found = appliance("operations", "show", "ffff", "--api", url)

    assert found.code == 1
    assert "no operation 'ffff'" in found.err


def test_the_dsn_names_every_member_primary_first_with_the_password(appliance, config, tmp_path):
    (tmp_path / "application.password").write_text("p@ss word\n")
    found = appliance("dsn", "--config", config)

    assert (found.code, found.err) == (0, "")
    hosts = "10.0.0.1:5432,10.0.0.2:5432,10.0.0.3:5432"
    query = f"target_session_attrs=read-write&{PATIENCE}"
    assert found.out == f"postgresql://app:p%40ss%20word@{hosts}/shop?{query}\n"
    assert conninfo_to_dict(found.out.strip())["tcp_user_timeout"] == "3000", "libpq knows it"


def test_the_dsn_as_a_document(appliance, config, tmp_path):
    (tmp_path / "application.password").write_text("secret")
    document = json.loads(appliance("dsn", "--config", config, "-o", "json").out)

    assert document["dsn"] == appliance("dsn", "--config", config).out.strip()
    assert appliance("dsn", "--config", config, "-o", "name").out.strip() == document["dsn"]
    assert (document["host"], document["port"]) == ("10.0.0.1,10.0.0.2,10.0.0.3", "5432,5432,5432")
    assert (document["user"], document["password"], document["dbname"]) == ("app", "secret", "shop")


def test_a_password_that_cannot_be_read_is_said(appliance, config, tmp_path):
    found = appliance("dsn", "--config", config)

    assert found.code == 0
    assert found.out.startswith("postgresql://app@10.0.0.1:5432,")
    assert f"without the password: {tmp_path}/application.password: no such file" in found.err


def test_elsewhere_the_role_is_not_known(appliance, url):
    found = appliance("dsn", "--api", url, "--role", "ro")

    assert found.out.endswith(f"/postgres?target_session_attrs=prefer-standby&{PATIENCE}\n")
    assert "no role and no password" in found.err


def test_with_certificates_the_dsn_insists_on_a_member(appliance, config, tmp_path):
    ca = tmp_path / "a ca.crt"
    ca.touch()
    files = "".join(f", {key}: {tmp_path / key}" for key in ("cert", "key"))
    config.write_text(config.read_text().rstrip().rstrip("}") + f"}}}}, tls: {{ca: '{ca}'{files}}}}}")
    found = appliance("dsn", "--config", config, "-f", "kv")
    read = conninfo_to_dict(found.out.strip())
    assert (read["sslmode"], read["sslrootcert"]) == ("verify-full", str(ca))
    assert found.err.count("\n") == 1, "of the password only"

    read = conninfo_to_dict(appliance("dsn", "--config", config, "--ca", "/etc/app/ca.crt").out.strip())
    assert (read["sslmode"], read["sslrootcert"]) == ("verify-full", "/etc/app/ca.crt")
    lines = appliance("dsn", "--config", config, "-f", "env").out.splitlines()
    assert {"PGSSLMODE=verify-full", f"PGSSLROOTCERT='{ca}'"} <= set(lines)
    ca.unlink()
    assert f"{ca} is not for this user to read" in appliance("dsn", "--config", config).err


def test_elsewhere_certificates_are_asked_for_by_naming_the_authority(appliance, url):
    assert "sslmode" not in appliance("dsn", "--api", url).out
    assert "&sslmode=verify-full&sslrootcert=" in appliance("dsn", "--api", url, "--ca", "/ca.crt").out


KV = r"host=10.0.0.1,fd00::2 port=5432,5433 dbname=shop user=app password='it\'s' target_session_attrs=any"
ENV = """
PGHOST=10.0.0.1,fd00::2
PGPORT=5432,5433
PGDATABASE=shop
PGUSER=app
PGPASSWORD='it'"'"'s'
PGTARGETSESSIONATTRS=any
PGCONNECT_TIMEOUT=2
"""
URI = f"postgresql://app:it%27s@10.0.0.1:5432,[fd00::2]:5433/shop?target_session_attrs=any&{PATIENCE}"


@pytest.mark.parametrize(
    ("form", "lines"),
    [(Form.KV, [f"{KV} {PATIENCE.replace('&', ' ')}"]), (Form.ENV, ENV.split()), (Form.URI, [URI])],
)
def test_forms(form, lines):
    assert render(HOSTS, Application("app", "shop", "it's"), Role.ANY, form) == lines
