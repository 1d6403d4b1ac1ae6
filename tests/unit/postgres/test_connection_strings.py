from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from appliance.postgres.conninfo import conninfo, keywords
from appliance.postgres.dsn import dsn

HOSTS = [("10.0.0.11", 5432), ("fd00::12", 5433)]


def test_libpq_reads_what_a_standby_is_given():
    written = conninfo(host="fd00::12", port=5433, user="u", passfile=Path("/a dir/it's"), application_name="pg 1")
    read = conninfo_to_dict(written)
    assert (read["host"], read["port"], read["user"]) == ("fd00::12", "5433", "u")
    assert (read["passfile"], read["application_name"]) == ("/a dir/it's", "pg 1")
    assert "password" not in read
    assert "dbname" not in read


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
