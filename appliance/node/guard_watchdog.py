"""A watchdog device behind the guard (R4): it resets the host when the guard could not end PostgreSQL in time.

The device has a thread of its own, since one that hangs must delay no deadline. It runs from the moment it is opened
and is stopped by the letter V alone: a guard that dies leaves it running.
"""

import ctypes
import os
import stat
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from appliance.node.guard_record import Fields, Recorder
from appliance.node.guard_system import boottime_s, libc

WDIOC_GETSUPPORT = 0x80285700
WDIOC_SETTIMEOUT = 0xC0045706
WDIOC_GETTIMEOUT = 0x80045707
"""Of linux/watchdog.h, as most architectures number them; not PowerPC, MIPS, SPARC and Alpha."""
SUPPORT_BYTES = 40
WDIOF_SETTIMEOUT = 0x0080
WDIOF_MAGICCLOSE = 0x0100

ARM_LIMIT_S = 0.2
STUCK_S = 1.0
PROBLEM_KEPT_S = 30.0
"""A node whose device could not be opened is not chosen again at once; later it may be mended."""


class Wanted(NamedTuple):
    """A device, and when it must reset the host unless it is fed or disarmed."""

    path: str
    timeout_s: int
    """at most"""
    fires_at_s: float
    """CLOCK_BOOTTIME: after the guard's own fence"""
    never_after_s: float
    """when the lease is over"""


class Timer(Protocol):
    """A running device. Every call may hang."""

    timeout_s: int
    """as the device took it"""

    def feed(self) -> None: ...

    def disarm(self) -> None: ...


class Device:
    """A character device of Linux's watchdog interface. OSError when it is none, or does not do what is needed."""

    def __init__(self, path: str, timeout_s: int) -> None:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            raise OSError(f"{path} is no device")
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self.timeout_s = self._prepared(timeout_s)
        except OSError:
            self.disarm()
            raise

    def _prepared(self, timeout_s: int) -> int:
        support = ctypes.create_string_buffer(SUPPORT_BYTES)
        self._control(WDIOC_GETSUPPORT, support, "is no watchdog")
        (options,) = struct.unpack_from("=I", support)
        if not options & WDIOF_MAGICCLOSE:
            raise OSError(f"{self._path} stops when it is closed, and so when the guard dies")
        taken_s = ctypes.c_int(timeout_s)
        if options & WDIOF_SETTIMEOUT:
            self._control(WDIOC_SETTIMEOUT, ctypes.byref(taken_s), f"does not take a timeout of {timeout_s} s")
        else:
            self._control(WDIOC_GETTIMEOUT, ctypes.byref(taken_s), "does not say its timeout")
        if not 0 < taken_s.value <= timeout_s:
            raise OSError(f"{self._path} has a timeout of {taken_s.value} s, the lease allows {timeout_s} s")
        return taken_s.value

    def _control(self, request: int, argument: object, trouble: str) -> None:
        # ctypes lets other threads go on meanwhile.
        if libc.ioctl(self._fd, ctypes.c_ulong(request), argument) != 0:
            raise OSError(f"{self._path} {trouble}: {os.strerror(ctypes.get_errno())}")

    def feed(self) -> None:
        os.write(self._fd, b"\0")

    def disarm(self) -> None:
        """Stop it and let go of it; the kernel knows the V as the last thing written."""
        try:
            os.write(self._fd, b"V")
        finally:
            os.close(self._fd)


class Feeder:
    """Arms, feeds and disarms one device as it is told. Not for threads: time comes in, the caller waits."""

    def __init__(self, open_device: Callable[[str, int], Timer], recorder: Recorder) -> None:
        self._open = open_device
        self._recorder = recorder
        self._device: Timer | None = None
        self._path = ""
        self.problem = ""
        self.problem_at_s = 0.0

    @property
    def timeout_s(self) -> int | None:
        """Of the running device; None when none is known to run."""
        return self._device.timeout_s if self._device is not None else None

    def follow(self, wanted: Wanted | None, now_s: float) -> float | None:
        """Do what `wanted` asks for at this time; answer how long to wait until the next feeding."""
        if wanted is None or (self._device is not None and wanted.path != self._path):
            self._disarm(now_s)
        if wanted is None:
            return None
        if self._device is None and not self._arm(wanted, now_s):
            return None
        return self._feed(wanted, now_s)

    def _arm(self, wanted: Wanted, now_s: float) -> bool:
        if now_s + wanted.timeout_s > wanted.fires_at_s:
            self._failed(f"{wanted.path} was not opened: the deadline is nearer than its {wanted.timeout_s} s", now_s)
            return False
        try:
            self._device = self._open(wanted.path, wanted.timeout_s)
        except OSError as error:
            self._failed(f"{error.filename}: {error.strerror}" if error.filename else str(error), now_s)
            return False
        self._path, self.problem = wanted.path, ""
        self._recorder.log("watchdog.armed", device=wanted.path, timeout_s=self._device.timeout_s)
        return True

    def _feed(self, wanted: Wanted, now_s: float) -> float | None:
        """A feeding moves the reset to one timeout from now: the last one, to the moment when it is wanted."""
        assert self._device is not None, "an armed device is fed"
        timeout_s = self._device.timeout_s
        last_s = wanted.fires_at_s - timeout_s
        if now_s + timeout_s > wanted.never_after_s:
            return None
        try:
            self._device.feed()
            self.problem = ""
        except OSError as error:
            # Not closed: whether it still counts is unknown, and a close without V would change nothing.
            self._failed(f"{self._path} could not be fed: {error.strerror}", now_s)
        return min(timeout_s / 4, last_s - now_s) if now_s < last_s else None

    def _disarm(self, now_s: float) -> None:
        device, self._device = self._device, None
        if device is None:
            return
        try:
            device.disarm()
            self._recorder.log("watchdog.disarmed", device=self._path)
        except OSError as error:
            self._failed(f"{self._path} could not be disarmed: {error.strerror}", now_s)

    def _failed(self, problem: str, now_s: float) -> None:
        if problem != self.problem:
            self._recorder.log("watchdog.failed", problem=problem)
        self.problem, self.problem_at_s = problem, now_s


class Watchdog:
    """What the guard's loop asks of the device, which a thread does. `hold` and `status` wait for nothing."""

    def __init__(self, recorder: Recorder) -> None:
        self._feeder = Feeder(Device, recorder)
        self._changed = threading.Condition()
        self._wanted: Wanted | None = None
        self._number = 0
        """of the last wish"""
        self._followed = 0
        """of the wish that was last done, or found impossible"""
        self._busy_from_s: float | None = None
        self._thread = threading.Thread(target=self._work, name="watchdog", daemon=True)
        self._thread.start()

    def hold(self, wanted: Wanted | None) -> None:
        """From now on, arm and feed a device until it must fire; None: disarm it."""
        with self._changed:
            if wanted == self._wanted:
                return
            self._wanted = wanted
            self._number += 1
            self._changed.notify_all()

    def armed(self, limit_s: float) -> bool:
        """Whether the device runs, after at most `limit_s` for it to do what was last asked."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._followed == self._number, limit_s)
            return done and self._feeder.timeout_s is not None

    def close(self, limit_s: float = 1.0) -> None:
        """Disarm the device, but wait no longer than `limit_s` for it."""
        self.hold(None)
        with self._changed:
            self._changed.wait_for(lambda: self._followed == self._number, limit_s)

    def status(self) -> Fields:
        with self._changed:
            wanted, feeder, now_s = self._wanted, self._feeder, boottime_s()
            problem = feeder.problem if wanted or now_s < feeder.problem_at_s + PROBLEM_KEPT_S else ""
            if self._busy_from_s is not None and now_s > self._busy_from_s + STUCK_S:
                problem = f"the device has not answered for {now_s - self._busy_from_s:.0f} s"
            return {"device": wanted and wanted.path, "timeout_s": feeder.timeout_s, "problem": problem}

    def _work(self) -> None:
        pause_s: float | None = None
        done = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._number != done, pause_s)  # noqa: B023  called here only
                wanted, done = self._wanted, self._number
                self._busy_from_s = now_s = boottime_s()
            try:
                pause_s = self._feeder.follow(wanted, now_s)
            except Exception as error:  # noqa: BLE001  out of memory, say: what it runs for goes on without it
                self._feeder.problem, self._feeder.problem_at_s = repr(error), now_s
                pause_s = STUCK_S
            with self._changed:
                self._busy_from_s = None
                self._followed = done
                self._changed.notify_all()
