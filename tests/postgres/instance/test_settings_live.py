"""PostgreSQL takes what was rendered, and nothing wins over it unnoticed."""

from dataclasses import replace

import psycopg
import pytest

from appliance.postgres.auto_conf import clean_auto_conf, foreign_auto_conf
from appliance.postgres.errors import SettingsError
from appliance.postgres.settings import CONTROLLED, effective, settings_differ, write_settings
from appliance.postgres.validate import check_values, refused_values


def test_every_rendered_parameter_is_what_postgresql_shows(primary):
    odd = "it's a \\ 'back\\slash'"
    primary.settings = replace(primary.settings, parameters={"work_mem": "5MB", "custom.note": odd})
    assert settings_differ(primary.data_dir, primary.settings)
    primary.stop()
    primary.start()
    assert not settings_differ(primary.data_dir, primary.settings)
    assert primary.value("SHOW custom.note") == odd
    for name, value in effective(primary.settings, primary.data_dir).items():
        assert primary.value(f"SHOW {name}") == value, name
    assert primary.sql("SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL") == []
    assert primary.sql("SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL") == []


def test_the_users_own_lines_stay_and_the_include_is_appended_once(primary):
    path = primary.data_dir / "postgresql.conf"
    with path.open("ab") as file:
        file.write(b"# Stra\xdfe, in latin-1, without an end of line")
    assert not write_settings(primary.data_dir, primary.settings)
    text = path.read_bytes()
    path.write_bytes(text.replace(b"include 'appliance.conf'", b""))
    assert write_settings(primary.data_dir, primary.settings)
    assert not write_settings(primary.data_dir, primary.settings)
    assert path.read_bytes().count(b"\ninclude 'appliance.conf'\n") == 1
    assert b"Stra\xdfe" in path.read_bytes()


def test_alter_system_is_noticed_and_taken_back(primary):
    primary.sql("ALTER SYSTEM SET wal_keep_size = '1GB'")
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'a, \"b''c\"'")
    primary.sql("ALTER SYSTEM SET max_connections = 20")
    primary.sql("ALTER SYSTEM SET work_mem = '8MB'")
    primary.sql("SELECT pg_reload_conf()")
    primary.until(lambda seen: primary.value("SHOW wal_keep_size") == "1GB")
    foreign = foreign_auto_conf(primary.data_dir, CONTROLLED)
    assert foreign == {
        "wal_keep_size": "1GB", "synchronous_standby_names": "a, \"b'c\"", "max_connections": "20",
    }  # fmt: skip
    assert clean_auto_conf(primary.data_dir, CONTROLLED) == foreign
    assert clean_auto_conf(primary.data_dir, CONTROLLED) == {}
    primary.sql("SELECT pg_reload_conf()")
    primary.until(lambda seen: primary.value("SHOW wal_keep_size") == "128MB")
    assert primary.value("SHOW work_mem") == "8MB"
    assert "wal_keep_size = '1GB'" in (primary.data_dir / "postgresql.auto.conf.before-appliance").read_text()


def test_the_command_line_wins_over_alter_system_even_uncleaned(primary):
    primary.sql("ALTER SYSTEM SET max_connections = 20")
    primary.sql("ALTER SYSTEM SET wal_level = 'minimal'")
    primary.stop()
    primary.start()
    assert primary.value("SHOW max_connections") == "100"
    assert primary.value("SHOW wal_level") == "replica"


def test_a_standby_starts_with_what_its_primary_had(pair):
    primary, standby = pair
    primary.settings = replace(
        primary.settings, parameters={"max_connections": "130", "max_prepared_transactions": "7"}
    )
    primary.stop()
    primary.start()
    primary.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    standby.until(lambda seen: seen.replay_paused)  # PostgreSQL waits for a restart with more
    standby.stop()
    standby.start(standby=True)
    standby.caught_up(primary)
    assert standby.value("SHOW max_connections") == "130"
    assert standby.value("SHOW max_prepared_transactions") == "7"
    assert standby.seen().pending_restart == ()


def test_lines_for_applications_come_after_the_appliances_own(pair):
    primary, standby = pair
    primary.settings = replace(primary.settings, hba=("host all all all reject",))
    primary.reload()
    primary.sql("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="rejects"):
        psycopg.connect(host="127.0.0.1", port=primary.port, user="app", password="x", dbname="postgres")
    standby.stop()
    standby.start(standby=True)
    standby.until(lambda seen: seen.streaming)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("work_mem", "a lot", "invalid value for parameter"),
        ("max_connections", "-1", "outside the valid range"),
        ("max_conections", "5", "unrecognized configuration parameter"),
        ("fsync", "off", "must be on"),
    ],
)
def test_a_value_that_postgresql_would_not_take_is_known_before_it_is_given(primary, name, value, said):
    wrong = replace(primary.settings, parameters={"work_mem": "5MB", name: value})
    with pytest.raises(SettingsError, match=said):
        check_values(primary.binaries, primary.data_dir, wrong)
    check_values(primary.binaries, primary.data_dir, replace(primary.settings, parameters={"work_mem": "5MB"}))
    assert primary.seen()


def test_values_are_judged_without_a_data_directory_and_all_at_once(binaries):
    given = {
        "work_mem": "a lot",
        "shared_bufers": "1GB",
        "wal_level": "some",
        "log_min_messages": "panic",
        "my.own": "x",
    }
    found = refused_values(binaries, given)
    assert list(found) == ["work_mem", "shared_bufers", "wal_level"]
    assert found["work_mem"] == 'invalid value for parameter "work_mem": "a lot"'
    assert found["shared_bufers"].endswith("; did you mean shared_buffers?")
    assert "Available values: minimal, replica, logical" in found["wal_level"]
    assert refused_values(binaries, {"work_mem": "5MB"}) == {}
