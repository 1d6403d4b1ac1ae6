import pytest

from appliance.postgres import binaries
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


def test_the_path_is_searched_for_a_complete_server(server, monkeypatch):
    places = [server("a", "15.1", ["pg_rewind"]), server("b", "18beta1"), server("c", "14.9")]
    monkeypatch.setenv("PATH", ":".join(str(place) for place in places))
    found = find()
    assert (found.directory, found.version, found.major) == (places[1], "18beta1", 18)


def test_what_is_nowhere_is_named_with_every_place_and_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(binaries, "_DEBIAN", tmp_path)
    (tmp_path / "17" / "bin").mkdir(parents=True)
    monkeypatch.setattr(binaries.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        NoBinaries, match=r"no complete PostgreSQL 14 to 18 found.*the package postgresql-17"
    ) as refused:
        find()
    assert f"{tmp_path}/17/bin: postgres, initdb" in str(refused.value)
