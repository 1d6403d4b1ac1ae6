"""What PostgreSQL complained about since its last start."""

from appliance.postgres.last_words import last_words

LOG = """\
2026-11-23 05:50:00.000 UTC [1] LOG:  starting PostgreSQL 15.18
2026-11-23 05:50:00.000 UTC [1] FATAL:  something of long ago
2026-11-23 05:53:22.042 UTC [2] LOG:  starting PostgreSQL 15.18
2026-11-23 05:53:22.042 UTC [2] LOG:  could not bind IPv4 address "127.0.0.1": Address already in use
2026-11-23 05:53:22.042 UTC [2] HINT:  Is another postmaster already running on port 5432?
2026-11-23 05:53:22.042 UTC [2] FATAL:  could not create any TCP/IP sockets
2026-11-23 05:53:22.043 UTC [2] LOG:  database system is shut down
"""


def test_only_the_last_start_counts(tmp_path):
    log = tmp_path / "postgres.log"
    log.write_text(LOG)
    said = "Is another postmaster already running on port 5432?; could not create any TCP/IP sockets"
    assert last_words(log) == said


def test_nothing_is_known_without_a_log(tmp_path):
    assert last_words(tmp_path / "postgres.log") == ""


def test_a_repeated_complaint_is_told_once_and_not_at_any_length(tmp_path):
    log = tmp_path / "postgres.log"
    log.write_text("FATAL:  no\n" * 10 + f"FATAL:  {'x' * 2000}\n")
    assert last_words(log).startswith("no; xxx")
    assert len(last_words(log)) == 500
