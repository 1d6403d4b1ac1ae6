"""`raft show` and `raft recover`: what is shown, everything that stands in the way, and what is done."""

import json
import os
import shutil
import socket

import pytest

from appliance.cluster.codec import encode_command
from appliance.cluster.commands import Announce, BeginBootstrap, FinishBootstrap
from appliance.cluster.state import Member as DataMember
from appliance.cluster.state import NodeRole, Position
from appliance.node.privileges import run_user
from raft import Member, Members
from raft.applier import Submission
from raft.disk import OsDisk
from raft.entries import COMMAND
from raft.journal import Journal
from tests.harness.places import fresh_directory, give

NAMES = ("n1", "n2", "n3")


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    with open(os.devnull) as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        yield


class Hosts:
    """The state directories of a group of three with a primary, no process among them."""

    def __init__(self, directory, ports):
        self.directory = directory
        self.places = {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, ports, strict=True)}
        self.members = Members.of(Member(name, f"id-{name}", place, "voter") for name, place in self.places.items())
        for name in NAMES:
            self.write(name)

    def raft(self, name):
        return self.directory / name / "raft"

    def config(self, name):
        path = self.directory / f"{name}.yml"
        path.write_text(json.dumps({"name": name, "cluster": "shop", "members": self.places, **self._places(name)}))
        return path

    def _places(self, name):
        return {"state_dir": str(self.directory / name)}

    def write(self, name, term=3, more=0, cluster_id="cafe", replica_id=""):
        """The bootstrap, and so many entries that do nothing after it."""
        disk = OsDisk(self.raft(name))
        for file in self.raft(name).glob("journal*"):
            file.unlink()
        journal = Journal(disk, "shop", name, draw_id=lambda: replica_id or f"id-{name}")
        if cluster_id:
            journal.found(cluster_id, self.members)
            journal.set_term(term, None)
            for number, command in enumerate([*_story(), *[None] * more]):
                content = b"\1" if command is None else COMMAND + Submission(str(number), 0, command).pack()
                journal.add(content, journal.last_index + 1, term)
            journal.sync()
        journal.close()
        disk.close()


def _story():
    member = DataMember("n1", NodeRole.DATA, "127.0.0.1:1", "http://127.0.0.1:2", "127.0.0.1:3")
    commands = (
        Announce(member),
        BeginBootstrap("shop", "n1", {}),
        FinishBootstrap("n1", "7423474350493388827", "inc", Position(1, 0x3000060), "2026-11-23T04:00:00+00:00"),
    )
    return [encode_command(command) for command in commands]


@pytest.fixture
def sockets():
    """Ports that are taken, so that nobody else answers there; they answer only once one listens."""
    taken = [socket.socket() for _ in NAMES]
    for one in taken:
        one.bind(("127.0.0.1", 0))
    yield dict(zip(NAMES, taken, strict=True))
    for one in taken:
        one.close()


@pytest.fixture
def hosts(tmp_path, sockets):
    return Hosts(tmp_path, [one.getsockname()[1] for one in sockets.values()])


@pytest.fixture
def shown(appliance, hosts, tmp_path):
    """What `raft show -o json` wrote on a host, as a file."""

    def show(name):
        path = tmp_path / f"{name}.json"
        path.write_text(appliance("raft", "show", "--dir", hosts.raft(name), "-o", "json").out)
        return path

    return show


def failed(found):
    """The codes of the checks that did not pass, with whom they are about."""
    rows = [line.split() for line in found.err.splitlines() if line.startswith("✗")]
    return [(row[1], row[2]) for row in rows]


def test_show_prints_numbers_primary_and_position(appliance, hosts):
    found = appliance("raft", "show", "--config", hosts.config("n3"))
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert lines[1].split() == ["n3", "0", "3", "3", "4", "1", "1", "n1", "1:0/3000060"]
    assert "id cafe, replica id-n3" in found.out
    assert f"n2 (voter, {hosts.places['n2']})" in found.out


def test_show_writes_what_recover_reads(appliance, hosts):
    found = json.loads(appliance("raft", "show", "--dir", hosts.raft("n3"), "-o", "json").out)
    assert (found["log"]["last_term"], found["log"]["last_index"], found["epoch"]) == (3, 4, 1)
    assert (found["primary"], found["position"]) == ("n1", {"timeline": 1, "lsn": 0x3000060})


def test_a_directory_without_a_journal_is_said(appliance, hosts, tmp_path):
    found = appliance("raft", "show", "--dir", tmp_path)
    assert (found.code, found.err) == (1, f"appliance: {tmp_path}/journal: no such file or directory\n")


def test_the_cluster_goes_on_from_here(appliance, hosts):
    config = hosts.config("n3")
    found = appliance("raft", "recover", "--config", config, "--dead", "n1", "--dead", "n2", "--yes")
    assert found.code == 0, found.err
    copy = json.loads(appliance("raft", "show", "--config", config, "-o", "json").out)
    incarnation = copy["log"]["incarnation"]
    assert incarnation > 1_700_000_000
    kept = hosts.raft("n3") / f"journal.before-incarnation-{incarnation}"
    assert kept.exists()
    assert f"✓ n3 goes on alone, as incarnation {incarnation}; the journal as it was is {kept}" in found.out
    assert "on n1, n2, whether repaired or new hosts, before their nodes start: remove" in found.out
    assert (copy["log"]["last_index"], copy["epoch"]) == (5, 1)
    roles = {member["name"]: member["role"] for member in copy["log"]["members"]["all"]}
    assert roles == {"n1": "joining", "n2": "joining", "n3": "voter"}


@pytest.mark.skipif(os.geteuid() != 0, reason="writes as root what belongs to another user")
def test_what_root_writes_belongs_to_the_user_of_the_node(appliance, sockets):
    directory = fresh_directory()  # unlike pytest's, one that the user may enter
    hosts = Hosts(directory, [one.getsockname()[1] for one in sockets.values()])
    for path in (directory / "n3", hosts.raft("n3"), *hosts.raft("n3").iterdir()):
        give(path)
    found = appliance("raft", "recover", "--config", hosts.config("n3"), "--dead", "n1", "--dead", "n2", "--yes")
    assert found.code == 0, found.err
    assert {path.stat().st_uid for path in hosts.raft("n3").iterdir()} == {run_user().pw_uid}
    assert os.geteuid() == 0
    shutil.rmtree(directory)


def test_a_dry_run_shows_the_copies_side_by_side_and_changes_nothing(appliance, hosts, shown):
    before = (hosts.raft("n3") / "journal").read_bytes()
    command = ["raft", "recover", "--config", hosts.config("n3"), "--with", shown("n2"), "--dead", "n1", "--dry-run"]
    found = appliance(*command)
    assert found.code == 4
    assert failed(found) == [("cluster", "majority.lives")]
    assert "2 of 3 voters left (n2, n3), a majority is 2: start their nodes" in found.err
    copies = json.loads(appliance(*command, "-o", "json").out)["copies"]
    assert [copy["log"]["name"] for copy in copies] == ["n3", "n2"]
    assert (hosts.raft("n3") / "journal").read_bytes() == before
    assert sorted(path.name for path in hosts.raft("n3").iterdir()) == ["journal", "lock", "reserve"]


def test_a_wiped_survivor_counts_for_no_majority(appliance, hosts, shown):
    hosts.write("n2", more=0, replica_id="another")
    command = ["raft", "recover", "--config", hosts.config("n3"), "--with", shown("n2"), "--dead", "n1"]
    assert appliance(*command, "--dry-run").code == 0


@pytest.mark.parametrize(("term", "more"), [(3, 1), (4, 0)])
def test_another_copy_that_is_more_complete_is_refused(appliance, hosts, shown, term, more):
    hosts.write("n2", term=term, more=more)
    found = appliance("raft", "recover", "--config", hosts.config("n3"), "--with", shown("n2"), "--dead", "n1", "--yes")
    assert found.code == 4
    assert ("n2", "copy.more_complete") in failed(found)
    last = f"its last entry is {4 + more} of term {term}, incarnation 0, the one here is 4 of term 3, incarnation 0"
    assert f"{last}: recover on n2 instead" in found.err


def test_a_copy_of_another_group_is_refused(appliance, hosts, shown):
    hosts.write("n2", cluster_id="beef")
    found = appliance("raft", "recover", "--config", hosts.config("n3"), "--with", shown("n2"), "--dead", "n1", "--yes")
    assert found.code == 4
    assert ("n2", "copy.other_group") in failed(found)


def test_who_is_neither_given_nor_named_may_live(appliance, hosts):
    found = appliance("raft", "recover", "--config", hosts.config("n3"), "--dead", "n1", "--yes")
    assert found.code == 4
    assert failed(found) == [("n2", "member.accounted")]
    assert "run `appliance raft show -o json`, and give that here with --with; or --dead n2" in found.err


def test_who_answers_is_not_dead(appliance, hosts, sockets):
    sockets["n1"].listen()
    command = ["raft", "recover", "--config", hosts.config("n3"), "--dead", "n1", "--dead", "n2", "--yes"]
    found = appliance(*command)
    assert found.code == 4
    assert failed(found) == [("n1", "member.dead")]
    sockets["n1"].close()
    assert appliance(*command).code == 0


def test_a_name_that_is_none_of_the_others_is_refused(appliance, hosts):
    for name in ("n4", "n3"):
        dead = [word for one in ("n1", "n2", name) for word in ("--dead", one)]
        found = appliance("raft", "recover", "--config", hosts.config("n3"), *dead, "--yes")
        assert found.code == 4
        assert failed(found) == [(name, "member.unknown")]


def test_a_copy_of_one_named_dead_is_a_contradiction(appliance, hosts, shown):
    dead = ["--dead", "n1", "--dead", "n2"]
    found = appliance("raft", "recover", "--config", hosts.config("n3"), "--with", shown("n2"), *dead, "--yes")
    assert found.code == 4
    assert ("n2", "member.accounted") in failed(found)


def test_a_journal_that_never_belonged_anywhere_is_refused(appliance, hosts):
    hosts.write("n3", cluster_id="")
    found = appliance("raft", "recover", "--config", hosts.config("n3"), "--yes")
    assert found.code == 4
    assert ("n3", "copy.empty") in failed(found)


def test_a_node_that_runs_is_left_alone(appliance, hosts):
    disk = OsDisk(hosts.raft("n3"))
    for command in (["show"], ["recover", "--dead", "n1", "--dead", "n2", "--yes"]):
        found = appliance("raft", *command, "--config", hosts.config("n3"))
        assert found.code == 4
        assert "is in use by another process: stop it" in found.err
        assert "appliance raft status" in found.err
    disk.close()


def test_without_a_terminal_and_without_yes_nothing_happens(appliance, hosts):
    before = (hosts.raft("n3") / "journal").read_bytes()
    found = appliance("raft", "recover", "--config", hosts.config("n3"), "--dead", "n1", "--dead", "n2")
    assert found.code == 4
    assert "there is no terminal to ask on; pass --yes" in found.err
    assert (hosts.raft("n3") / "journal").read_bytes() == before


def test_the_journal_of_another_node_is_refused(appliance, hosts):
    path = hosts.config("n3")
    path.write_text(json.dumps({**json.loads(path.read_text()), "raft": {"dir": str(hosts.raft("n2"))}}))
    found = appliance("raft", "recover", "--config", path, "--dead", "n1", "--dead", "n2", "--yes")
    assert found.code == 4
    assert "holds the journal of n2 of cluster shop, this is n3 of shop" in found.err


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 1}', "\x00"])
def test_a_file_that_is_no_copy_is_2(appliance, hosts, tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    found = appliance("raft", "recover", "--config", hosts.config("n3"), "--with", tmp_path / "other.json", "--yes")
    assert found.code == 2
    assert "give what `appliance raft show -o json` wrote" in found.err
