"""`raft show` and `raft recover`: what is shown, everything that stands in the way, and what is done."""

import json
import os
import shutil
import socket

import pytest

from appliance.cluster.codec import encode_command
from appliance.cluster.commands import Announce, BeginBootstrap, FinishBootstrap, Rebuild, Rebuilt
from appliance.cluster.state import Member as DataMember
from appliance.cluster.state import NodeRole, Position
from appliance.node.privileges import run_user
from appliance.postgres.incarnation import Incarnation, write_incarnation
from raft import Member, Members
from raft.applier import Submission
from raft.disk import OsDisk
from raft.entries import COMMAND, members_entry
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
            self.data(name).mkdir()
            (self.data(name) / "pg_wal").mkdir()
            (self.data(name) / "pg_wal" / "000000010000000000000003").touch()
            write_incarnation(self.data(name), Incarnation(f"inc-{name}"))

    def raft(self, name):
        return self.directory / name / "raft"

    def config(self, name):
        path = self.directory / f"{name}.yml"
        path.write_text(json.dumps({"name": name, "cluster": "shop", "members": self.places, **self._places(name)}))
        return path

    def _places(self, name):
        return {"state_dir": str(self.directory / name), "postgresql": {"data_dir": str(self.data(name))}}

    def data(self, name):
        return self.directory / f"{name}-data"

    def write(self, name, term=3, more=0, cluster_id="cafe", replica_id=""):
        """The bootstrap, and so many entries that do nothing after it."""
        disk = OsDisk(self.raft(name))
        for file in self.raft(name).glob("journal*"):
            file.unlink()
        journal = Journal(disk, "shop", name, draw_id=lambda: replica_id or f"id-{name}")
        if cluster_id:
            journal.found(cluster_id, self.members)
            journal.set_term(term, None)
            for number, command in enumerate([*_story()[: min(0, more) or None], *[None] * more]):
                content = b"\1" if command is None else COMMAND + Submission(str(number), 0, command).pack()
                journal.add(content, journal.last_index + 1, term)
            journal.sync()
        journal.close()
        disk.close()

    def let_all_vote(self, name):
        disk = OsDisk(self.raft(name))
        journal = Journal(disk, "shop", name, draw_id=lambda: "")
        journal.add(members_entry(self.members), journal.last_index + 1, journal.term)
        journal.sync()
        journal.close()
        disk.close()


def _story():
    """n1 is the primary; n3 has data, and of n2's it is not known that it has."""
    places = {name: f"127.0.0.1:{number}" for number, name in enumerate(NAMES, 1)}
    commands = (
        *(Announce(DataMember(n, NodeRole.DATA, place, "http://127.0.0.1:4", place)) for n, place in places.items()),
        BeginBootstrap("shop", "n1", {}),
        FinishBootstrap("n1", "7423474350493388827", "inc-n1", Position(1, 0x3000060), "2026-11-23T04:00:00+00:00"),
        Rebuild("n3"),
        Rebuilt("n3", "inc-n3"),
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
        path.write_text(appliance("raft", "show", "--config", hosts.config(name), "-o", "json").out)
        return path

    return show


def failed(found):
    """The codes of the checks that did not pass, with whom they are about."""
    rows = [line.split() for line in found.err.splitlines() if line.startswith("✗")]
    return [(row[1], row[2]) for row in rows]


NOTHING = {"id": "", "recovery": 0}
"""Where only a replica's directory is shown, nobody knows what data lies beside it."""


def test_show_prints_numbers_primary_and_position(appliance, hosts):
    found = appliance("raft", "show", "--config", hosts.config("n3"))
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert lines[1].split() == ["n3", "0", "3", "3", "8", "1", "1", "n1", "1:0/3000060"]
    assert "id cafe, replica id-n3" in found.out
    assert "data directory: inc-n3, recovery 0, timeline 1" in found.out
    shutil.rmtree(hosts.data("n3"))
    assert "data directory: none that is complete" in appliance("raft", "show", "--config", hosts.config("n3")).out
    assert "data directory: not looked at" in appliance("raft", "show", "--dir", hosts.raft("n3")).out
    assert f"n2 (voter, {hosts.places['n2']})" in found.out


def test_show_writes_what_recover_reads(appliance, hosts):
    found = json.loads(appliance("raft", "show", "--dir", hosts.raft("n3"), "-o", "json").out)
    assert (found["log"]["last_term"], found["log"]["last_index"], found["epoch"]) == (3, 8, 1)
    assert (found["data"], found["directories"]) == (NOTHING, {"n1": "inc-n1", "n3": "inc-n3"})
    assert (found["primary"], found["position"]) == ("n1", {"timeline": 1, "lsn": 0x3000060})


def test_a_directory_without_a_journal_is_said(appliance, hosts, tmp_path):
    found = appliance("raft", "show", "--dir", tmp_path)
    assert (found.code, found.err) == (1, f"appliance: {tmp_path}/journal: no such file or directory\n")


def test_the_cluster_goes_on_from_here(appliance, hosts):
    config = hosts.config("n3")
    found = appliance(
        "raft", "recover", "--allow-data-loss", "--config", config, "--dead", "n1", "--dead", "n2", "--yes"
    )
    assert found.code == 0, found.err
    copy = json.loads(appliance("raft", "show", "--config", config, "-o", "json").out)
    incarnation = copy["log"]["incarnation"]
    assert incarnation > 1_700_000_000
    kept = hosts.raft("n3") / f"journal.before-incarnation-{incarnation}"
    assert kept.exists()
    assert f"✓ n3 goes on alone, as incarnation {incarnation}; the journal as it was is {kept}" in found.out
    assert "on n1, n2, whether repaired or new hosts, before their nodes start: remove" in found.out
    assert (copy["log"]["last_index"], copy["epoch"]) == (10, 1)
    assert copy["recovery"] == {"number": incarnation, "kept": {"n3": "inc-n3"}}
    assert copy["directories"] == {"n3": "inc-n3"}, "n1 has none that counts"
    roles = {member["name"]: member["role"] for member in copy["log"]["members"]["all"]}
    assert roles == {"n1": "joining", "n2": "joining", "n3": "voter"}


@pytest.mark.skipif(os.geteuid() != 0, reason="writes as root what belongs to another user")
def test_what_root_writes_belongs_to_the_user_of_the_node(appliance, sockets):
    directory = fresh_directory()  # unlike pytest's, one that the user may enter
    hosts = Hosts(directory, [one.getsockname()[1] for one in sockets.values()])
    for path in (directory / "n3", hosts.raft("n3"), *hosts.raft("n3").iterdir()):
        give(path)
    found = appliance(
        "raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), "--dead", "n1", "--dead", "n2", "--yes"
    )
    assert found.code == 0, found.err
    assert {path.stat().st_uid for path in hosts.raft("n3").iterdir()} == {run_user().pw_uid}
    assert os.geteuid() == 0
    shutil.rmtree(directory)


def kept_by(appliance, hosts, *arguments):
    found = appliance(
        "raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), *arguments, "--yes", "-o", "json"
    )
    assert found.code == 0, found.err
    after = json.loads(appliance("raft", "show", "--config", hosts.config("n3"), "-o", "json").out)
    assert after["recovery"]["number"] == after["log"]["incarnation"] == json.loads(found.out)["incarnation"]
    assert after["recovery"]["kept"] == json.loads(found.out)["data"]
    return after["recovery"]["kept"]


def test_r13a_the_data_beside_copies_that_were_given_is_kept_too(appliance, hosts, shown):
    hosts.write("n2", more=-1, replica_id="another")
    given = shown("n2")
    command = ["raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), "--with", given, "--dead", "n1"]
    found = appliance(*command, "--yes")
    assert found.code == 0, found.err
    assert f"2. on n2, before their nodes start: remove {hosts.raft('n3')} and nothing else" in found.out
    assert (
        f"3. on n1, whether repaired or new hosts, before their nodes start: remove {hosts.raft('n3')}\n" in found.out
    )
    assert f"and {hosts.data('n3')} (there as their node.yml says)" in found.out
    after = json.loads(appliance("raft", "show", "--config", hosts.config("n3"), "-o", "json").out)
    assert after["recovery"]["kept"] == {"n2": "inc-n2", "n3": "inc-n3"}


def test_r13a_a_recovered_cluster_is_recovered_again_and_data_of_before_does_not_come_back(appliance, hosts, shown):
    assert kept_by(appliance, hosts, "--dead", "n1", "--dead", "n2") == {"n3": "inc-n3"}
    returned = json.loads(shown("n2").read_text())
    for data, kept in (("inc-n2", {}), ("inc-new", {"n2": "inc-new"})):
        hosts.let_all_vote("n3")
        own = json.loads(appliance("raft", "show", "--config", hosts.config("n3"), "-o", "json").out)
        number = own["log"]["incarnation"]
        # n1 and n2 have joined since, and are lost once more; by its data n2 is of before, or has cloned
        returned["data"] = {"id": data, "recovery": number if kept else 0}
        returned["log"].update(incarnation=number, replica_id="another")
        path = hosts.directory / "returned.json"
        path.write_text(json.dumps(returned))
        assert kept_by(appliance, hosts, "--with", path, "--dead", "n1") == {"n3": "inc-n3", **kept}


def test_r13a_without_complete_data_there_is_nothing_to_go_on_with(appliance, hosts):
    """A rewind that did not end well leaves the id of its source; a standby may have followed who the lost elected."""
    command = [
        "raft",
        "recover",
        "--allow-data-loss",
        "--config",
        hosts.config("n3"),
        "--dead",
        "n1",
        "--dead",
        "n2",
        "--yes",
    ]
    mark = hosts.directory / "n3-data.rewinding"
    wal = hosts.data("n3") / "pg_wal"
    for said, spoil in (
        ("WAL of timeline 2, the log knows of 1", (wal / "00000002.history").touch),
        ("none of recovery 0", lambda: mark.write_text("a rewind began")),
        ("none of recovery 0", lambda: write_incarnation(hosts.data("n3"), Incarnation("", 0))),
        ("inc-n3 of recovery 7", lambda: write_incarnation(hosts.data("n3"), Incarnation("inc-n3", 7))),
        ("inc-other of recovery 0", lambda: write_incarnation(hosts.data("n3"), Incarnation("inc-other", 0))),
        ("none of recovery 0", lambda: shutil.rmtree(hosts.data("n3"))),
    ):
        spoil()
        found = appliance(*command)
        assert (found.code, failed(found)) == (4, [("cluster", "data.kept")])
        assert f"no complete data directory that the log here knows: n3 has {said}; give the copy of" in found.err
        mark.unlink(missing_ok=True)
        (wal / "00000002.history").unlink(missing_ok=True)


def test_r13a_a_witness_goes_on_with_the_data_of_another(appliance, hosts, shown):
    given = shown("n3")
    hosts.write("n2", more=1)
    path = hosts.config("n2")
    path.write_text(json.dumps({**json.loads(path.read_text()), "role": "witness"}))
    assert json.loads(appliance("raft", "show", "--config", path, "-o", "json").out)["data"] == NOTHING
    command = ["raft", "recover", "--allow-data-loss", "--config", path, "--dead", "n1", "--yes"]
    assert failed(appliance(*command, "--dead", "n3")) == [("cluster", "data.kept")]
    document = json.loads(given.read_text())
    document["log"]["replica_id"] = "another"
    given.write_text(json.dumps(document))
    assert appliance(*command, "--with", given).code == 0
    after = json.loads(appliance("raft", "show", "--config", path, "-o", "json").out)
    assert after["recovery"]["kept"] == {"n3": "inc-n3"}


def test_r13a_a_witness_goes_on_with_data_whose_journal_is_lost_by_the_operators_word(appliance, hosts):
    path = hosts.config("n2")
    path.write_text(json.dumps({**json.loads(path.read_text()), "role": "witness"}))
    command = ["raft", "recover", "--allow-data-loss", "--config", path, "--dead", "n1", "--yes", "--keep-data"]
    assert failed(appliance(*command, "n3"))[-1] == ("n3", "data.named"), "it may have a copy"
    command += ["n3", "--dead", "n3"]
    assert failed(appliance(*command, "--keep-data", "n2")) == [
        ("cluster", "data.kept"),
        ("n2", "data.named"),
    ]
    assert appliance(*command, "--keep-data", " ").code == 2
    found = appliance(*command)
    assert found.code == 0, found.err
    assert f"2. on n3, before their nodes start: remove {hosts.raft('n2')} and nothing else" in found.out
    after = json.loads(appliance("raft", "show", "--config", path, "-o", "json").out)
    assert after["recovery"]["kept"] == after["directories"] == {"n3": "inc-n3"}


def test_r13a_data_without_a_journal_is_not_kept_beside_data_with_one(appliance, hosts):
    dead = ["--dead", "n1", "--dead", "n2"]
    found = appliance(
        "raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), *dead, "--keep-data", "n1", "--yes"
    )
    assert (found.code, failed(found)) == (4, [("n1", "data.named")])
    assert "there is that of n3, beside a journal: go on with that, n1 is cloned" in found.err
    write_incarnation(hosts.data("n3"), Incarnation("inc-other"))
    found = appliance(
        "raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), *dead, "--keep-data", "n1", "--yes"
    )
    after = json.loads(appliance("raft", "show", "--config", hosts.config("n3"), "-o", "json").out)
    assert after["recovery"]["kept"] == {"n1": "inc-n1"}, "and no second one beside it"
    assert f"1. move {hosts.data('n3')} away: it is not kept. Then start the node here" in found.out


def test_r13a_data_that_cannot_be_looked_at_is_not_passed_over(appliance, hosts):
    (hosts.data("n3") / "appliance.incarnation").unlink()
    (hosts.data("n3") / "appliance.incarnation").mkdir()
    for command in (["show"], ["recover", "--dead", "n1", "--dead", "n2", "--yes"]):
        found = appliance("raft", *command, "--config", hosts.config("n3"))
        assert found.code == 1
        assert "it says whether the data here can be kept" in found.err


def test_a_copy_that_an_earlier_version_wrote_is_refused(appliance, hosts, shown):
    path = shown("n2")
    document = json.loads(path.read_text())
    document = {key: value for key, value in document.items() if key not in {"data", "directories", "recovery"}}
    path.write_text(json.dumps({**document, "format": 1}))
    found = appliance(
        "raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), "--with", path, "--dead", "n1", "--yes"
    )
    assert found.code == 2
    assert "format 1, this version writes 3; use the same version on all hosts" in found.err


def test_a_dry_run_shows_the_copies_side_by_side_and_changes_nothing(appliance, hosts, shown):
    before = (hosts.raft("n3") / "journal").read_bytes()
    command = [
        "raft",
        "recover",
        "--allow-data-loss",
        "--config",
        hosts.config("n3"),
        "--with",
        shown("n2"),
        "--dead",
        "n1",
        "--dry-run",
    ]
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
    command = [
        "raft",
        "recover",
        "--allow-data-loss",
        "--config",
        hosts.config("n3"),
        "--with",
        shown("n2"),
        "--dead",
        "n1",
    ]
    assert appliance(*command, "--dry-run").code == 0


@pytest.mark.parametrize(("term", "more"), [(3, 1), (4, 0)])
def test_another_copy_that_is_more_complete_is_refused(appliance, hosts, shown, term, more):
    hosts.write("n2", term=term, more=more)
    found = appliance(
        "raft",
        "recover",
        "--allow-data-loss",
        "--config",
        hosts.config("n3"),
        "--with",
        shown("n2"),
        "--dead",
        "n1",
        "--yes",
    )
    assert found.code == 4
    assert ("n2", "copy.more_complete") in failed(found)
    last = f"its last entry is {8 + more} of term {term}, incarnation 0, the one here is 8 of term 3, incarnation 0"
    assert f"{last}: recover on n2 instead" in found.err


def test_a_copy_of_another_group_is_refused(appliance, hosts, shown):
    hosts.write("n2", cluster_id="beef")
    found = appliance(
        "raft",
        "recover",
        "--allow-data-loss",
        "--config",
        hosts.config("n3"),
        "--with",
        shown("n2"),
        "--dead",
        "n1",
        "--yes",
    )
    assert found.code == 4
    assert ("n2", "copy.other_group") in failed(found)


def test_who_is_neither_given_nor_named_may_live(appliance, hosts):
    found = appliance("raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), "--dead", "n1", "--yes")
    assert found.code == 4
    assert failed(found) == [("n2", "member.accounted")]
    assert "run `appliance raft show -o json`, and give that here with --with; or --dead n2" in found.err


def test_who_answers_is_not_dead(appliance, hosts, sockets):
    sockets["n1"].listen()
    command = [
        "raft",
        "recover",
        "--allow-data-loss",
        "--config",
        hosts.config("n3"),
        "--dead",
        "n1",
        "--dead",
        "n2",
        "--yes",
    ]
    found = appliance(*command)
    assert found.code == 4
    assert failed(found) == [("n1", "member.dead")]
    sockets["n1"].close()
    assert appliance(*command).code == 0


def test_a_name_that_is_none_of_the_others_is_refused(appliance, hosts):
    for name in ("n4", "n3"):
        dead = [word for one in ("n1", "n2", name) for word in ("--dead", one)]
        found = appliance("raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), *dead, "--yes")
        assert found.code == 4
        assert failed(found) == [(name, "member.unknown")]


def test_a_copy_of_one_named_dead_is_a_contradiction(appliance, hosts, shown):
    dead = ["--dead", "n1", "--dead", "n2"]
    found = appliance(
        "raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), "--with", shown("n2"), *dead, "--yes"
    )
    assert found.code == 4
    assert ("n2", "member.accounted") in failed(found)


def test_a_journal_that_never_belonged_anywhere_is_refused(appliance, hosts):
    hosts.write("n3", cluster_id="")
    found = appliance("raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), "--yes")
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
    found = appliance(
        "raft", "recover", "--allow-data-loss", "--config", hosts.config("n3"), "--dead", "n1", "--dead", "n2"
    )
    assert found.code == 4
    assert "there is no terminal to ask on; pass --yes" in found.err
    assert (hosts.raft("n3") / "journal").read_bytes() == before


def test_the_journal_of_another_node_is_refused(appliance, hosts):
    path = hosts.config("n3")
    path.write_text(json.dumps({**json.loads(path.read_text()), "raft": {"dir": str(hosts.raft("n2"))}}))
    found = appliance("raft", "recover", "--allow-data-loss", "--config", path, "--dead", "n1", "--dead", "n2", "--yes")
    assert found.code == 4
    assert "holds the journal of n2 of cluster shop, this is n3 of shop" in found.err


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 1}', "\x00"])
def test_a_file_that_is_no_copy_is_2(appliance, hosts, tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    found = appliance(
        "raft",
        "recover",
        "--allow-data-loss",
        "--config",
        hosts.config("n3"),
        "--with",
        tmp_path / "other.json",
        "--yes",
    )
    assert found.code == 2
    assert "give what `appliance raft show -o json` wrote" in found.err


WAL = "00000001000000000000000{}"


def test_r7_what_may_be_missing_is_shown_and_accepted_only_by_name(appliance, hosts):
    """Commits of n1 waited for nobody; n3 has WAL up to 0/4000000 at most."""
    for number in (2, 3):
        with (hosts.data("n3") / "pg_wal" / WAL.format(number)).open("wb") as segment:
            segment.truncate(16 << 20)
    command = ["raft", "recover", "--config", hosts.config("n3"), "--dead", "n1", "--dead", "n2", "--yes"]
    found = appliance(*command)
    assert (found.code, failed(found)) == (4, [("cluster", "data.may_lack")])
    assert (
        "the data of n1, the last primary, is not kept, and its commits waited for nobody else (R7). n1 had written"
        " 1:0/3000060 at least, more since; the WAL of n3 ends at 0/4000000 or before" in found.err
    )
    (hosts.data("n3") / "pg_wal" / WAL.format(3)).unlink()
    found = appliance(*command)
    assert "the WAL of n3 ends at 0/3000000 or before, 96 bytes or more are missing" in found.err
    accepted = appliance(*command, "--allow-data-loss")
    assert accepted.code == 0, accepted.err


def test_r7_the_data_of_the_last_primary_has_everything(appliance, hosts, shown):
    given = json.loads(shown("n1").read_text())
    given["log"]["replica_id"] = "another"
    path = hosts.directory / "n1.json"
    path.write_text(json.dumps(given))
    command = ["raft", "recover", "--config", hosts.config("n3"), "--with", path, "--dead", "n2", "--yes"]
    assert appliance(*command).code == 0
