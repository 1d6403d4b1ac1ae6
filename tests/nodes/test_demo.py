"""The demo from end to end: up, a writer through two accidents, a supervisor that is killed, down without a trace."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.harness.processes import alive

ROOT = Path(__file__).parents[2]
PLACE = {"cwd": "/", "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True}
LOAD_S = 18


@pytest.fixture(scope="module")
def directory():
    """Where the run user may enter, which pytest's own place is not for root."""
    base = Path(tempfile.mkdtemp(prefix="appliance-test-", dir="/var/tmp"))
    base.chmod(0o755)
    yield base / "demo"
    appliance("demo", "down", "--dir", base / "demo")
    shutil.rmtree(base)


def command(*arguments):
    return [sys.executable, "-P", "-m", "appliance.cli.main", *map(str, arguments)]


def appliance(*arguments, limit_s=150, cwd="/"):
    place = PLACE | {"cwd": cwd}
    return subprocess.run(command(*arguments), **place, capture_output=True, timeout=limit_s, check=False)


@pytest.fixture
def beside():
    """Commands that run beside the test, and not beyond it."""
    with ExitStack() as begun:

        def begin(*arguments):
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            process = begun.enter_context(subprocess.Popen(command(*arguments), **PLACE, **pipes))
            begun.callback(process.kill)
            return process

        yield begin


def status(directory):
    found = appliance("demo", "status", "--dir", directory, "-o", "json")
    assert found.returncode in {0, 3}, found.stderr
    return json.loads(found.stdout)


def primary(directory):
    return next((m for m in status(directory)["members"] if m["role"] == "primary"), None)


def healthy(directory):
    found = appliance("status", "--config", directory, "--exit-code", "-o", "json")
    return found.returncode == 0


def until(claim, limit_s=60):
    deadline_s = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline_s, "not within the limit"
        time.sleep(0.2)


def processes_below(directory):
    """Command lines, and whoever works in the directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        places = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if process.pid != os.getpid() and any(str(directory) in place for place in places):
            found.append(process)
    return found


@pytest.fixture
def somewhere(tmp_path):
    """A directory that the run user may not enter, with files that must not be imported: a checkout, or a trap."""
    tmp_path.chmod(0o700)
    for name in ("appliance.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the working directory')")
    return tmp_path


@pytest.mark.timeout(300)
def test_a_demo_from_up_to_down(directory, somewhere, beside):
    up = appliance("demo", "up", "--dir", directory, "--detach", cwd=somewhere)
    assert up.returncode == 0, up.stderr
    assert "DSN     postgresql://app:" in up.stdout

    again = appliance("demo", "up", "--dir", directory)
    assert (again.returncode, "a demo runs in" in again.stderr) == (4, True)
    done = appliance("bootstrap", "--config", directory)
    assert (done.returncode, "bootstrap.done" in done.stderr) == (4, True)

    shown = status(directory)
    assert {"name", "api_url", "role", "data_dir", "pid"} <= set(shown["members"][0])
    roles = ["primary", "quorum_standby", "quorum_standby"]
    until(lambda: [m["role"] for m in status(directory)["members"]] == roles)
    owners = {psutil.Process(m["pid"]).uids().real for m in shown["members"]}
    assert len(owners) == 1
    assert 0 not in owners
    with psycopg.connect(shown["dsn"]) as connection:
        assert connection.execute("select current_user, current_database()").fetchone() == ("app", "app")

    load = beside("demo", "load", "--dir", directory, "--seconds", LOAD_S, "-o", "json")
    time.sleep(3)
    assert appliance("demo", "kill-primary", "--dir", directory).returncode == 0
    time.sleep(1)
    until(lambda: healthy(directory))
    node = primary(directory)
    killed = appliance("demo", "kill-primary", "--dir", directory, "--host")
    assert f"processes of primary {node['name']}; it starts again after 5 s" in killed.stdout
    assert not alive(node["pid"])
    out, err = load.communicate(timeout=120)
    assert load.returncode == 0, err
    ledger = json.loads(out)
    assert (ledger["lost"], ledger["acknowledged"] > 100) == (0, True)
    assert 0 < ledger["longest_gap_s"] < 15
    until(lambda: healthy(directory))

    # A supervisor that is killed leaves its nodes to `down`.
    os.kill(status(directory)["supervisor_pid"], 9)
    down = appliance("demo", "down", "--dir", directory)
    assert down.returncode == 0, down.stderr
    assert "ended 3 nodes without a supervisor" in down.stdout
    assert not directory.exists()
    assert processes_below(directory) == []


@pytest.mark.timeout(300)
def test_interrupted_in_the_foreground_it_keeps_its_data_and_goes_on_with_it(directory, beside):
    for round_ in range(2):
        up = beside("demo", "up", "--dir", directory)
        until((directory / "ready").exists)
        dsn = status(directory)["dsn"]
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create table if not exists kept (n int)")
            connection.execute("insert into kept values (1)")
            assert connection.execute("select count(*) from kept").fetchone() == (round_ + 1,)
        up.send_signal(2)
        out, err = up.communicate(timeout=120)
        assert up.returncode == 0, err
        assert "DSN     postgresql://app:" in out
        told = [line.partition(" s  ")[2] for line in err.splitlines() if " s  " in line]
        assert told[-1] == "all nodes are up"
        assert len(told) < 12, "what changes is told, not every number"
        assert processes_below(directory) == []
    kept = appliance("demo", "down", "--keep", "--dir", directory)
    assert (kept.stdout, directory.exists()) == (f"kept {directory}\n", True)
    assert appliance("demo", "down", "--dir", directory).stdout == f"removed {directory}\n"
