from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.postgres.binaries import Binaries
from appliance.postgres.certificate import Certificate
from appliance.postgres.errors import SettingsError
from appliance.postgres.settings import (
    CONTROLLED,
    HBA_FILE,
    INCLUDE_FILE,
    NOBODY,
    Settings,
    check_settings,
    effective,
    quoted,
    server_argv,
    settings_differ,
    standby_names,
    write_settings,
)

from .test_control import POSTGRESQL_15, parse_control

PLAIN = Settings(cluster_name="pg1", port=5432, unix_socket_dir=Path("/run/appliance"))
SECURED = replace(PLAIN, certificate=Certificate(Path("/t/ca"), Path("/t/cert"), Path("/t/key")))
BINARIES = Binaries(Path("/usr/lib/postgresql/15/bin"), "15.18", 15)


def having(**parameters):
    return replace(PLAIN, parameters=parameters)


def test_configured_values_replace_defaults_whatever_their_case():
    assert effective(PLAIN, Path("/d"))["max_connections"] == "100"
    assert effective(having(MAX_CONNECTIONS="7"), Path("/d"))["max_connections"] == "7"


def test_a_slot_keeps_what_the_disk_has_room_for_unless_the_configuration_says_otherwise():
    name = "max_slot_wal_keep_size"
    assert effective(PLAIN, Path("/d"))[name] == "10GB"
    assert effective(replace(PLAIN, slot_wal_mb=175), Path("/d"))[name] == "175MB"
    assert effective(replace(having(**{name: "1GB"}), slot_wal_mb=175), Path("/d"))[name] == "1GB"


def test_writes_are_refused_whatever_the_configuration_says():
    refusing = replace(having(default_transaction_read_only="off"), refuses_writes=True)
    assert "default_transaction_read_only" not in effective(PLAIN, Path("/d"))
    assert effective(refusing, Path("/d"))["default_transaction_read_only"] == "on"
    assert effective(replace(refusing, refuses_writes=False), Path("/d"))["default_transaction_read_only"] == "off"


def test_a_standby_gets_at_least_what_its_primary_had():
    control = parse_control(
        POSTGRESQL_15.replace("max_connections setting:              100", "max_connections setting: 130")
    )
    values = effective(having(max_worker_processes="20"), Path("/d"), floor=control)
    assert values["max_connections"] == "130"
    assert values["max_worker_processes"] == "20"
    assert "max_connections=130" in server_argv(BINARIES, Path("/d"), PLAIN, control)


def test_what_needs_a_restart_stands_on_the_command_line():
    argv = server_argv(BINARIES, Path("/d"), replace(PLAIN, listen="10.0.0.1"))
    assert argv[:3] == ["/usr/lib/postgresql/15/bin/postgres", "-D", "/d"]
    options = dict(option.split("=", 1) for option in argv[4::2])
    assert set(argv[3::2]) == {"-c"}
    assert options["listen_addresses"] == "10.0.0.1"
    assert options["hba_file"] == f"/d/{HBA_FILE}"
    assert "primary_conninfo" not in options, "it changes by reload"
    assert set(options) <= CONTROLLED


@pytest.mark.parametrize(
    ("k", "members", "by_priority", "written"),
    [
        (1, ["pg2"], False, 'ANY 1 ("pg2")'),
        (2, ["pg3", "pg2"], False, 'ANY 2 ("pg3", "pg2")'),
        (1, ["Node-2.x", 'a"b'], True, 'FIRST 1 ("Node-2.x", "a""b")'),
        (0, ["pg2"], False, ""),
        (0, [], True, ""),
        (1, [], False, NOBODY),
    ],
)
def test_a_set_is_written_as_postgresql_reads_it(k, members, by_priority, written):
    """Quoting is tried on real PostgreSQL in test_synchronous_names."""
    assert standby_names(k, members, by_priority=by_priority) == written


def test_the_names_stand_beside_the_version_to_be_compared_with_what_is_loaded(tmp_path):
    names = standby_names(1, ["it's"], by_priority=False)
    settings = replace(PLAIN, synchronous_standby_names=names, sync_version=7)
    values = effective(settings, Path("/d"))
    assert values["synchronous_standby_names"] == values["appliance.sync_names"] == names
    assert values["appliance.sync_version"] == "7"
    write_settings(tmp_path, settings)
    assert settings_differ(tmp_path, replace(settings, sync_version=8))
    assert settings_differ(tmp_path, replace(settings, synchronous_standby_names=""))


def test_what_alter_system_says_about_synchronous_standbys_is_taken_back_at_every_reload(tmp_path):
    write_settings(tmp_path, PLAIN)
    auto_conf = tmp_path / "postgresql.auto.conf"
    auto_conf.write_text("work_mem = '5MB'\nSynchronous_Standby_Names = ''\n")
    assert settings_differ(tmp_path, PLAIN)
    assert write_settings(tmp_path, PLAIN)
    assert not settings_differ(tmp_path, PLAIN)
    assert not write_settings(tmp_path, PLAIN)
    kept = [line for line in auto_conf.read_text().splitlines() if not line.startswith("#")]
    assert kept == ["work_mem = '5MB'"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("port", "1", "is set by the appliance"),
        ("Primary_ConnInfo", "host=x", "is set by the appliance"),
        ("synchronous_standby_names", "*", "is set by the appliance"),
        ("Appliance.Sync_Version", "1", "is set by the appliance"),
        ("appliance.sync_names", "", "is set by the appliance"),
        ("recovery_target_lsn", "0/0", "is set by the appliance"),
        ("data_directory", "/", "is set by the appliance"),
        ("fsync", "off", "must be on, not 'off'"),
        ("full_page_writes", "false", "must be on"),
        ("hot_standby", "off", "must be on"),
        ("restart_after_crash", "on", "must be off, not 'on'"),
        ("restart_after_crash", "1", "must be off"),
        ("Appliance.Admits", "on", "is set by the appliance"),
        ("wal_level", "Minimal", "replica or logical"),
        ("ssl_min_protocol_version", "TLSv1", "must be TLSv1.2 or TLSv1.3, not 'TLSv1'"),
        ("a b", "1", "is no parameter name"),
        ("x\ny", "1", "is no parameter name"),
        ("work_mem", "1\0", "zero byte"),
    ],
)
def test_what_would_break_a_promise_is_refused_with_its_name(name, value, message):
    with pytest.raises(SettingsError, match=message):
        check_settings(having(**{name: value}))


def test_a_socket_path_that_is_too_long_is_refused():
    with pytest.raises(SettingsError, match="more than 107 bytes"):
        check_settings(replace(PLAIN, unix_socket_dir=Path("/" + "x" * 100)))


def test_a_line_break_cannot_smuggle_in_a_rule():
    with pytest.raises(SettingsError, match="line break"):
        check_settings(replace(PLAIN, hba=("host all all all reject\nlocal all all trust",)))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_quoted_value_is_one_line_and_reads_back(value):
    written = quoted(value)
    assert "\n" not in written
    assert "\r" not in written
    assert _read_back(written) == value


def _read_back(written):
    """As GUC_scanstr of guc-file.l does, for the escapes that are written here."""
    assert written[0] == written[-1] == "'"
    inner, out, at = written[1:-1], "", 0
    while at < len(inner):
        pair = inner[at : at + 2]
        known = {"''": "'", "\\\\": "\\", "\\n": "\n", "\\r": "\r"}
        if pair in known:
            out, at = out + known[pair], at + 2
        else:
            assert inner[at] not in "'\\"
            out, at = out + inner[at], at + 1
    return out


def test_files_are_written_once_and_then_only_when_something_changed(tmp_path):
    (tmp_path / "postgresql.conf").write_bytes(b"work_mem = 1MB")
    assert settings_differ(tmp_path, PLAIN)
    assert write_settings(tmp_path, PLAIN)
    assert not settings_differ(tmp_path, PLAIN)
    assert not write_settings(tmp_path, PLAIN)
    changed = replace(PLAIN, primary_conninfo="host=it's")
    assert settings_differ(tmp_path, changed)
    assert write_settings(tmp_path, changed)
    assert "primary_conninfo = 'host=it''s'\n" in (tmp_path / INCLUDE_FILE).read_text()
    assert (tmp_path / "postgresql.conf").read_text().startswith("work_mem = 1MB\n")


def test_the_appliances_own_rules_come_first(tmp_path):
    write_settings(tmp_path, replace(PLAIN, hba=("host all all all trust",)))
    lines = (tmp_path / HBA_FILE).read_text().splitlines()
    assert lines[-1] == "host all all all trust"
    assert lines[-2].startswith("host all appliance_replication,appliance_rewind all reject")


def test_a_closed_gate_lets_in_nobody_but_the_appliance_and_has_no_line_that_could_be_wrong(tmp_path):
    write_settings(tmp_path, replace(PLAIN, hba=("junk",)))
    own = (tmp_path / HBA_FILE).read_text().splitlines()[:-1]
    write_settings(tmp_path, replace(PLAIN, hba=("junk",), admits=False))
    assert (tmp_path / HBA_FILE).read_text().splitlines() == [*own, "local all all reject", "host all all all reject"]
    assert "appliance.admits = 'off'" in (tmp_path / INCLUDE_FILE).read_text()
    assert settings_differ(tmp_path, replace(PLAIN, hba=("junk",)))


def test_a_crash_of_one_session_ends_postgresql_whatever_is_configured():
    assert effective(having(restart_after_crash="no"), Path("/d"))["restart_after_crash"] == "off"
    assert "restart_after_crash=off" in server_argv(BINARIES, Path("/d"), PLAIN)


def test_with_a_certificate_whoever_comes_over_the_network_comes_encrypted(tmp_path):
    write_settings(tmp_path, SECURED)
    lines = (tmp_path / HBA_FILE).read_text().splitlines()
    assert [line for line in lines if line.startswith("host ")] == [
        "host all appliance_replication,appliance_rewind all reject"
    ]
    assert lines[-1] == "hostssl all all all scram-sha-256"
    write_settings(tmp_path, replace(SECURED, hba=("host all all all scram-sha-256",)))
    assert (tmp_path / HBA_FILE).read_text().splitlines()[-1] == "host all all all scram-sha-256"


def test_the_certificate_wins_over_a_configuration_that_names_another():
    values = effective(replace(SECURED, parameters={"SSL": "off", "ssl_cert_file": "/mine"}), Path("/d"))
    given = {name: value for name, value in values.items() if name.startswith("ssl")}
    assert given == {
        "ssl": "on",
        "ssl_ca_file": "/t/ca",
        "ssl_cert_file": "/t/cert",
        "ssl_key_file": "/t/key",
        "ssl_min_protocol_version": "TLSv1.2",
    }
    assert effective(having(ssl="on", ssl_min_protocol_version="TLSv1.3"), Path("/d")).items() >= {
        ("ssl", "on"),
        ("ssl_min_protocol_version", "TLSv1.3"),
    }


def test_another_file_is_another_version_of_the_certificate(tmp_path):
    paths = [tmp_path / name for name in ("ca", "cert", "key")]
    seen = [Certificate.found(*paths)]
    for path in paths:
        path.write_text("x")
        seen.append(Certificate.found(*paths))
        (tmp_path / "new").write_text("x")
        (tmp_path / "new").rename(path)
        seen.append(Certificate.found(*paths))
    assert len(set(seen)) == 7
    assert Certificate.found(*paths) == seen[-1]


@pytest.mark.parametrize(("mode", "taken"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False)])
def test_a_key_that_others_may_read_is_refused_as_postgresql_would(tmp_path, mode, taken):
    key = tmp_path / "key"
    key.touch(mode)
    key.chmod(mode)
    certificate = Certificate.found(key, key, key)
    if taken:
        certificate.check()
    else:
        with pytest.raises(SettingsError, match=f"mode {mode:04o}, which PostgreSQL refuses; make it 0600"):
            certificate.check()


def test_a_key_that_is_missing_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"tls.key: /.*/key: no such file"):
        Certificate.found(tmp_path, tmp_path, tmp_path / "key").check()
