"""The watchdog behind the guard (R4): when it would reset the host, and what a device that fails or hangs delays.

No device is at hand: the guard runs with one that notes what is done to it, and the real one is refused what it is not.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.node.guard_client import LAUNCH, PACKAGE_ROOT, Deadline, Watchdog
from appliance.node.guard_connection import GuardError
from appliance.node.guard_keeper import Deadline as Kept
from appliance.node.guard_keeper import Device as Behind
from appliance.node.guard_watchdog import Device, Feeder, Wanted
from tests.unit.test_guard import STUBBORN, Bench, has_ended, refusal, wait_until

HALF_MARGIN_S = 0.25
TIMEOUT_S = 1
INTO = "from appliance.node import guard_keeper, guard_watchdog; import recorded_watchdog;"
RECORDED = f"{INTO} guard_watchdog.Device = recorded_watchdog.Recorded;"
FAILS_WHEN_ARMED = (
    f"{RECORDED} import appliance.node.guard as guard; attend = guard.Guard._attend;"
    " guard.Guard._attend ="
    " lambda self, handle: 1 / 0 if self._watchdog.status()['timeout_s'] else attend(self, handle);"
)
NOTHING_DIES = f"{RECORDED} guard_keeper.send = lambda pid, number: True;"


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Watched(Bench):
    """A bench whose guard has a recorded device, unless told otherwise."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.device = root / "watchdog"

    def launch(self, change: str = RECORDED) -> None:
        self.run_dir.mkdir()
        code = LAUNCH.replace("from appliance.node.guard import", f"{change} from appliance.node.guard import")
        code = code.replace("import sys;", f"import sys; sys.path.append({str(Path(__file__).parent)!r});", 1)
        command = [sys.executable, "-I", "-S", "-c", code, str(PACKAGE_ROOT), "--dir", str(self.run_dir)]
        subprocess.run(command, check=True, timeout=10)
        self.client.ensure()

    def watch(self, name: str = "watchdog", *, required: bool = False) -> None:
        self.device = self.device.with_name(name)
        self.client.watchdog = Watchdog(str(self.device), TIMEOUT_S, required)

    def deadline(self, delay_s: float, epoch: int = 5) -> Deadline:
        return Deadline(epoch, now_s() + delay_s, HALF_MARGIN_S)

    def record(self) -> list[tuple[str, float]]:
        lines = self.device.read_text().splitlines() if self.device.exists() else []
        return [(line.split()[0], float(line.split()[1])) for line in lines]

    def done(self) -> list[str]:
        return [what for what, _ in self.record()]

    def resets_at_s(self) -> float:
        """When a real one would reset the host, unless something more is done to it."""
        assert self.done()[-1] != "disarmed"
        return max(at_s for _, at_s in self.record()) + TIMEOUT_S


@pytest.fixture
def bench(tmp_path):
    bench = Watched(tmp_path)
    yield bench
    bench.end()


def test_it_runs_as_long_as_a_deadline_is_held_and_is_fed_meanwhile(bench):
    bench.launch()
    bench.watch()
    bench.start("exec sleep 600")
    time.sleep(0.3)
    assert bench.record() == [], "a standby has no deadline"
    for _ in range(10):
        bench.client.set_deadline(bench.deadline(2))
        time.sleep(0.1)
    assert bench.client.status().watchdog.timeout_s == TIMEOUT_S
    bench.client.stop_postgres("immediate")
    bench.exited()
    wait_until(lambda: bench.done()[-1] == "disarmed")
    at_s = [at_s for _, at_s in bench.record()]
    assert max(later - sooner for sooner, later in pairwise(at_s)) < TIMEOUT_S / 2
    assert bench.done().count("opened") == 1
    status = bench.client.status().watchdog
    assert (status.device, status.timeout_s, status.problem) == (None, None, "")


def test_a_fence_that_succeeds_disarms_it(bench):
    bench.launch()
    bench.watch()
    deadline = bench.deadline(1.6)
    bench.start(STUBBORN, deadline)
    bench.exited()
    wait_until(lambda: bench.done()[-1] == "disarmed")
    *_, (_, fed_s), (_, disarmed_s) = bench.record()
    kill_s = deadline.at_s + HALF_MARGIN_S
    assert kill_s < disarmed_s < fed_s + TIMEOUT_S < kill_s + HALF_MARGIN_S, "the reset had waited for the guard's kill"


def test_what_does_not_die_is_reset_after_the_kill_and_before_the_lease_is_over(bench):
    bench.launch(NOTHING_DIES)
    bench.watch()
    deadline = bench.deadline(1.6)
    program = bench.start("exec sleep 600", deadline)
    time.sleep(deadline.at_s - now_s() + 1)
    assert not has_ended(program)
    kill_s = deadline.at_s + HALF_MARGIN_S
    assert kill_s < bench.resets_at_s() < kill_s + HALF_MARGIN_S
    assert bench.client.status().watchdog.timeout_s == TIMEOUT_S, "it still runs"


@pytest.mark.parametrize("blow", ["SIGKILL", "SIGSTOP"])
def test_the_death_or_the_stop_of_the_guard_disarms_nothing(bench, blow):
    bench.launch()
    bench.watch()
    deadline = bench.deadline(4)
    bench.start("exec sleep 600", deadline)
    wait_until(lambda: "fed" in bench.done())
    os.kill(bench.client.status().pid, signal.Signals[blow])
    time.sleep(0.5)
    assert bench.resets_at_s() < deadline.at_s
    os.kill(int((bench.run_dir / "guard.pid").read_text()), signal.SIGCONT)


def test_a_failure_of_the_guard_itself_disarms_nothing(bench):
    bench.launch(FAILS_WHEN_ARMED)
    bench.watch()
    pid = bench.client.status().pid
    with suppress(GuardError):  # it may answer before it fails
        bench.start("exec sleep 600", bench.deadline(4))
        bench.client.status()
    wait_until(lambda: has_ended(pid))
    assert "ZeroDivisionError" in bench.logged("guard.failed")["error"]
    assert "fed" in bench.done()
    assert "disarmed" not in bench.done()


def test_an_orderly_end_of_the_guard_disarms_it_first(bench):
    bench.launch()
    bench.watch()
    bench.client.set_deadline(bench.deadline(60))
    wait_until(lambda: "fed" in bench.done())
    bench.client.quit()
    wait_until(lambda: bench.done()[-1] == "disarmed")


def test_a_start_that_fails_disarms_it(bench):
    bench.launch()
    bench.watch(required=True)
    bench.client.ensure()
    places = {"data_dir": bench.data_dir, "log_file": bench.log_file}
    code = refusal(bench.client.start_postgres, ["/nonexistent"], env={}, deadline=bench.deadline(60), **places)
    assert code == "start_failed"
    wait_until(lambda: bench.done()[-1:] == ["disarmed"])


def test_a_deadline_that_passes_with_nothing_running_disarms_it(bench):
    bench.launch()
    bench.watch()
    bench.client.set_deadline(bench.deadline(1.2))
    wait_until(lambda: bench.done()[-1:] == ["disarmed"])


def test_a_setting_that_was_changed_to_off_disarms_it(bench):
    bench.launch()
    bench.watch()
    bench.start("exec sleep 600", bench.deadline(60))
    wait_until(lambda: "fed" in bench.done())
    bench.client.watchdog = None
    bench.client.set_deadline(bench.deadline(60))
    wait_until(lambda: bench.done()[-1] == "disarmed")


# Devices that fail or hang


@pytest.mark.parametrize("name", ["hangs-when-opened", "hangs-when-fed", "breaks-when-fed"])
def test_a_device_that_hangs_or_breaks_delays_no_deadline(bench, name):
    bench.launch()
    bench.watch(name)
    deadline = bench.deadline(1.7)
    bench.start("exec sleep 600", deadline)
    wait_until(lambda: bench.client.status().watchdog.problem)
    problem = bench.client.status().watchdog.problem
    assert ("could not be fed" if name.startswith("breaks") else "has not answered for 1 s") in problem
    assert bench.exited().clean
    assert deadline.at_s <= now_s() < deadline.at_s + HALF_MARGIN_S
    if "hangs" in name:
        assert "disarmed" not in bench.done()


def test_a_required_device_that_hangs_is_waited_for_a_moment_only(bench):
    bench.launch()
    bench.watch("hangs-when-opened", required=True)
    began_s = now_s()
    assert refusal(bench.start, "exec sleep 600", bench.deadline(60)) == "watchdog"
    assert now_s() - began_s < 0.5
    assert bench.client.status().postmaster is None


@pytest.mark.parametrize("begins", ["start", "first deadline"])
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("/nonexistent/watchdog", "/nonexistent/watchdog: No such file or directory"),
        ("plain", "is no device"),
        ("/dev/null", "/dev/null is no watchdog: Inappropriate ioctl for device"),
    ],
)
def test_without_a_required_device_nothing_becomes_primary(bench, tmp_path, device, words, begins):
    """The real one: its checks, and the kernel's answer to its ioctl."""
    (tmp_path / "plain").write_text("")
    path = str(tmp_path / device) if device == "plain" else device
    if begins == "first deadline":
        bench.start("exec sleep 600")
    bench.client.watchdog = Watchdog(path, TIMEOUT_S, required=True)
    if begins == "start":
        assert refusal(bench.start, "exec sleep 600", bench.deadline(60)) == "watchdog"
    else:
        assert refusal(bench.client.set_deadline, bench.deadline(60)) == "watchdog"
    status = bench.client.status()
    assert (status.deadline_s, status.watchdog.timeout_s) == (None, None)
    assert words in status.watchdog.problem
    assert (status.postmaster is None) == (begins == "start")
    assert (tmp_path / "plain").read_text() == ""


def test_without_an_automatic_device_it_goes_on_and_says_so(bench):
    bench.client.ensure()
    bench.client.watchdog = Watchdog("/dev/null", TIMEOUT_S, required=False)
    bench.start("exec sleep 600", bench.deadline(60))
    wait_until(lambda: "is no watchdog" in bench.client.status().watchdog.problem)
    assert "is no watchdog" in bench.logged("watchdog.failed")["problem"]


def test_a_required_device_that_is_lost_later_ends_no_primary(bench):
    bench.launch()
    bench.watch("breaks-when-fed", required=True)
    bench.start("exec sleep 600", bench.deadline(60))
    wait_until(lambda: bench.client.status().watchdog.problem)
    bench.client.set_deadline(bench.deadline(60))
    assert bench.client.status().postmaster is not None


@pytest.mark.parametrize(
    "wrong", [{"timeout_s": 0}, {"timeout_s": 10**6}, {"timeout_s": "1"}, {"device": "watchdog"}, {"device": "/a\0b"}]
)
def test_nonsense_about_a_device_is_refused(bench, wrong):
    bench.client.ensure()
    fields = {"device": "/dev/null", "timeout_s": 1, "required": False, **wrong}
    bench.client.watchdog = Watchdog(**fields)
    assert refusal(bench.client.set_deadline, bench.deadline(60)) == "bad_request"
    assert bench.client.status().deadline_s is None


# When it fires


class Noted:
    """A device in memory: when it would reset the host."""

    def __init__(self, timeout_s: int) -> None:
        self.timeout_s = timeout_s
        self.now_s = 0.0
        self.fires_at_s: float | None = None
        self.fed_s: list[float] = []

    def opened(self, path: str, timeout_s: int) -> "Noted":
        assert timeout_s >= self.timeout_s
        self.fires_at_s = self.now_s + self.timeout_s
        return self

    def feed(self) -> None:
        assert self.fires_at_s is None or self.now_s <= self.fires_at_s, "the host was reset"
        self.fires_at_s = self.now_s + self.timeout_s
        self.fed_s.append(self.now_s)

    def disarm(self) -> None:
        self.fires_at_s = None


class NoLog:
    def log(self, event: str, **fields: object) -> None:
        pass


def behind(at_s: float, half_margin_s: float, timeout_s: int) -> Wanted:
    return Behind("/dev/watchdog", timeout_s, True).behind(Kept(5, at_s, half_margin_s))


@given(
    timeout_s=st.integers(1, 20),
    half_margin_s=st.floats(0.05, 2),
    renewals_s=st.lists(st.floats(0.05, 8), max_size=20),
    lateness=st.floats(0, 0.99),
)
def test_r4_a_host_is_reset_between_the_guards_kill_and_the_end_of_the_lease(
    timeout_s, half_margin_s, renewals_s, lateness
):
    """The lease is renewed at some times, and then no more; the thread wakes late, by up to half a half margin."""
    device = Noted(timeout_s)
    feeder = Feeder(device.opened, NoLog())
    lease_s = timeout_s + 8 + 3 * half_margin_s
    wanted = behind(lease_s, half_margin_s, timeout_s)
    for pause_s in [*renewals_s, 10**6]:
        until_s = device.now_s + pause_s
        wake_s = feeder.follow(wanted, device.now_s)
        while wake_s is not None and device.now_s + wake_s < until_s:
            device.now_s += wake_s + lateness * half_margin_s / 2
            assert device.now_s < device.fires_at_s
            wake_s = feeder.follow(wanted, device.now_s)
        device.now_s = max(device.now_s, until_s)
        wanted = behind(until_s + lease_s, half_margin_s, timeout_s) if pause_s < 10**6 else wanted
    kill_s = wanted.never_after_s - half_margin_s
    assert kill_s < device.fires_at_s <= wanted.never_after_s


@given(st.integers(1, 20), st.floats(0.05, 2), st.floats(0, 100), st.lists(st.floats(0, 100), max_size=20))
def test_r4_whenever_it_is_fed_the_reset_comes_before_the_end_of_the_lease(timeout_s, half_margin_s, at_s, times_s):
    device = Noted(timeout_s)
    feeder = Feeder(device.opened, NoLog())
    wanted = behind(at_s, half_margin_s, timeout_s)
    for device.now_s in sorted(times_s):
        device.fires_at_s = None  # whether it has fired is not the question
        feeder.follow(wanted, device.now_s)
        assert device.fires_at_s is None or device.fires_at_s <= wanted.never_after_s


def test_a_device_that_takes_less_time_is_fed_more_often():
    device = Noted(1)
    feeder = Feeder(device.opened, NoLog())
    assert feeder.follow(behind(60, 0.25, 5), 0) == pytest.approx(0.25)
    assert feeder.timeout_s == 1


def test_a_device_is_not_opened_for_a_deadline_that_is_nearer_than_its_timeout():
    device = Noted(2)
    feeder = Feeder(device.opened, NoLog())
    assert feeder.follow(behind(1.5, 0.25, 2), 0) is None
    assert (device.fires_at_s, feeder.timeout_s) == (None, None)
    assert "nearer than its 2 s" in feeder.problem


def test_the_real_device_refuses_what_is_none(tmp_path):
    with pytest.raises(OSError, match="is no device"):
        Device(str(tmp_path), 5)
    with pytest.raises(OSError, match="/dev/zero is no watchdog: Inappropriate ioctl for device"):
        Device("/dev/zero", 5)
