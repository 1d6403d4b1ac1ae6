"""R4 where ending a PostgreSQL is hard: nothing is acknowledged once the lease is over, and nothing is left.

The deadline lies a margin before the end of the lease. SIGQUIT has half of it; what does not heed that is killed.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.node.guard_client import Deadline, Fenced
from appliance.node.guard_connection import GuardError
from tests.harness.guard import (
    HALF_MARGIN_S,
    SLACK_S,
    Statement,
    bench_on,
    insert,
    living_in,
    make_template,
    now_s,
    own_directory,
    wait_until,
)
from tests.harness.hung import hung

WRITERS = 6
MARGIN_S = 2 * HALF_MARGIN_S
DEAF = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

static pid_t first;

/* Whoever is forked by the first process ignores SIGQUIT, whatever handler it asks for. */
int sigaction(int number, const struct sigaction *wanted, struct sigaction *before)
{
    int (*real)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    struct sigaction deaf;

    if (first == 0)
        first = getpid();
    if (number != SIGQUIT || wanted == 0 || getpid() == first)
        return real(number, wanted, before);
    deaf = *wanted;
    deaf.sa_handler = SIG_IGN;
    return real(number, &deaf, before);
}
"""


@pytest.fixture(scope="module")
def template():
    data_dir = make_template()
    yield data_dir
    shutil.rmtree(data_dir.parent)


@pytest.fixture(scope="module")
def deafness():
    """A library that makes every child of the postmaster go on working through SIGQUIT."""
    root = own_directory("guard-deaf-")
    (root / "deaf.c").write_text(DEAF)
    command = ["/usr/bin/gcc", "-shared", "-fPIC", "-o", root / "deaf.so", root / "deaf.c", "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    yield root / "deaf.so"
    shutil.rmtree(root)


@pytest.fixture
def bench(template):
    with bench_on(template) as bench:
        yield bench


def far() -> Deadline:
    return Deadline(5, now_s() + 60, HALF_MARGIN_S)


def writers(bench) -> list[Statement]:
    with bench.connect() as connection:
        connection.execute("create table if not exists rows (n int)")
    started = [Statement(bench, insert) for _ in range(WRITERS)]
    wait_until(lambda: all(writer.acknowledged_s for writer in started))
    return started


def fence(bench, writing: list[Statement], delay_s: float = 0.4) -> tuple[float, Fenced]:
    """Let the deadline pass; say how long after it the last commit was acknowledged, and what the guard did."""
    at_s = now_s() + delay_s
    bench.hold_at(at_s)
    for writer in writing:
        writer.end_s()
    assert bench.exited().clean
    assert living_in(bench.data_dir) == set()
    latest_s = max((writer.acknowledged_s for writer in writing), default=at_s) - at_s
    print(f"last acknowledged {1000 * latest_s:.1f} ms after the deadline")  # pytest -rP shows it
    return latest_s, next(event for event in bench.heard if isinstance(event, Fenced))


def backends(bench, kind: str) -> set[int]:
    with bench.connect() as connection:
        query = "select pid from pg_stat_activity where backend_type = %s and pid <> pg_backend_pid()"
        return {row[0] for row in connection.execute(query, [kind])}


def execute(*statements: str):
    def work(statement: Statement) -> None:
        for text in statements:
            statement.connection.execute(text)

    return work


LOOP_IN_C = "select sum(length(sha512(convert_to(repeat('x', 50000000 + n), 'UTF8')))) from generate_series(1, 9999) n"
PARALLEL = (
    "create table big as select n from generate_series(1, 100000) n",
    "set min_parallel_table_scan_size = 0",
    "set parallel_setup_cost = 0",
    "set parallel_tuple_cost = 0",
    "set max_parallel_workers_per_gather = 2",
    "set enable_hashjoin = off",
    "set enable_mergejoin = off",
    "select count(*) from big a join big b on a.n % 7 = b.n % 5",
)


def test_many_writers_on_busy_processors(bench):
    """The guard is one process among many that want to run."""
    bench.start(far())
    writing = writers(bench)
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        latest_s, fenced = fence(bench, writing)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert latest_s < MARGIN_S
    assert fenced.epoch == 5


def test_a_loop_in_c_that_looks_at_no_interrupt(bench):
    bench.start(far())
    looping = Statement(bench, execute(LOOP_IN_C))
    writing = writers(bench)
    latest_s, fenced = fence(bench, writing)
    looping.end_s()
    assert latest_s < HALF_MARGIN_S
    assert fenced.how == "quit"


@pytest.mark.parametrize("stopped", ["none", "workers", "postmaster"])
def test_a_parallel_query(bench, stopped):
    postmaster = bench.start(far())
    query = Statement(bench, execute(*PARALLEL))
    workers = wait_until(lambda: len(found := backends(bench, "parallel worker")) == 2 and found)
    writing = writers(bench)
    for pid in {"none": set(), "workers": workers, "postmaster": {postmaster}}[stopped]:
        os.kill(pid, signal.SIGSTOP)
    latest_s, fenced = fence(bench, writing)
    query.end_s()
    assert latest_s < (MARGIN_S if stopped == "postmaster" else HALF_MARGIN_S)
    assert fenced.how == ("quit" if stopped == "none" else "kill")


def test_backends_that_are_deaf_to_sigquit_acknowledge_until_they_are_killed_and_no_longer(bench, deafness):
    bench.launch(far(), preload=deafness)
    latest_s, fenced = fence(bench, writers(bench))
    assert HALF_MARGIN_S / 2 < latest_s < MARGIN_S, "or they were not deaf"
    assert fenced.how == "kill"


def test_deaf_backends_of_a_stopped_postmaster(bench, deafness):
    postmaster = bench.launch(far(), preload=deafness)
    writing = writers(bench)
    os.kill(postmaster, signal.SIGSTOP)
    latest_s, fenced = fence(bench, writing)
    assert HALF_MARGIN_S / 2 < latest_s < MARGIN_S
    assert fenced.how == "kill"


def test_a_client_that_does_not_read_its_rows(bench):
    """Its backend waits for room in the socket, and would wait to say farewell too."""
    bench.start(far())
    rude = bench.connect()
    rude.pgconn.send_query(b"select repeat('x', 1000) from generate_series(1, 10000000)")
    with bench.connect() as connection:
        waits = "select 1 from pg_stat_activity where wait_event = 'ClientWrite'"
        wait_until(lambda: connection.execute(waits).fetchone())
    latest_s, _ = fence(bench, writers(bench))
    rude.close()
    assert latest_s < HALF_MARGIN_S


def test_a_smart_stop_that_waits_for_its_sessions_ends_at_the_deadline(bench):
    postmaster = bench.start(far())
    writing = writers(bench)
    os.kill(postmaster, signal.SIGTERM)
    latest_s, fenced = fence(bench, writing)
    assert -0.1 < latest_s < HALF_MARGIN_S, "they went on until then"
    assert fenced.how == "quit"


def test_a_fast_stop_whose_checkpoint_hangs_ends_at_the_deadline(bench):
    bench.start(far())
    writing = writers(bench)
    (checkpointer,) = backends(bench, "checkpointer")
    os.kill(checkpointer, signal.SIGSTOP)
    bench.node("stop_postgres", mode="fast")
    began_s = now_s()
    latest_s, fenced = fence(bench, writing)
    assert latest_s < 0, "the fast stop had ended the sessions"
    assert (fenced.how, fenced.epoch) == ("kill", 5)
    assert now_s() < began_s + 0.4 + MARGIN_S + SLACK_S


def test_what_an_archive_command_left_running_ends_too(bench):
    """In sessions of their own, one with init as its parent if the guard did not adopt it."""
    command = "(setsid sleep 601 &) ; setsid sleep 602; false"
    bench.start(far(), archive_mode="on", archive_command=command)
    with bench.connect() as connection:
        connection.execute("select pg_switch_wal()")
    wait_until(lambda: {"601", "602"} <= {sleeping(pid) for pid in living_in(bench.data_dir)})
    fence(bench, writers(bench))


@pytest.mark.parametrize("stopped", [False, True])
def test_a_startup_process_that_waits_for_its_restore_command(bench, stopped):
    """As a primary that recovers after a crash: it answers nobody yet, and its deadline passes."""
    (bench.data_dir / "recovery.signal").touch()
    if os.geteuid() == 0:
        shutil.chown(bench.data_dir / "recovery.signal", "postgres", "postgres")
    bench.launch(far(), restore_command="setsid sleep 603")
    wait_until(lambda: "603" in {sleeping(pid) for pid in living_in(bench.data_dir)})
    if stopped:
        for pid in wait_until(lambda: titled(bench, "startup")):
            os.kill(pid, signal.SIGSTOP)
    _, fenced = fence(bench, [])
    assert fenced.how == ("kill" if stopped else "quit")
    assert fenced.took_s < HALF_MARGIN_S + SLACK_S


def test_a_killed_guard_leaves_nothing_that_acknowledges(bench):
    """The kernel sends SIGQUIT in its place, and the sessions hear of it from their postmaster."""
    bench.start(far())
    writing = writers(bench)
    os.kill(bench.guard, signal.SIGKILL)
    killed_s = now_s()
    for writer in writing:
        writer.end_s()
    assert max(writer.acknowledged_s for writer in writing) < killed_s + HALF_MARGIN_S
    wait_until(lambda: living_in(bench.data_dir) == set())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk that hangs")
@pytest.mark.parametrize("call", ["clean", "start_postgres"])
def test_a_disk_that_hangs_under_a_request_delays_no_deadline(bench, call):
    """What a request names is looked at only when nothing runs that has a deadline."""
    bench.start(far())
    writing = writers(bench)
    at_s = now_s() + 0.4
    bench.hold_at(at_s)
    place = bench.root / "hung"
    place.mkdir()
    places = {"data_dir": str(place / "data")}
    if call == "start_postgres":
        places |= {"argv": ["/bin/true"], "env": {}, "log_file": str(place / "log"), "deadline": None}
    with hung(place):
        with pytest.raises(GuardError, match="running"):
            bench.node(call, **places)
        for writer in writing:
            assert writer.end_s() < at_s + HALF_MARGIN_S


def sleeping(pid: int) -> str:
    """The argument of a process that sleeps."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[1].decode() if words[0] == b"sleep" else ""


def titled(bench, title: str) -> set[int]:
    found = set()
    for pid in living_in(bench.data_dir):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        found |= {pid} if title.encode() in words else set()
    return found
