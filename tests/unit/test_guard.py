"""The guard with small programs in the place of PostgreSQL: its protocol, its deadline, its life."""

import contextlib
import json
import os
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from appliance.node import guard_client
from appliance.node.guard_client import (
    LAUNCH,
    PACKAGE_ROOT,
    Deadline,
    Exited,
    Fenced,
    GuardClient,
)
from appliance.node.guard_connection import GuardError

SHELL = "/bin/sh"
# Ignores SIGQUIT, as a stuck postmaster would, and has children with sessions of their own, as a postmaster has.
STUBBORN = "trap '' QUIT; setsid sleep 600 & setsid sleep 600 & touch ready; while :; do sleep 600; done"
# Leaves a process behind that has no parent, no session and no process group in common with it.
DAEMON = "(setsid sleep 600 &) ; touch ready; exec sleep 600"


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def state_of(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


def has_ended(pid: int) -> bool:
    """Nothing of it acts any more, whether init has noticed or not."""
    return state_of(pid) in {None, "Z"}


def wait_until(claim, limit_s: float = 3.0):
    until_s = time.monotonic() + limit_s
    while not (seen := claim()):
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.005)
    return seen


def in_directory(directory: Path) -> set[int]:
    """Every living process that works in a directory: the programs of one test."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == directory:
                found.add(int(entry.name))
        except OSError:
            continue
    return {pid for pid in found if not has_ended(pid)}


class Bench:
    """A run directory, a data directory, and the guard between them."""

    def __init__(self, root: Path) -> None:
        self.run_dir = root / "run"
        self.data_dir = root / "data"
        self.data_dir.mkdir()
        self.log_file = root / "program.log"
        self.client = GuardClient(self.run_dir)
        self.heard: list[Exited | Fenced] = []

    def start(self, script: str, deadline: Deadline | None = None, env: dict[str, str] | None = None) -> int:
        self.client.ensure()
        (self.data_dir / "ready").unlink(missing_ok=True)
        return self.client.start_postgres(
            [SHELL, "-c", script],
            env={"PATH": os.environ["PATH"], **(env or {})},
            data_dir=self.data_dir,
            log_file=self.log_file,
            deadline=deadline,
        )

    def soon(self, delay_s: float) -> float:
        """Name a moment for a deadline, counted from when the guard lives."""
        self.client.ensure()
        return now_s() + delay_s

    def start_ready(self, script: str, deadline: Deadline | None = None) -> int:
        pid = self.start(script, deadline)
        wait_until((self.data_dir / "ready").exists)
        return pid

    def events(self) -> list[Exited | Fenced]:
        self.heard += self.client.events()
        return self.heard

    def exited(self) -> Exited:
        wait_until(lambda: self.events() and isinstance(self.heard[-1], Exited))
        return self.heard[-1]

    def log(self) -> list[dict]:
        file = self.run_dir / "guard.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def logged(self, event: str) -> dict:
        return wait_until(lambda: [line for line in self.log() if line["event"] == event])[-1]

    def end(self) -> None:
        self.client.close()
        try:
            pid = int((self.run_dir / "guard.pid").read_text())
            if b"appliance.node.guard" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError):
            pass
        while left := in_directory(self.data_dir):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.end()


def refusal(call, *arguments, **named) -> str:
    with pytest.raises(GuardError) as refused:
        call(*arguments, **named)
    return refused.value.code


# Life of the guard


def test_a_second_client_finds_the_guard_of_the_first(bench):
    bench.client.ensure()
    other = GuardClient(bench.run_dir)
    other.ensure()
    assert other.status().pid == bench.client.status().pid
    other.close()


def test_a_second_guard_is_refused_while_one_lives(bench):
    bench.client.ensure()
    command = [sys.executable, "-I", "-S", "-c", LAUNCH, str(PACKAGE_ROOT), "--dir", str(bench.run_dir)]
    second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    assert second.returncode == 3
    assert "another guard lives" in second.stderr
    assert bench.client.status().postmaster is None


def test_the_files_of_a_dead_guard_are_replaced(bench):
    bench.client.ensure()
    dead = bench.client.status().pid
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: bench.client.events() == [] and bench.client.fileno() is None)
    bench.client.ensure()
    assert bench.client.status().pid != dead


def test_the_guard_belongs_to_init_and_to_no_session_of_the_node(bench):
    bench.client.ensure()
    pid = bench.client.status().pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != os.getpid()
    assert int(fields[3]) == pid or int(fields[3]) != os.getsid(0)
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert (bench.run_dir / "guard.sock").stat().st_mode & 0o777 == 0o600


def test_the_guard_leaves_when_nobody_needs_it(bench):
    bench.run_dir.mkdir()
    hurry = LAUNCH.replace(
        "import main;", "import main; import appliance.node.guard as guard; guard.IDLE_LIMIT_S = 0.3;"
    )
    command = [sys.executable, "-I", "-S", "-c", hurry, str(PACKAGE_ROOT), "--dir", str(bench.run_dir)]
    subprocess.run(command, check=True, timeout=10)
    bench.client.ensure()
    pid = bench.client.status().pid
    time.sleep(0.5)
    assert not has_ended(pid), "a client is connected"
    bench.client.close()
    wait_until(lambda: has_ended(pid))
    assert not (bench.run_dir / "guard.sock").exists()


def test_quit_ends_an_idle_guard_and_no_other(bench):
    bench.start("exec sleep 600")
    assert refusal(bench.client.quit) == "running"
    bench.client.kill_postgres()
    bench.exited()
    pid = bench.client.status().pid
    bench.client.quit()
    wait_until(lambda: has_ended(pid))


def test_sigterm_is_ignored_while_a_postmaster_runs_and_obeyed_afterwards(bench):
    bench.start("exec sleep 600")
    pid = bench.client.status().pid
    os.kill(pid, signal.SIGTERM)
    assert "runs" in bench.logged("signal.ignored")["because"]
    bench.client.kill_postgres()
    bench.exited()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: has_ended(pid))


def test_without_its_guard_the_program_is_ended_by_the_kernel(bench):
    pid = bench.start("exec sleep 600")
    os.kill(bench.client.status().pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid))


def test_memory_is_locked_where_the_host_allows_it(bench):
    bench.client.ensure()
    status = bench.client.status()
    locked = re.search(r"VmLck:\s+(\d+) kB", Path(f"/proc/{status.pid}/status").read_text())[1]
    assert status.locked_memory == (int(locked) > 0)
    assert status.locked_memory or os.geteuid() != 0
    assert bench.logged("guard.started")["locked_memory"] == status.locked_memory, "an operator can see it"


def test_a_guard_that_cannot_start_says_why(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "guard.pid").mkdir()
    assert refusal(GuardClient(tmp_path / "run").ensure) == "no_start"


def test_a_stopped_guard_is_a_timeout_and_not_a_hang(bench):
    bench.client.ensure()
    pid = bench.client.status().pid
    os.kill(pid, signal.SIGSTOP)
    began_s = time.monotonic()
    assert refusal(bench.client.status, limit_s=0.2) == "timeout"
    assert refusal(GuardClient(bench.run_dir).ensure, limit_s=0.2) == "timeout"
    assert time.monotonic() - began_s < 1
    os.kill(pid, signal.SIGCONT)


def test_a_guard_that_stays_silent_is_ended_with_its_program_and_replaced(bench):
    program = bench.start("exec sleep 600")
    silent = bench.client.status().pid
    os.kill(silent, signal.SIGSTOP)
    later = GuardClient(bench.run_dir)
    assert later.silent_s() == 0
    assert refusal(later.ensure, limit_s=0.6) == "timeout"
    assert refusal(later.ensure, limit_s=0.2) == "timeout"
    assert 0.2 < later.silent_s() < 5
    assert later.kill_silent() == silent
    wait_until(lambda: has_ended(program))
    later.ensure()
    assert later.status().pid != silent
    assert later.silent_s() == 0
    later.close()


def test_a_guard_that_answers_again_was_never_silent(bench):
    bench.client.ensure()
    pid = bench.client.status().pid
    os.kill(pid, signal.SIGSTOP)
    assert refusal(bench.client.status, limit_s=0.2) == "timeout"
    os.kill(pid, signal.SIGCONT)
    assert bench.client.status(limit_s=2).pid == pid
    assert bench.client.silent_s() == 0


def test_the_guard_needs_the_standard_library_only():
    code = "import sys; sys.path.append(sys.argv[1]); import appliance.node.guard; print('\\n'.join(sys.modules))"
    command = [sys.executable, "-I", "-S", "-c", code, str(PACKAGE_ROOT)]
    names = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.split()
    foreign = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name.split(".")[0] for name in foreign} <= {"appliance", "__main__"}
    assert {name for name in foreign if name.startswith("appliance.node.")} == {
        f"appliance.node.{name}"
        for name in ("guard", "guard_keeper", "guard_record", "guard_request", "guard_system", "guard_watchdog")
    }
    assert not {"dataclasses", "inspect", "subprocess", "pathlib"} & {*names}, "these cost megabytes"


# What a program is started with


def test_a_program_starts_in_a_clean_world(bench):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        bench.start(
            "env; ls /proc/self/fd | tr '\\n' ' '; readlink /proc/$$/fd/0; cat /proc/self/status",
            env={"COLOUR": "blue"},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    assert bench.exited() == Exited(bench.heard[-1].pid, code=0, signal=None, clean=True)
    said = bench.log_file.read_text()
    assert "COLOUR=blue" in said
    assert "0 1 2 3" in said  # 3 is the directory that ls reads
    assert "0 1 2 3 4" not in said
    assert "/dev/null" in said
    status = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) == 1 << (signal.SIGHUP - 1), "a reload must not end what has no handler yet"


def test_a_program_has_a_session_of_its_own_and_is_known(bench):
    before_s = now_s()
    pid = bench.start("exec sleep 600")
    postmaster = bench.client.status().postmaster
    assert os.getsid(pid) == pid
    assert (postmaster.pid, postmaster.data_dir) == (pid, bench.data_dir)
    assert before_s - 0.02 <= postmaster.started_at_s <= now_s() + 0.02


@pytest.mark.parametrize("argv", [["/nonexistent/postgres"], ["/etc/passwd"], ["sh"]])
def test_a_program_that_cannot_be_executed_is_reported(bench, argv):
    bench.client.ensure()
    with pytest.raises(GuardError, match="cannot execute") as failed:
        bench.client.start_postgres(
            argv, env={}, data_dir=bench.data_dir, log_file=bench.log_file, deadline=Deadline(3, now_s() + 60, 0.1)
        )
    assert failed.value.code == "start_failed"
    status = bench.client.status()
    assert (status.postmaster, status.deadline_s) == (None, None)


@pytest.mark.parametrize("missing", ["data_dir", "log_file"])
def test_a_missing_directory_is_reported(bench, missing):
    bench.client.ensure()
    places = {"data_dir": bench.data_dir, "log_file": bench.log_file, missing: Path("/nonexistent/place")}
    assert refusal(bench.client.start_postgres, [SHELL], env={}, deadline=None, **places) == "start_failed"


def test_a_second_program_is_refused(bench):
    bench.start("exec sleep 600")
    assert refusal(bench.start, "exec sleep 600") == "running"


def test_without_a_program_there_is_nothing_to_signal(bench):
    bench.client.ensure()
    assert refusal(bench.client.stop_postgres, "fast") == "not_running"
    assert refusal(bench.client.kill_postgres) == "not_running"
    assert refusal(bench.client.reload) == "not_running"


def test_signals_arrive(bench):
    # A shell must not trap what was ignored when it began; PostgreSQL does.
    program = "\n".join(
        (
            "import pathlib, signal, sys, time",
            "signal.signal(signal.SIGHUP, lambda *_: print('again', flush=True))",
            "signal.signal(signal.SIGINT, lambda *_: sys.exit(7))",
            "pathlib.Path('ready').touch()",
            "while True: time.sleep(0.02)",
        )
    )
    bench.start_ready(f"exec {sys.executable} -c {shlex.quote(program)}")
    bench.client.reload()
    wait_until(lambda: "again" in bench.log_file.read_text())
    bench.client.stop_postgres("fast")
    assert bench.exited().code == 7
    assert bench.client.status().last_exit.code == 7


# Epochs


def test_an_epoch_never_goes_down(bench):
    bench.start("exec sleep 600", Deadline(5, bench.soon(60), 0.1))
    bench.client.set_deadline(Deadline(6, now_s() + 60, 0.1))
    assert refusal(bench.client.set_deadline, Deadline(5, now_s() + 90, 0.1)) == "old_epoch"
    assert bench.client.status().deadline_epoch == 6
    bench.client.set_deadline(None)
    assert bench.client.status().deadline_s is None
    assert refusal(bench.client.set_deadline, Deadline(5, now_s() + 90, 0.1)) == "old_epoch"


def test_a_program_does_not_start_after_its_deadline(bench):
    assert refusal(bench.start, "exec sleep 600", Deadline(5, now_s() - 0.001, 0.1)) == "expired"
    assert bench.client.status().postmaster is None


def test_a_fenced_epoch_does_not_resume(bench):
    bench.start("exec sleep 600", Deadline(5, bench.soon(0.1), 0.1))
    bench.exited()
    assert bench.client.status().fenced_epoch == 5
    assert refusal(bench.client.set_deadline, Deadline(5, now_s() + 60, 0.1)) == "fenced"
    assert refusal(bench.start, "exec sleep 600", Deadline(5, now_s() + 60, 0.1)) == "fenced"
    bench.start("exec sleep 600", Deadline(6, bench.soon(60), 0.1))


def test_a_later_guard_knows_the_last_fence(bench):
    bench.start("exec sleep 600", Deadline(5, bench.soon(0.1), 0.1))
    bench.exited()
    bench.client.quit()
    bench.client.ensure()
    assert bench.client.status().fenced_epoch == 5
    record = json.loads((bench.run_dir / "fenced.json").read_text())
    assert record["how"] == "quit"
    assert 0 <= record["took_s"] < 0.5


def test_r13a_a_fence_of_another_history_is_set_aside_with_the_guard_that_knows_of_it(bench):
    bench.start("exec sleep 600", Deadline(5, bench.soon(0.1), 0.1))
    bench.exited()
    wait_until((bench.run_dir / "fenced.json").exists)
    bench.start("exec sleep 600")
    assert refusal(bench.client.set_fence_aside, 7) == "running"
    assert (bench.run_dir / "fenced.json").exists()
    bench.client.kill_postgres()
    wait_until(lambda: bench.client.status().postmaster is None)
    bench.client.set_fence_aside(7)
    bench.client.ensure()
    assert bench.client.status().fenced_epoch is None
    bench.start("exec sleep 600", Deadline(2, bench.soon(60), 0.1))
    assert json.loads((bench.run_dir / "fenced.before-recovery-7.json").read_text())["epoch"] == 5
    assert not (bench.run_dir / "fenced.json").exists()


def test_r13a_a_power_cut_brings_no_fence_back_that_was_set_aside(bench, monkeypatch):
    synced = []
    fence = bench.run_dir / "fenced.json"
    fence.parent.mkdir()
    fence.write_text("{}")
    monkeypatch.setattr(guard_client, "sync_directory", lambda place: synced.append((place, fence.exists())))
    for _ in range(2):  # again, as after a kill between the renaming and this
        bench.client.set_fence_aside(7)
    assert synced == [(bench.run_dir, False)] * 2


def test_r13a_where_no_guard_lives_and_nothing_was_fenced_there_is_nothing_to_set_aside(bench):
    bench.client.set_fence_aside(7)
    assert not list(bench.run_dir.glob("fenced*"))


# The deadline


def test_at_the_deadline_a_program_is_asked_to_quit(bench):
    at_s = bench.soon(0.3)
    pid = bench.start("exec sleep 600", Deadline(5, at_s, 5))
    ended = bench.exited()
    assert at_s <= now_s() < at_s + 0.3
    assert bench.heard == [Fenced(5, "quit", bench.heard[0].took_s), Exited(pid, None, signal.SIGQUIT, clean=True)]
    assert ended.clean


def test_half_a_margin_later_everything_is_killed(bench):
    at_s = bench.soon(0.7)
    bench.start_ready(STUBBORN, Deadline(5, at_s, 0.3))
    wait_until(lambda: len(in_directory(bench.data_dir)) >= 4)
    fenced = wait_until(bench.events)[0]
    assert at_s + 0.3 <= now_s() < at_s + 0.6
    assert (fenced.epoch, fenced.how) == (5, "kill")
    assert 0.3 <= fenced.took_s < 0.6
    assert in_directory(bench.data_dir) == set()
    assert bench.exited().signal == signal.SIGKILL


def test_renewals_move_the_deadline(bench):
    bench.start("exec sleep 600", Deadline(5, bench.soon(0.2), 0.1))
    for _ in range(8):
        bench.client.set_deadline(Deadline(5, now_s() + 0.2, 0.1))
        time.sleep(0.05)
    assert bench.events() == []
    assert bench.exited().clean


def test_a_deadline_in_the_past_ends_at_once(bench):
    bench.start("exec sleep 600", Deadline(5, bench.soon(60), 0.1))
    bench.client.set_deadline(Deadline(5, now_s() - 1, 0.1))
    assert bench.exited().clean


def test_a_renewal_that_waited_behind_the_deadline_is_refused(bench):
    """As after a suspend, or when the guard itself was stopped: first the deadline, then what came in meanwhile."""
    pid = bench.start("exec sleep 600", Deadline(5, bench.soon(0.2), 0.1))
    guard = bench.client.status().pid
    os.kill(guard, signal.SIGSTOP)
    script = (
        "import sys, time; from pathlib import Path; from appliance.node.guard_client import *\n"
        "GuardClient(Path(sys.argv[1])).set_deadline(Deadline(5, time.clock_gettime(7) + 60, 0.1))"
    )
    renewal = subprocess.Popen(
        [sys.executable, "-c", script, str(bench.run_dir)], cwd=PACKAGE_ROOT, stderr=subprocess.PIPE, text=True
    )
    time.sleep(0.6)
    assert state_of(pid) == "S"
    os.kill(guard, signal.SIGCONT)
    assert bench.exited().clean
    assert "(fenced)" in renewal.communicate(timeout=5)[1]


def lines_of(descriptor):
    """The guard may close a connection between the listing and the look at it."""
    try:
        return descriptor.read_text().splitlines()
    except FileNotFoundError:
        return []


def test_the_timer_counts_the_time_that_a_host_is_suspended(bench):
    bench.client.ensure()
    descriptors = Path(f"/proc/{bench.client.status().pid}/fdinfo").iterdir()
    clocks = [line for file in descriptors for line in lines_of(file) if line.startswith("clockid")]
    assert clocks == [f"clockid: {time.CLOCK_BOOTTIME}"]


def test_a_deadline_without_a_program_passes_silently(bench):
    bench.client.ensure()
    bench.client.set_deadline(Deadline(5, now_s() + 0.1, 0.1))
    bench.logged("deadline.passed")
    status = bench.client.status()
    assert (status.deadline_s, status.fenced_epoch) == (None, None)


def test_a_disk_that_hangs_delays_no_deadline(bench):
    bench.run_dir.mkdir()
    os.mkfifo(bench.run_dir / "guard.log")  # whoever opens it for writing waits for a reader
    at_s = bench.soon(0.3)
    bench.start("exec sleep 600", Deadline(5, at_s, 0.1))
    bench.exited()
    assert now_s() < at_s + 0.3


def test_kill_is_the_same_at_once_and_no_fence(bench):
    bench.start_ready(STUBBORN, Deadline(5, bench.soon(60), 0.1))
    bench.client.kill_postgres()
    assert bench.exited().signal == signal.SIGKILL
    assert bench.client.status().fenced_epoch is None
    assert in_directory(bench.data_dir) == set()


def test_a_deadline_during_a_kill_is_still_a_fence(bench):
    bench.start_ready(STUBBORN, Deadline(5, bench.soon(0.5), 0.4))
    bench.client.kill_postgres()
    bench.client.set_deadline(Deadline(5, now_s() + 0.05, 0.1))
    assert bench.exited().clean
    assert bench.client.status().fenced_epoch == 5


# What a program leaves behind


def test_whatever_a_program_left_is_ended_before_its_exit_is_reported(bench):
    pid = bench.start_ready(DAEMON)
    wait_until(lambda: len(in_directory(bench.data_dir)) == 2)
    os.kill(pid, signal.SIGKILL)
    assert bench.exited() == Exited(pid, None, signal.SIGKILL, clean=True)
    assert in_directory(bench.data_dir) == set()


def impostor(directory: Path, work_dir: Path) -> subprocess.Popen:
    """Run something called postgres."""
    program = directory / "postgres"
    shutil.copy("/bin/sleep", program)
    return subprocess.Popen([program, "600"], cwd=work_dir)


def test_clean_ends_what_runs_in_the_data_directory_and_nobody_else(bench, tmp_path):
    orphan = impostor(tmp_path, bench.data_dir)
    elsewhere = subprocess.Popen([tmp_path / "postgres", "600"], cwd=tmp_path)
    administrator = subprocess.Popen(["/bin/sleep", "600"], cwd=bench.data_dir)
    try:
        assert refusal(bench.start, "exec sleep 600") == "leftovers"
        bench.client.clean(bench.data_dir)
        assert orphan.wait(timeout=1) == -signal.SIGKILL
        assert (elsewhere.poll(), administrator.poll()) == (None, None)
        bench.start("exec sleep 600")
    finally:
        for process in (orphan, elsewhere, administrator):
            process.kill()
            process.wait()


def test_a_postmaster_of_somebody_else_is_left_alone(bench, tmp_path):
    other = impostor(tmp_path, bench.data_dir)
    try:
        (bench.data_dir / "postmaster.pid").write_text(f"{other.pid}\n{bench.data_dir}\n")
        assert refusal(bench.start, "exec sleep 600") == "running_elsewhere"
        assert refusal(bench.client.clean, bench.data_dir) == "running_elsewhere"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    bench.start("exec sleep 600")


@pytest.mark.parametrize("content", ["", "no number\n", "1\n", "99999999\n", "-4\n"])
def test_a_stale_postmaster_pid_hinders_nobody(bench, content):
    (bench.data_dir / "postmaster.pid").write_text(content)
    bench.start("exec sleep 600")


# The socket

GARBAGE = [
    b"\n",
    b"{}\n",
    b"null\n",
    b"[1, 2]\n",
    b"\xff\xfe\x00\n",
    b'{"op": "status"',
    b"[" * 100_000 + b"\n",
    b'{"id": ' + b"[" * 900 + b"]" * 900 + b', "op": "none"}\n',
    b"x" * 2_000_000,
    b'{"id": 1, "op": ["start"]}\n',
    b'{"id": 1, "op": "start"}\n',
    b'{"id": 1, "op": "start", "argv": ["a\\u0000b"], "env": {}, "data_dir": "/", "log_file": "/x"}\n',
    b'{"id": 1, "op": "start", "argv": ["\\ud800"], "env": {}, "data_dir": "/", "log_file": "/x"}\n',
    b'{"id": 1, "op": "start", "argv": ["/bin/true"], "env": {"A": 1}, "data_dir": "/", "log_file": "/x"}\n',
    b'{"id": 1, "op": "start", "argv": ["/bin/true"], "env": {}, "data_dir": "here", "log_file": "/x"}\n',
    b'{"id": 1, "op": "start", "argv": ["/bin/true"], "env": {}, "data_dir": "/", "log_file": "/x", "deadline": 7}\n',
    b'{"id": 1, "op": "deadline", "epoch": 1, "at_s": NaN, "half_margin_s": 1}\n',
    b'{"id": 1, "op": "deadline", "epoch": 1, "at_s": Infinity, "half_margin_s": 1}\n',
    b'{"id": 1, "op": "deadline", "epoch": true, "at_s": 1, "half_margin_s": 1}\n',
    b'{"id": 1, "op": "deadline", "epoch": 1, "at_s": 1, "half_margin_s": -1}\n',
    b'{"id": 1, "op": "deadline", "epoch": 1.5, "at_s": 1, "half_margin_s": 1}\n',
    b'{"id": 1, "op": "stop", "mode": "smart"}\n',
    b'{"id": 1, "op": "clean", "data_dir": "\\ud800"}\n',
]


def test_garbage_harms_neither_the_guard_nor_its_other_clients(bench):
    bench.client.ensure()
    address = str(bench.run_dir / "guard.sock")
    for garbage in GARBAGE:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect(address)
            assert json.loads(client.recv(4096))["event"] == "hello"
            try:
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                answers = client.makefile().read().splitlines()
            except (BrokenPipeError, ConnectionResetError):
                continue  # too long: given up
            assert all(json.loads(answer).get("error") == "bad_request" for answer in answers), garbage
        status = bench.client.status()
        assert (status.postmaster, status.deadline_s) == (None, None)
    assert not [line for line in bench.log() if line["event"].endswith(".failed")]


def test_a_request_may_come_in_pieces_and_several_in_one(bench):
    bench.client.ensure()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(str(bench.run_dir / "guard.sock"))
        for piece in (b'{"id": 7, "op": ', b'"status"}\n{"id": 8, "op": "status"}\n{"id"'):
            client.sendall(piece)
            time.sleep(0.05)
        lines = client.recv(65536).splitlines()
    assert [json.loads(line).get("id") for line in lines] == [None, 7, 8]


def test_a_client_that_does_not_read_is_given_up(bench):
    bench.client.ensure()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(str(bench.run_dir / "guard.sock"))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.sendall(b'{"id": 1, "op": "status"}\n' * 1_000_000)
    assert bench.client.status().postmaster is None


def test_there_is_a_limit_to_clients(bench):
    bench.client.ensure()
    address = str(bench.run_dir / "guard.sock")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(15)]
    for client in clients:
        client.connect(address)
    assert refusal(bench.client.status) == "busy"
    for client in clients:
        client.close()
    wait_until(lambda: answers(bench.client))


def answers(client: GuardClient) -> bool:
    try:
        return client.status().postmaster is None
    except GuardError:
        return False


def test_a_client_without_a_guard_says_so(tmp_path):
    client = GuardClient(tmp_path)
    assert client.fileno() is None
    assert client.events() == []
    assert refusal(client.status) == "unreachable"


def test_events_wake_a_selector(bench):
    bench.start("exec sleep 600", Deadline(5, bench.soon(0.2), 0.1))
    readable, _, _ = select.select([bench.client.fileno()], [], [], 2)
    assert readable
    assert wait_until(bench.client.events)


def test_the_loss_of_the_guard_is_noticed(bench):
    bench.client.ensure()
    os.kill(bench.client.status().pid, signal.SIGKILL)
    wait_until(lambda: bench.client.events() == [] and bench.client.fileno() is None)
    bench.client.ensure()
    assert bench.client.fileno() is not None


def test_a_guard_that_cannot_even_be_started_is_named(tmp_path):
    """What a full disk, or want of memory, does to the node's look is an answer, not the end of the node."""
    (tmp_path / "file").write_text("")
    with pytest.raises(GuardError, match=r"/run: Not a directory") as refused:
        GuardClient(tmp_path / "file" / "run").ensure()
    assert refused.value.code == "no_start"


def test_calls_share_a_connection(bench):
    bench.client.ensure()
    alone = set(os.listdir("/proc/self/fd"))
    bench.client.status()
    shared = set(os.listdir("/proc/self/fd"))
    assert len(shared - alone) == 1
    bench.client.set_deadline(Deadline(5, now_s() + 60, 0.1))
    assert refusal(bench.client.set_deadline, Deadline(4, now_s() + 60, 0.1)) == "old_epoch"
    assert bench.client.status().deadline_epoch == 5
    assert set(os.listdir("/proc/self/fd")) == shared


def test_a_call_finds_the_guard_that_has_taken_the_place_of_another(bench):
    bench.client.ensure()
    before = bench.client.status().pid
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: has_ended(before))
    other = GuardClient(bench.run_dir)
    other.ensure()
    assert bench.client.status().pid == other.status().pid
    other.close()


def test_an_answer_that_comes_too_late_is_nobodys(bench):
    bench.client.ensure()
    pid = bench.client.status().pid
    os.kill(pid, signal.SIGSTOP)
    assert refusal(bench.client.set_deadline, Deadline(5, now_s() + 60, 0.1)) == "timeout"
    awake = threading.Timer(0.2, os.kill, (pid, signal.SIGCONT))
    awake.start()
    assert bench.client.status(limit_s=2).pid == pid
    awake.join()


def test_a_guard_is_silent_from_the_first_call_that_it_does_not_answer(bench):
    bench.client.ensure()
    pid = bench.client.status().pid
    os.kill(pid, signal.SIGSTOP)
    assert refusal(bench.client.status, limit_s=0.1) == "timeout"
    began_s = time.monotonic()
    assert refusal(bench.client.status, limit_s=0.3) == "timeout"
    assert bench.client.silent_s() >= time.monotonic() - began_s
    assert bench.client.kill_silent() == pid


def test_events_are_heard_beside_calls(bench):
    bench.start("exec sleep 600")
    bench.client.status()
    bench.client.kill_postgres()
    wait_until(lambda: bench.client.status().postmaster is None)
    assert [type(event) for event in bench.client.events()] == [Exited]


def test_want_of_descriptors_says_nothing_about_the_guard(bench):
    bench.client.ensure()
    taken, limits = [], resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(GuardError, match="Too many open files") as failed:
            bench.client.status()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)
    assert failed.value.code == "timeout"
    assert bench.client.status().postmaster is None
