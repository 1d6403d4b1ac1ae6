"""The parts of the demo that need no PostgreSQL: its directory, ports, processes, supervisor and ledger."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from appliance.cli.demo import layout as layout_module
from appliance.cli.demo import processes
from appliance.cli.demo.layout import HOST, Layout, plan
from appliance.cli.demo.load import Ledger
from appliance.cli.demo.place import closed_to, prepare
from appliance.cli.demo.supervisor import Supervisor, last_line
from appliance.cli.exits import CommandError
from appliance.node.config import NodeConfig
from raft.certificates import Subject
from raft.tls import Tls

ROOT = Path(__file__).parents[3]


@pytest.fixture
def layout(tmp_path):
    made = plan(tmp_path, 3)
    made.store("5s")
    return made


def test_every_node_has_a_file_that_loads(layout):
    configs = [NodeConfig.load(node.config) for node in layout.nodes]

    assert [config.name for config in configs] == ["n1", "n2", "n3"]
    assert len({config.postgres_address for config in configs}) == 3
    assert configs[0].members == {n.name: f"{HOST}:{n.raft_port}" for n in layout.nodes}
    assert configs[0].bootstrap.config == {"ttl": "5s"}
    assert configs[0].postgresql.data_dir == layout.nodes[0].data_dir
    assert {node.config.stat().st_mode & 0o777 for node in layout.nodes} == {0o600}
    assert Layout.load(layout.directory) == layout


def test_every_node_has_a_certificate_that_the_others_accept(layout):
    sections = [NodeConfig.load(node.config).tls for node in layout.nodes]
    certificates = [Tls(section.ca, section.cert, section.key) for section in sections]

    assert [tls.problem() for tls in certificates] == [None, None, None]
    assert [tls.subject() for tls in certificates] == [Subject("demo", name) for name in ("n1", "n2", "n3")]
    assert len({section.ca for section in sections}) == 1
    assert all(section.issuing_key.exists() for section in sections)
    keys = [path for path in layout.certificates.iterdir() if path.suffix == ".key"]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_of_a_demo_without_certificates_nothing_is_left_either(layout, appliance):
    """Made by an earlier version."""
    shutil.rmtree(layout.certificates)

    assert appliance("demo", "down", "--dir", layout.directory).code == 0
    assert not layout.directory.exists()


def test_taken_ports_are_passed_over(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setitem(layout_module.PREFERRED, "postgres", port)

        assert plan(tmp_path, 1).nodes[0].postgres_port > port


def test_what_makes_no_node_file_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(CommandError, match=r"bootstrap\.config\.ttl: 60 % of 1s is 0\.6s") as caught:
        plan(tmp_path, 1).store("1s")

    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("manifest", [None, "", "[]", '{"nodes": [{"name": "n1"}]}'])
def test_a_directory_without_a_demo(tmp_path, appliance, manifest):
    if manifest is not None:
        (tmp_path / "demo.json").write_text(manifest)
    for command in (["demo", "status"], ["demo", "load"], ["demo", "kill-primary"]):
        found = appliance(*command, "--dir", tmp_path)
        assert found.code == 2
        assert f"{tmp_path}: no demo there" in found.err


def test_nothing_to_end(tmp_path, appliance):
    found = appliance("demo", "down", "--dir", tmp_path)

    assert (found.code, found.err) == (0, f"no demo in {tmp_path}: nothing to end\n")


def test_a_link_that_somebody_has_put_there_gives_nothing_away():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as open_to_all:
        os.chmod(open_to_all, 0o755)
        precious, demo = Path(open_to_all) / "precious", Path(open_to_all) / "demo"
        precious.mkdir(mode=0o711)
        demo.symlink_to(precious)
        before = precious.stat()
        with pytest.raises(CommandError, match="is a link"):
            prepare(demo)
        after = precious.stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


def test_what_is_written_follows_no_link(tmp_path):
    """Root writes there, and the directory is the run user's."""
    precious = tmp_path / "precious"
    precious.write_text("kept")
    before = precious.stat()
    (tmp_path / ".demo.json.new").symlink_to(precious)
    layout_module.write(tmp_path / "demo.json", "written")
    (tmp_path / "supervisor.log").symlink_to(precious)
    with open(layout_module.made_anew(tmp_path / "supervisor.log"), "wb") as log:
        log.write(b"said")
    assert (precious.read_text(), precious.stat().st_uid) == ("kept", before.st_uid)
    assert (tmp_path / "demo.json").read_text() == "written"
    assert (tmp_path / "supervisor.log").read_text() == "said"
    assert not (tmp_path / "supervisor.log").is_symlink()


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CommandError, match="is not empty and has no demo") as caught:
        prepare(tmp_path)

    assert caught.value.code == 4
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(("command", "code"), [("up", 4), ("status", 6), ("load", 6), ("down", 0)])
def test_a_directory_that_one_may_not_look_into_is_one_line(command, code):
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as closed:
        os.chmod(closed, 0o700 if root else 0)
        words = [sys.executable, "-m", "appliance.cli.main", "demo", command, "--dir", f"{closed}/below"]
        user = "nobody" if root else None
        found = subprocess.run(words, cwd=ROOT, user=user, capture_output=True, text=True, timeout=30, check=False)
        os.chmod(closed, 0o700)

    assert found.returncode == code, found
    assert found.stderr.count("\n") == 1


def test_a_demo_that_runs_is_refused(layout):
    processes.note(layout.supervisor_file, os.getpid())

    with pytest.raises(CommandError, match=f"a demo runs in {layout.directory} already, pid {os.getpid()}"):
        prepare(layout.directory)


def test_the_first_directory_that_is_closed_to_a_user(tmp_path):
    nobody = pwd.getpwnam("nobody")
    home = tmp_path / "home"
    (home / "below").mkdir(parents=True)
    for place in (*tmp_path.parents[:-2], tmp_path):
        if place.stat().st_uid == os.geteuid():
            place.chmod(0o755)
    home.chmod(0o700)

    assert closed_to(nobody, home / "below") == home
    home.chmod(0o711)
    assert closed_to(nobody, home / "below" / "yet-to-be-made") is None


def test_a_pid_file_means_one_process_only(tmp_path):
    file = tmp_path / "node.pid"
    assert processes.noted(file) is None
    child = subprocess.Popen(["sleep", "60"])
    processes.note(file, child.pid)
    found = processes.noted(file)
    child.kill()
    child.wait()

    assert found is not None
    assert found.pid == child.pid
    assert processes.noted(file) is None
    file.write_text(json.dumps({"pid": os.getpid(), "started": 1.0}))
    assert processes.noted(file) is None


def test_everything_that_works_in_a_nodes_directory_is_killed_and_nothing_else(layout):
    first, second, _ = layout.nodes
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    inside = subprocess.Popen(sleeping, cwd=first.directory)
    named = subprocess.Popen([*sleeping, str(first.directory / "guard")], cwd="/")
    other = subprocess.Popen([*sleeping, str(second.directory / "guard")], cwd="/")
    reader = subprocess.Popen(["tail", "-f", str(first.config)], cwd="/", stdout=subprocess.DEVNULL)
    try:
        until(lambda: len(processes.of_node(first)) == 2)
        assert processes.kill_all(first) == 2
        assert [inside.wait(5), named.wait(5)] == [-9, -9]
        assert (other.poll(), reader.poll()) == (None, None)
    finally:
        for process in (inside, named, other, reader):
            process.kill()
            process.wait()


@pytest.fixture
def broken(layout):
    """Nodes whose files are wrong, so that each process ends by itself at once."""
    for node in layout.nodes:
        node.config.write_text("{name: n1}")
    return layout


def test_a_node_that_ends_is_started_again_and_its_last_words_are_known(broken, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    supervisor = Supervisor(broken)
    with supervisor.supervising():
        until(lambda: supervisor.look() or min(child.exits for child in supervisor.children) >= 2)

    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("n1: "))
    assert said.startswith("n1: node process ended (exit 2): ")
    assert "members: missing" in said
    assert said.endswith("; again in 1 s")
    assert "members: missing" in last_line(broken.nodes[0])
    assert not broken.supervisor_file.exists()


def test_a_node_on_hold_is_not_started_before_its_time(broken, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    boottime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    broken.nodes[0].hold.write_text(str(boottime_s + 60))
    supervisor = Supervisor(broken)
    with supervisor.supervising():
        until(lambda: supervisor.look() or min(child.exits for child in supervisor.children) >= 1)
        held, other, _ = supervisor.children

    assert held.start_at_s >= boottime_s + 60
    assert other.start_at_s < boottime_s + 50


def test_a_signal_asks_the_supervisor_to_stop(layout):
    supervisor = Supervisor(layout)
    before = signal.getsignal(signal.SIGTERM)
    with supervisor.supervising():
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: supervisor.stopping)

    assert signal.getsignal(signal.SIGTERM) == before


def test_the_ledger_knows_the_longest_gap():
    ledger = Ledger(began_s=100.0)
    gaps = [ledger.note(number, now_s) for number, now_s in [(1, 100.5), (2, 100.75), (4, 103.0), (5, 103.25)]]

    assert gaps == [0.0, 0.25, 2.25, 0.25]
    assert ledger.longest_gap_s == 2.25
    assert ledger.acknowledged == [1, 2, 4, 5]


def until(claim, limit_s=20.0):
    deadline_s = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline_s, "not within the limit"
        time.sleep(0.02)
