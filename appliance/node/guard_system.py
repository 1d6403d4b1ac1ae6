"""What the guard asks of Linux: clock and timer, processes, signals, locked memory. Standard library only."""

import ctypes
import os
import resource
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4
TFD_TIMER_ABSTIME = 1

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

libc = ctypes.CDLL(None, use_errno=True)


class Process(NamedTuple):
    """A process as /proc showed it."""

    pid: int
    parent: int
    state: str
    started_at_s: float
    """CLOCK_BOOTTIME, to a hundredth of a second. With the pid it names a process for ever."""


class SpawnError(Exception):
    """A program could not be executed; nothing of it runs."""


def boottime_s() -> float:
    """Read the clock that also counts while the host is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def become_keeper_of_orphans(name: str) -> None:
    """Take over every descendant whose parent dies, and show `name` in process lists."""
    libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper")


def lock_memory() -> bool:
    """Keep what has been used so far from being paged out; say whether the host allowed it.

    Pages are locked once touched: locking all of the interpreter would cost twice the memory. Under a
    finite limit pages of the future stay unlocked, because a refused page would end the process.
    """
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = limit_bytes == resource.RLIM_INFINITY or os.geteuid() == 0
    flags = MCL_CURRENT | MCL_ONFAULT | (MCL_FUTURE if unlimited else 0)
    return bool(libc.mlockall(flags) == 0)


class Timer:
    """Wakes a selector at one moment of CLOCK_BOOTTIME, at once if the host slept past it."""

    def __init__(self) -> None:
        self._fd: int = libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "cannot create a timer")

    def fileno(self) -> int:
        return self._fd

    def set(self, at_s: float | None) -> None:
        """Wake at `at_s` and at no other time; never for None."""
        at_ns = 0 if at_s is None else max(1, int(at_s * 1e9))
        setting = (ctypes.c_long * 4)(0, 0, *divmod(at_ns, 10**9))
        if libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, setting, None) != 0:
            raise OSError(ctypes.get_errno(), f"cannot set the timer to {at_s} s")

    def clear(self) -> None:
        """Forget that it fired."""
        with suppress(BlockingIOError):
            os.read(self._fd, 8)


def look_at(pid: int) -> Process | None:
    """Read one process; None when there is none of that pid. Never waits for the process itself.

    Only `stat` and links are read: `environ` and `cmdline` can block on a process that hangs in the kernel.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(pid, int(fields[1]), fields[0].decode(), int(fields[19]) / TICKS_PER_S)


def living() -> list[Process]:
    """List every process that can still do something: no zombies."""
    seen = (look_at(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in seen if process is not None and process.state not in "ZX"]


def descendants(root: int, processes: Iterable[Process]) -> list[Process]:
    """Pick the children of `root`, their children, and so on."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    ahead = [root]
    while ahead:
        born = children.pop(ahead.pop(), [])
        found += born
        ahead += [process.pid for process in born]
    return found


def works_in(pid: int, data_dir: str) -> bool:
    """Say whether `pid` is a PostgreSQL process of that data directory: each of them changes into it.

    The name of the program keeps the shell of an administrator who looks around there alive.
    """
    try:
        program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
        return os.path.basename(program) == "postgres" and os.readlink(f"/proc/{pid}/cwd") == data_dir
    except OSError:  # gone, or of another user: PostgreSQL opens no directory of another user
        return False


def processes_of(data_dir: str) -> list[Process]:
    """List the PostgreSQL processes of a data directory, whoever their parent is."""
    return [process for process in living() if works_in(process.pid, data_dir)]


def family(root: int, data_dir: str) -> list[Process]:
    """List the descendants of `root` and whatever else PostgreSQL runs in the data directory."""
    processes = living()
    own = descendants(root, processes)
    known = {process.pid for process in own}
    return own + [other for other in processes if other.pid not in known and works_in(other.pid, data_dir)]


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False when there is nobody to get it, or somebody who is not ours to end."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class Program(NamedTuple):
    """What to execute, where, and where its output is appended."""

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: str
    log_file: str


def spawn(program: Program) -> int:
    """Execute a program in a session of its own and answer its pid; SpawnError when it cannot be executed.

    When this process dies for whatever reason, the kernel sends SIGQUIT to the program: a postmaster
    without its guard would run without a deadline. Waits until the program is loaded or could not be.
    """
    try:
        log = os.open(program.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise SpawnError(f"cannot open the log file {program.log_file}: {error.strerror}") from error
    failed_read, failed_write = os.pipe()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(program, log, failed_write, guard)
    os.close(log)
    os.close(failed_write)
    with open(failed_read, "rb") as file:
        failure = file.read().decode(errors="replace")
    if failure:
        os.waitpid(pid, 0)
        raise SpawnError(f"cannot execute {program.argv[0]} in {program.directory}: {failure}")
    return pid


def _become(program: Program, log: int, failed: int, guard: int) -> NoReturn:
    """Turn this fresh child into the program, or say through `failed` why not."""
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
        if os.getppid() != guard:
            raise OSError("the guard is gone")
        os.chdir(program.directory)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        # It would end a postmaster that has no handler for it yet, and that has not read its settings yet either.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(program.argv[0], list(program.argv), dict(program.env))  # noqa: S606  a shell has no place here
    except BaseException as error:  # noqa: BLE001  nothing may return into a second guard
        os.write(failed, str(error).encode(errors="replace")[:4000])
    os._exit(127)
