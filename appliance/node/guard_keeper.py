"""The keeper of one postmaster: its start, its deadline, and the way to end all of it (safety.md R4, R11).

It never waits while PostgreSQL runs: `step` does what is due, `wake_at_s` says when to call it next.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from appliance.node.guard_record import Fields, Recorder, wall_time
from appliance.node.guard_system import (
    Process,
    Program,
    SpawnError,
    boottime_s,
    family,
    look_at,
    processes_of,
    send,
    spawn,
    works_in,
)
from appliance.node.guard_watchdog import ARM_LIMIT_S, Wanted, Watchdog

HALF_MARGIN_S = 0.25
"""Between SIGQUIT and SIGKILL when somebody asks for the end and no deadline says how long."""

CLEAN_LIMIT_S = 1.0
UNCLEAN_AFTER_S = 3.0
"""A process that hangs in the kernel may outlive SIGKILL; after this long the exit is reported as unclean."""

ROUND_S = 0.01
SLOW_ROUND_S = 0.2


class Deadline(NamedTuple):
    """When the postmaster must end, in which epoch, and how long SIGQUIT may take before SIGKILL follows."""

    epoch: int
    at_s: float
    half_margin_s: float


class Device(NamedTuple):
    """The watchdog device that stands behind a deadline."""

    path: str
    timeout_s: int
    required: bool
    """nothing becomes primary without it"""

    def behind(self, deadline: Deadline) -> Wanted:
        """It resets the host between SIGKILL and the end of the lease, half a margin later."""
        kill_s = deadline.at_s + deadline.half_margin_s
        fires_at_s, never_after_s = kill_s + deadline.half_margin_s / 2, kill_s + deadline.half_margin_s
        return Wanted(self.path, self.timeout_s, fires_at_s, never_after_s)


class Postmaster(NamedTuple):
    pid: int
    started_at_s: float
    data_dir: str


class Refused(Exception):  # noqa: N818  an answer, not a fault
    """A request that cannot be granted: a code for programs, a sentence for people."""

    def __init__(self, code: str, because: str) -> None:
        super().__init__(because)
        self.code = code


class Ending:
    """A postmaster on its way out: from SIGQUIT, or its own death, until nothing is left."""

    __slots__ = ("began_s", "fence", "forced", "press_at_s", "reported", "signalled")

    def __init__(self, began_s: float, press_at_s: float) -> None:
        self.began_s = began_s
        self.press_at_s = press_at_s
        self.signalled: set[Process] = set()
        self.forced = False
        self.fence = False
        self.reported = False


class Keeper:
    """Parent of at most one postmaster. `tell` gets the events; `recorder` the log and the fences."""

    def __init__(self, recorder: Recorder, tell: Callable[[Fields], None], watchdog: Watchdog) -> None:
        self._recorder = recorder
        self.watchdog = watchdog
        self._tell = tell
        self._lowest_epoch = 0
        self._exit_status: int | None = None
        """How the postmaster ended, from its death until nothing of the instance is left."""
        self.postmaster: Postmaster | None = None
        self.deadline: Deadline | None = None
        self.ending: Ending | None = None
        self.last_exit: Fields | None = None
        self.last_fence = recorder.last_fence()

    # What the node asks

    def start(self, program: Program, deadline: Deadline | None, device: Device | None = None) -> int:
        """Start the postmaster under `deadline`, which is armed before its first instruction."""
        data_dir = self._free_directory(program.directory)
        if deadline is not None and deadline.at_s <= boottime_s():
            raise Refused("expired", f"the deadline {deadline.at_s:.3f} s of epoch {deadline.epoch} has passed")
        if left := [process.pid for process in processes_of(data_dir)]:
            raise Refused("leftovers", f"processes {left} of an earlier postmaster live in {data_dir}. Clean it first")
        self.hold(deadline, device)
        try:
            pid = spawn(program)
        except SpawnError as error:
            self.hold(None)
            raise Refused("start_failed", str(error)) from error
        born = look_at(pid)
        assert born is not None, "a child that was not reaped is in /proc"
        self.postmaster = Postmaster(pid, born.started_at_s, data_dir)
        self._recorder.log("postgres.started", pid=pid, argv=list(program.argv), data_dir=data_dir)
        return pid

    def _free_directory(self, named: str) -> str:
        """Resolve a data directory that nothing runs in; its disk may hang, so not while a deadline may be due."""
        if self.postmaster is not None:
            raise Refused("running", f"postmaster {self.postmaster.pid} of this guard has not ended")
        data_dir = os.path.realpath(named)
        other = recorded_postmaster(data_dir)
        if other is not None:
            raise Refused("running_elsewhere", f"postmaster {other} runs in {data_dir} without this guard")
        return data_dir

    def hold(self, deadline: Deadline | None, device: Device | None = None) -> None:
        """Replace the deadline. Epochs never go down, and none goes on after its fence.

        The first of a primary waits for a device that is required, a moment: no other deadline is at stake then.
        """
        if deadline is not None:
            if deadline.epoch < self._lowest_epoch:
                raise self._refusal_of(deadline.epoch)
            self._lowest_epoch = deadline.epoch
        before = self.deadline and self.deadline.epoch
        after = deadline and deadline.epoch
        if before != after:
            self._recorder.log("deadline.changed", epoch=after, at_s=deadline and deadline.at_s)
        self.deadline = deadline
        self.watchdog.hold(device.behind(deadline) if deadline is not None and device is not None else None)
        if deadline is not None and device is not None and device.required and before is None:
            self._refuse_unarmed(deadline)

    def _refuse_unarmed(self, deadline: Deadline) -> None:
        if not self.watchdog.armed(min(ARM_LIMIT_S, (deadline.at_s - boottime_s()) / 2)):
            problem = self.watchdog.status()["problem"] or "the device has not answered in time"
            self.hold(None)
            raise Refused("watchdog", f"the watchdog is required: {problem}")

    def _refusal_of(self, epoch: int) -> Refused:
        if self.last_fence is not None and self.last_fence.get("epoch") == epoch:
            return Refused("fenced", f"epoch {epoch} was fenced and does not resume")
        return Refused("old_epoch", f"epoch {epoch} is over, the lowest that counts is {self._lowest_epoch}")

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the postmaster and promise nothing more."""
        if not self._signal(number):
            raise Refused("not_running", "no postmaster runs")
        self._recorder.log("postgres.signalled", signal=number.name)

    def kill(self) -> None:
        """End the instance as at a deadline, now. Not a fence: whoever asks knows why."""
        if self.postmaster is None:
            raise Refused("not_running", "no postmaster runs")
        self._end(self.deadline.half_margin_s if self.deadline is not None else HALF_MARGIN_S)
        self._recorder.log("postgres.signalled", signal="SIGQUIT", then="SIGKILL")

    def clean(self, data_dir: str) -> None:
        """End what a dead postmaster left of a data directory. May wait: nothing runs that has a deadline."""
        data_dir = self._free_directory(data_dir)
        until_s = boottime_s() + CLEAN_LIMIT_S
        while left := [it for it in processes_of(data_dir) if send(it.pid, signal.SIGKILL)]:
            if boottime_s() > until_s:
                pids = [process.pid for process in left]
                raise Refused("unclean", f"processes {pids} of {data_dir} do not end")
            time.sleep(ROUND_S)

    # What time and death ask

    def wake_at_s(self) -> float | None:
        """Tell when `step` has something to do although nothing happens."""
        due_s = [self.deadline.at_s] if self.deadline is not None else []
        if self.ending is not None:
            due_s.append(self.ending.press_at_s)
        return min(due_s, default=None)

    def step(self) -> None:
        """Do what is due. Called after every event, and before every request: a late renewal is no renewal."""
        self._reap()
        now_s = boottime_s()
        if self.deadline is not None and now_s >= self.deadline.at_s:
            self._pass_deadline(self.deadline, now_s)
        if self.ending is not None and now_s >= self.ending.press_at_s:
            self._press(self.ending, now_s)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.postmaster is not None and pid == self.postmaster.pid:
                self._exit_status = status
                # Orphaned backends can still acknowledge, and they block a restart: end them at once.
                self._end(0)

    def _pass_deadline(self, deadline: Deadline, now_s: float) -> None:
        self.deadline = None
        if self.postmaster is None:
            self.watchdog.hold(None)
        if not self._alive():
            self._recorder.log("deadline.passed", epoch=deadline.epoch)
            return
        self._lowest_epoch = deadline.epoch + 1
        self._end(deadline.half_margin_s).fence = True
        # Recorded after the signal and by another thread: PostgreSQL ends also when the disk hangs.
        self.last_fence = {
            "epoch": deadline.epoch,
            "at_s": now_s,
            "wall_time": wall_time(),
            "how": None,
            "took_s": None,
        }
        self._recorder.fence(self.last_fence)
        self._recorder.log("fence.begun", epoch=deadline.epoch, late_s=round(now_s - deadline.at_s, 4))

    def _end(self, half_margin_s: float) -> Ending:
        """Ask the postmaster to go at once, and see to it `half_margin_s` from now."""
        self._signal(signal.SIGQUIT)
        now_s = boottime_s()
        press_at_s = now_s + half_margin_s
        if self.ending is None:
            self.ending = Ending(now_s, press_at_s)
        self.ending.press_at_s = min(self.ending.press_at_s, press_at_s)
        return self.ending

    def _press(self, ending: Ending, now_s: float) -> None:
        """Kill what is left, one round: the postmaster forks no more, then its children, then itself.

        Each backend has a session of its own, so that killing the postmaster or its process group
        alone would leave statements running. The postmaster goes in the first round that meets
        nobody new; a process that hangs in the kernel is dead for its clients once it is signalled.
        """
        assert self.postmaster is not None, "an ending has a postmaster until it is done"
        ending.forced |= self._signal(signal.SIGSTOP)
        others = [it for it in family(os.getpid(), self.postmaster.data_dir) if it.pid != self.postmaster.pid]
        left = {process for process in others if send(process.pid, signal.SIGKILL)}
        if left <= ending.signalled:
            self._signal(signal.SIGKILL)
        ending.signalled |= left
        elapsed_s = now_s - ending.began_s
        if not self._alive() and (not left or elapsed_s > UNCLEAN_AFTER_S):
            self._report(ending, elapsed_s, clean=not left)
        ending.press_at_s = now_s + (ROUND_S if elapsed_s < UNCLEAN_AFTER_S else SLOW_ROUND_S)

    def _report(self, ending: Ending, elapsed_s: float, *, clean: bool) -> None:
        """Say that the postmaster has ended; unclean once, then again when nothing is left."""
        assert self.postmaster is not None, "an ending has a postmaster until it is done"
        assert self._exit_status is not None, "only a postmaster that ended is reported"
        if ending.fence and not ending.reported:
            self._report_fence("kill" if ending.forced else "quit", round(elapsed_s, 3))
        if clean or not ending.reported:
            self.last_exit = exit_of(self.postmaster.pid, self._exit_status, clean=clean)
            self._recorder.log("postgres.exited", **self.last_exit)
            self._tell({"event": "exited", **self.last_exit})
        ending.reported = True
        if clean:
            self.postmaster = self._exit_status = self.deadline = self.ending = None
            self.watchdog.hold(None)

    def _report_fence(self, how: str, took_s: float) -> None:
        assert self.last_fence is not None, "a fence in progress is recorded"
        self.last_fence = {**self.last_fence, "how": how, "took_s": took_s}
        self._recorder.fence(self.last_fence)
        self._recorder.log("fence.done", **self.last_fence)
        self._tell({"event": "fenced", **self.last_fence})

    def _alive(self) -> bool:
        return self.postmaster is not None and self._exit_status is None

    def _signal(self, number: signal.Signals) -> bool:
        """Signal the postmaster unless it was reaped: then its pid may be somebody else's."""
        return self.postmaster is not None and self._exit_status is None and send(self.postmaster.pid, number)


def exit_of(pid: int, status: int, *, clean: bool) -> Fields:
    """Spell out a wait status."""
    code = os.waitstatus_to_exitcode(status)
    return {
        "pid": pid,
        "code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "clean": clean,
    }


def recorded_postmaster(data_dir: str) -> int | None:
    """Name the living postmaster that postmaster.pid records; None when the file is absent or stale."""
    try:
        with open(os.path.join(data_dir, "postmaster.pid"), "rb") as file:
            # A server in single-user mode records its pid negated.
            pid = abs(int(file.readline()))
    except (OSError, ValueError):
        return None
    process = look_at(pid)
    # A stopped one is what a guard left that died in the middle of a fence: not living, but to be cleaned.
    return pid if process is not None and process.state not in "TZX" and works_in(pid, data_dir) else None
