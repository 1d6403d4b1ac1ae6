import pytest

from appliance.postgres.binaries import TOOLS, find
from appliance.postgres.errors import NoBinaries


@pytest.fixture
def server(tmp_path):
    """A directory of programs that say which version they are."""

    def make(name, version, without=()):
        directory = tmp_path / name
        directory.mkdir()
        for tool in set(TOOLS) - set(without):
            (directory / tool).write_text(f"#!/bin/sh\necho '{tool} (PostgreSQL) {version}'\n")
            (directory / tool).chmod(0o755)
        return directory

    return make


def test_a_given_directory_is_the_only_place(server):
    found = find(server("bin", "16.3 (Debian 16.3-1)"))
    assert (found.version, found.major) == ("16.3", 16)
    assert found.tool("initdb").endswith("/bin/initdb")


@pytest.mark.parametrize(
    ("version", "without", "message"),
    [
        ("16.3", ["pg_rewind", "initdb"], "initdb, pg_rewind missing or not executable"),
        ("13.1", [], "is 13.1, outside 14 to 18"),
        ("nonsense", [], "about its version"),
    ],
)
def test_what_is_wrong_there_is_said_with_what_would_do(server, version, without, message):
    with pytest.raises(NoBinaries, match=message) as refused:
        find(server("bin", version, without))
    assert "correct postgresql.bin_dir" in str(refused.value)


def test_the_path_is_searched_for_a_complete_server_of_the_wanted_version(server, monkeypatch):
    places = [server("a", "15.1", ["pg_rewind"]), server("b", "16.3"), server("c", "14.9"), server("d", "18beta1")]
    monkeypatch.setenv("PATH", ":".join(str(place) for place in places))
    assert find().directory == places[1]
    assert find(major=14).directory == places[2]
    assert find(major=18).version == "18beta1"


def test_a_version_that_is_nowhere_names_the_package(server, monkeypatch):
    place = server("b", "16.3")
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(
        NoBinaries, match=r"no complete PostgreSQL 14 found.*install the package postgresql-14"
    ) as refused:
        find(major=14)
    assert f"{place}: is 16.3" in str(refused.value)
