from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from appliance.postgres.conninfo import LINK_PATIENCE, conninfo, keywords
from appliance.postgres.dsn import CLIENT_PATIENCE, dsn
from appliance.postgres.settings import DEFAULTS

CA = Path("/a dir/ca.crt")
HOSTS = [("10.0.0.11", 5432), ("fd00::12", 5433)]


def test_libpq_reads_what_a_standby_is_given():
    written = conninfo(host="fd00::12", port=5433, user="u", passfile=Path("/a dir/it's"), application_name="pg 1")
    read = conninfo_to_dict(written)
    assert (read["host"], read["port"], read["user"]) == ("fd00::12", "5433", "u")
    assert (read["passfile"], read["application_name"]) == ("/a dir/it's", "pg 1")
    assert "password" not in read
    assert "dbname" not in read


@pytest.mark.parametrize(
    ("host", "major", "mode"),
    [
        ("pg1.example", 15, "verify-full"),
        ("10.0.0.11", 15, "verify-full"),
        ("fd00::11", 18, "verify-full"),
        ("pg1.example", 14, "verify-full"),
        ("10.0.0.11", 14, "verify-ca"),
        ("fd00::11", 14, "verify-ca"),
    ],
)
def test_with_an_authority_the_other_end_is_verified_as_well_as_its_libpq_can(host, major, mode):
    read = conninfo_to_dict(conninfo(host=host, port=1, user="u", ca=CA, major=major))
    assert (read["sslmode"], read["sslrootcert"]) == (mode, str(CA))
    without = conninfo_to_dict(conninfo(host=host, port=1, user="u", major=major))
    assert without["sslmode"] == "prefer"
    assert "sslrootcert" not in without


@pytest.mark.parametrize("patience", [LINK_PATIENCE, CLIENT_PATIENCE], ids=["links", "clients"])
def test_silence_is_noticed_as_soon_as_data_that_nobody_acknowledges(patience):
    given = {name: int(value) for name, value in patience.items()}
    silence_s = given["keepalives_idle"] + given["keepalives_interval"] * given["keepalives_count"]
    assert silence_s * 1000 == given["tcp_user_timeout"]
    assert given["keepalives_count"] > 1, "one lost packet ends no connection"
    assert given["connect_timeout"] >= 2, "libpq takes 2 s for less"


def test_a_link_is_no_less_patient_than_the_receiver_on_it():
    read = conninfo_to_dict(conninfo(host="pg1", port=1, user="u"))
    assert DEFAULTS["wal_receiver_timeout"] == "5s"
    assert read["tcp_user_timeout"] == "5000"


@given(
    st.dictionaries(
        st.sampled_from(["host", "user", "options"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    )
)
def test_libpq_reads_every_value_as_it_was(values):
    assert conninfo_to_dict(keywords(values)) == values


def test_one_uri_names_every_member_and_libpq_reads_it():
    written = dsn(HOSTS, dbname="orders", user="app", password="p@ss/w:rd")
    assert written == (
        "postgresql://app:p%40ss%2Fw%3Ard@10.0.0.11:5432,[fd00::12]:5433/orders?target_session_attrs=read-write"
    )
    read = conninfo_to_dict(written)
    assert read["password"] == "p@ss/w:rd"
    assert (read["host"], read["port"]) == ("10.0.0.11,fd00::12", "5432,5433")


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ({"target_session_attrs": ""}, "/d"),
        ({"target_session_attrs": "", "parameters": {"application_name": "a b"}}, "/d?application_name=a%20b"),
    ],
)
def test_what_is_not_asked_for_is_not_written(more, end):
    assert dsn([("h", 1)], dbname="d", **more) == f"postgresql://h:1{end}"
