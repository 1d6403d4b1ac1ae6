"""The guard and a real PostgreSQL: at the deadline it is gone, whatever state the node and the postmaster are in.

The guard and PostgreSQL belong to the user postgres when the tests run as root. A stand-in for the node,
which can be killed and stopped, speaks with the guard.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from appliance.node.guard_client import Deadline, Exited, Fenced, GuardClient
from appliance.node.guard_connection import GuardError
from tests.harness.guard import (
    BINARIES,
    HALF_MARGIN_S,
    SLACK_S,
    StandIn,
    Statement,
    as_postgres,
    bench_on,
    insert,
    living_in,
    make_template,
    now_s,
    sleep,
    wait_until,
)


@pytest.fixture(scope="module")
def template():
    data_dir = make_template()
    yield data_dir
    shutil.rmtree(data_dir.parent)


@pytest.fixture
def bench(template):
    with bench_on(template) as bench:
        yield bench


@pytest.mark.parametrize("blow", ["none", "SIGKILL", "SIGSTOP"])
def test_at_the_deadline_nothing_is_acknowledged_any_more(bench, blow):
    """With the node alive but silent, dead, and stopped."""
    bench.start(Deadline(5, now_s() + 60, HALF_MARGIN_S))
    statements = [Statement(bench, sleep), Statement(bench, insert)]
    wait_until(lambda: statements[1].acknowledged_s)
    at_s = now_s() + 0.5
    bench.hold_at(at_s)
    if blow != "none":
        bench.node.process.send_signal(signal.Signals[blow])
    for statement in statements:
        assert at_s <= statement.end_s() < at_s + SLACK_S
    assert statements[1].acknowledged_s < at_s + SLACK_S
    wait_until(lambda: not living_in(bench.data_dir), limit_s=SLACK_S)
    assert (bench.fence()["epoch"], bench.fence()["how"]) == (5, "quit")


def test_a_stopped_postmaster_ends_half_a_margin_later_with_all_its_backends(bench):
    postmaster = bench.start(Deadline(5, now_s() + 60, HALF_MARGIN_S))
    statements = [Statement(bench, sleep), Statement(bench, insert)]
    wait_until(lambda: statements[1].acknowledged_s)
    os.kill(postmaster, signal.SIGSTOP)
    at_s = now_s() + 0.3
    bench.hold_at(at_s)
    for statement in statements:
        assert at_s + HALF_MARGIN_S - 0.01 <= statement.end_s() < at_s + HALF_MARGIN_S + SLACK_S
    wait_until(lambda: not living_in(bench.data_dir), limit_s=SLACK_S)
    assert bench.exited() == Exited(postmaster, None, signal.SIGKILL, clean=True)
    assert bench.heard[0] == Fenced(5, "kill", bench.fence()["took_s"])


def test_stopped_backends_end_too(bench):
    """The postmaster obeys SIGQUIT, but waits for children that do not."""
    postmaster = bench.start(Deadline(5, now_s() + 60, HALF_MARGIN_S))
    statements = [Statement(bench, sleep) for _ in range(30)]
    backends = wait_until(lambda: len(found := living_in(bench.data_dir)) > 30 and found)
    for pid in backends - {postmaster}:
        os.kill(pid, signal.SIGSTOP)
    at_s = now_s() + 0.2
    bench.hold_at(at_s)
    for statement in statements:
        assert statement.end_s() < at_s + HALF_MARGIN_S + SLACK_S
    assert bench.exited().clean
    assert living_in(bench.data_dir) == set()


def test_orphans_are_gone_before_the_death_of_the_postmaster_is_reported(bench):
    postmaster = bench.start()
    statements = [Statement(bench, sleep), Statement(bench, insert)]
    wait_until(lambda: statements[1].acknowledged_s)
    killed_s = now_s()
    os.kill(postmaster, signal.SIGKILL)
    assert bench.exited() == Exited(postmaster, None, signal.SIGKILL, clean=True)
    assert living_in(bench.data_dir) == set()
    assert max(statement.end_s() for statement in statements) < killed_s + SLACK_S
    bench.start()  # no "pre-existing shared memory block"


def test_a_new_node_finds_the_postmaster_and_its_deadline(bench):
    at_s = now_s() + 2
    pid = bench.start(Deadline(5, at_s, HALF_MARGIN_S))
    bench.node.end()
    bench.node = StandIn(bench.run_dir)
    bench.node("ensure")
    status = bench.node("status")
    assert (status.pid, status.deadline_s, status.deadline_epoch) == (bench.guard, at_s, 5)
    assert (status.postmaster.pid, status.postmaster.data_dir) == (pid, bench.data_dir)
    bench.hold_at(now_s() + 60)
    with bench.connect() as connection:
        time.sleep(max(0, at_s - now_s()) + 0.2)
        assert connection.execute("select 1").fetchone() == (1,)


def test_without_a_deadline_postgres_runs_on_without_a_node(bench):
    bench.start()
    bench.node.end()
    time.sleep(1)
    with bench.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_after_the_death_of_the_guard_postgres_ends_and_starts_again_under_a_new_one(bench):
    bench.start(Deadline(5, now_s() + 60, HALF_MARGIN_S))
    statement = Statement(bench, sleep)
    killed_s = now_s()
    bench.replace_guard()
    assert statement.end_s() < killed_s + 1
    wait_until(lambda: not living_in(bench.data_dir))
    bench.start(Deadline(5, now_s() + 60, HALF_MARGIN_S))


def test_what_a_guard_left_that_died_in_the_middle_is_cleaned(bench):
    postmaster = bench.start()
    Statement(bench, sleep)
    os.kill(postmaster, signal.SIGSTOP)
    bench.replace_guard()
    with pytest.raises(GuardError, match="leftovers"):
        bench.start()
    bench.node("clean", data_dir=str(bench.data_dir))
    assert living_in(bench.data_dir) == set()
    # PostgreSQL takes a postmaster.pid for valid until init has noticed that the process is dead.
    wait_until(lambda: not Path(f"/proc/{postmaster}").exists())
    bench.start()


def test_a_postmaster_that_somebody_else_started_is_not_started_again(bench):
    command = [BINARIES / "pg_ctl", "-D", bench.data_dir, "-w", "-l", bench.root / "other.log"]
    options = ["-o", f"-c listen_addresses= -k {bench.root}", "start"]
    subprocess.run([*command, *options], check=True, capture_output=True, cwd="/", timeout=30, **as_postgres())
    with pytest.raises(GuardError, match="running_elsewhere"):
        bench.start()
    with pytest.raises(GuardError, match="running_elsewhere"):
        bench.node("clean", data_dir=str(bench.data_dir))
    stop = [*command, "-m", "immediate", "stop"]
    subprocess.run(stop, check=True, capture_output=True, cwd="/", timeout=30, **as_postgres())


def test_a_fast_stop_is_a_clean_shutdown(bench):
    pid = bench.start(Deadline(5, now_s() + 60, HALF_MARGIN_S))
    bench.node("stop_postgres", mode="fast")
    assert bench.exited() == Exited(pid, 0, None, clean=True)
    state = subprocess.run(
        [BINARIES / "pg_controldata", bench.data_dir], check=True, capture_output=True, text=True, timeout=10
    )
    assert "shut down\n" in state.stdout
    status = bench.node("status")
    assert (status.postmaster, status.deadline_s, status.fenced_epoch) == (None, None, None)


def test_a_reload_reaches_postgres(bench):
    bench.start()
    with (bench.data_dir / "postgresql.auto.conf").open("a") as file:
        file.write("work_mem = '7MB'\n")
    bench.node("reload")
    with bench.connect() as connection:
        wait_until(lambda: connection.execute("show work_mem").fetchone() == ("7MB",))


def test_a_postgres_that_refuses_to_start_is_an_exit_with_a_code(bench):
    (bench.data_dir / "postgresql.conf").write_text("no_such_setting = 1\n")
    argv = [str(BINARIES / "postgres"), "-D", str(bench.data_dir)]
    log_file = bench.root / "postgres.log"
    places = {"data_dir": str(bench.data_dir), "log_file": str(log_file)}
    bench.node("start_postgres", argv=argv, env={}, deadline=None, **places)
    assert bench.exited().code == 1
    assert "no_such_setting" in log_file.read_text()


def test_another_user_is_refused(bench):
    """Even root: file permissions do not stop it, the guard does."""
    if os.geteuid() == 0:
        with pytest.raises(GuardError, match="forbidden"):
            GuardClient(bench.run_dir).ensure()
    assert bench.node("status").pid == bench.guard


def test_the_guard_is_small_and_at_rest(bench):
    bench.start(Deadline(5, now_s() + 60, HALF_MARGIN_S))
    used_before = cpu_s(bench.guard)
    for _ in range(20):
        bench.hold_at(now_s() + 60)
        time.sleep(0.05)
    # 20 renewals are those of 10 s.
    assert (cpu_s(bench.guard) - used_before) * 6 < 0.3
    rollup = dict(line.split(":") for line in Path(f"/proc/{bench.guard}/smaps_rollup").read_text().splitlines()[1:])
    private_bytes = sum(int(rollup[name].split()[0]) for name in ("Private_Dirty", "Private_Clean")) * 1024
    assert private_bytes < 10 * 1024**2


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
