"""What PostgreSQL complained about since its last start."""

from appliance.postgres.last_words import last_words, plain

START = "2026-11-23 05:53:22.042 UTC [2] LOG:  starting PostgreSQL 15.18\n"
PORT_TAKEN = """\
2026-11-23 05:53:22.042 UTC [2] LOG:  could not bind IPv4 address "127.0.0.1": Address already in use
2026-11-23 05:53:22.042 UTC [2] HINT:  Is another postmaster already running on port 5432?
2026-11-23 05:53:22.042 UTC [2] FATAL:  could not create any TCP/IP sockets
2026-11-23 05:53:22.043 UTC [2] LOG:  database system is shut down
"""
PORT_TAKEN_SAID = (
    'could not bind IPv4 address "127.0.0.1": Address already in use'
    " (Is another postmaster already running on port 5432?); could not create any TCP/IP sockets"
)


def written(tmp_path, text):
    log = tmp_path / "postgres.log"
    log.write_text(text)
    return log


def test_only_the_last_start_counts(tmp_path):
    log = written(
        tmp_path, f"{START}2026-11-23 05:50:00.000 UTC [1] FATAL:  something of long ago\n{START}{PORT_TAKEN}"
    )
    assert last_words(log) == PORT_TAKEN_SAID


def test_a_line_that_says_no_more_than_log_counts_when_it_is_explained(tmp_path):
    said = """\
2026-11-23 08:10:26.848 UTC [3] LOG:  invalid connection type "junk"
2026-11-23 08:10:26.848 UTC [3] CONTEXT:  line 7 of configuration file "/data/appliance_hba.conf"
2026-11-23 08:10:26.848 UTC [3] FATAL:  could not load pg_hba.conf
2026-11-23 08:10:26.856 UTC [3] LOG:  database system is shut down
"""
    assert last_words(written(tmp_path, START + said)) == (
        'invalid connection type "junk" (line 7 of configuration file "/data/appliance_hba.conf");'
        " could not load pg_hba.conf"
    )


def test_what_is_said_before_there_is_a_log_counts(tmp_path):
    """Such a start has no line to begin with: what an earlier one said must not hide it."""
    early = "postgres: superuser_reserved_connections (200) must be less than max_connections (100)\n"
    before = START + "2026-11-23 05:50:00.000 UTC [1] ERROR:  something of long ago\n" * 9
    log = written(tmp_path, before + early)
    assert last_words(log, len(before)) == early.removeprefix("postgres: ").strip()
    assert last_words(written(tmp_path, early), 10**6) == early.removeprefix("postgres: ").strip(), "a log that was cut"


def test_clients_and_what_every_start_says_are_no_reason(tmp_path):
    said = """\
2026-11-23 08:26:42.186 UTC [5] LOG:  database system was interrupted while in recovery at log time 2026-11-23
2026-11-23 08:26:42.186 UTC [5] HINT:  If this has occurred more than once some data might be corrupted.
2026-11-23 08:26:42.187 UTC [6] postgres@postgres FATAL:  the database system is starting up
2026-11-23 08:26:42.187 UTC [6] postgres@postgres DETAIL:  it is
2026-11-23 08:26:42.190 UTC [5] WARNING:  specified neither primary_conninfo nor restore_command
2026-11-23 08:26:42.190 UTC [5] HINT:  The database server will regularly poll the pg_wal subdirectory.
2026-11-23 08:26:42.200 UTC [5] FATAL:  could not write to file "pg_wal/xlogtemp.5": No space left on device
"""
    reason = 'could not write to file "pg_wal/xlogtemp.5": No space left on device'
    assert last_words(written(tmp_path, START + said)) == reason


def test_nothing_is_known_without_a_log(tmp_path):
    assert last_words(tmp_path / "postgres.log") == ""


def test_a_repeated_complaint_is_told_once_and_not_at_any_length(tmp_path):
    log = tmp_path / "postgres.log"
    log.write_text("FATAL:  no\n" * 10 + f"FATAL:  {'x' * 2000}\n")
    assert last_words(log).startswith("…xxx")
    assert len(last_words(log)) == 500
    log.write_text("FATAL:  no\n" * 10 + "FATAL:  room\n")
    assert last_words(log) == "no; room"


def test_what_a_program_says_comes_without_times_and_process_ids():
    said = [
        '2026-11-23 08:31:19.772 GMT [18923] FATAL:  invalid value for parameter "work_mem": "5XB"',
        '2026-11-23 08:31:19.772 GMT [18923] HINT:  Valid units are "B" and "kB".',
        "",
        "postgres: no luck",
    ]
    assert plain(said) == (
        'invalid value for parameter "work_mem": "5XB"; Valid units are "B" and "kB"; postgres: no luck'
    )
