#!/usr/bin/python3.11
"""Process 1 of a virtual machine with Linux's softdog: `case=` on the kernel's command line says what to do.

normal: ends in order and must live on; undead: what the guard kills does not die; kill, stop: the guard itself.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

FINIT_MODULE = 313
POWER_OFF = 0x4321FEDC
SYSFS = Path("/sys/class/watchdog/watchdog0")
HALF_MARGIN_S = 0.25
LEASE_S = 5.44
PYTHON = "/usr/bin/python3.11"
NOTHING_DIES = "from appliance.node import guard_keeper; guard_keeper.send = lambda pid, number: True;"

libc = ctypes.CDLL(None, use_errno=True)


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(*words: object) -> None:
    os.write(1, f"@@ {now_s():.2f} {' '.join(map(str, words))}\n".encode())


def state() -> str:
    return (SYSFS / "state").read_text().strip()


def boot() -> None:
    os.environ["PATH"] = "/usr/bin"
    for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")):
        libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None)
    console = os.open("/dev/console", os.O_RDWR)
    for number in range(3):
        os.dup2(console, number)
    for module in ("/watchdog.ko", "/softdog.ko"):
        libc.syscall(FINIT_MODULE, os.open(module, os.O_RDONLY), b"", 0)
    sys.path.insert(0, "/app")


def device_alone() -> None:
    from appliance.node.guard_watchdog import Device

    device = Device("/dev/watchdog", 2)
    say("opened, timeout", device.timeout_s, "of", (SYSFS / "timeout").read_text().strip(), "s, is", state())
    for _ in range(4):
        time.sleep(1)
        device.feed()
    try:
        Device("/dev/watchdog", 2)
    except OSError as error:
        say("a second one:", error)
    device.disarm()
    say("disarmed after 4 s, is", state())


def guarded(case: str) -> None:
    from appliance.node.guard_client import LAUNCH, Deadline, GuardClient, Watchdog

    def deadline(epoch: int, left_s: float = LEASE_S) -> Deadline:
        return Deadline(epoch, now_s() + left_s, HALF_MARGIN_S)

    def start(epoch: int, left_s: float = LEASE_S) -> None:
        program = [PYTHON, "-I", "-S", "-c", "import time; time.sleep(600)"]
        places = {"data_dir": data_dir, "log_file": Path("/tmp/log")}
        client.start_postgres(program, env={"PATH": "/usr/bin"}, deadline=deadline(epoch, left_s), **places)
        say("started:", client.status().watchdog, "is", state())

    run_dir, data_dir = Path("/run/guard"), Path("/tmp/data")
    run_dir.mkdir()
    data_dir.mkdir()
    if case == "undead":
        code = LAUNCH.replace("from appliance.node.guard import", f"{NOTHING_DIES} from appliance.node.guard import")
        subprocess.run([PYTHON, "-I", "-S", "-c", code, "/app", "--dir", str(run_dir)], check=True)
    client = GuardClient(run_dir, python=PYTHON)
    client.ensure(30)
    client.watchdog = Watchdog("/dev/watchdog", 2, required=True)
    start(5)
    for _ in range(10):
        time.sleep(0.5)
        client.set_deadline(deadline(5))
    say("renewed for 5 s, is", state())
    if case == "undead":
        last = deadline(5)
        client.set_deadline(last)
        kill_s = last.at_s + HALF_MARGIN_S
        say(f"deadline {last.at_s:.2f}, kill {kill_s:.2f}, the lease is over at {kill_s + HALF_MARGIN_S:.2f}")
        return
    client.stop_postgres("immediate")
    time.sleep(0.5)
    say("stopped in order, is", state())
    start(6, left_s=3)
    time.sleep(3.3)
    say("fenced:", client.events()[-1], "is", state())
    time.sleep(4)
    start(7)
    pid = client.status().pid
    if case == "normal":
        client.stop_postgres("immediate")
        time.sleep(0.5)
        client.quit()
        say("ended in order, is", state())
    else:
        os.kill(pid, {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[case])
        say(case, "the guard")


def main() -> None:
    boot()
    try:
        device_alone()
        guarded(next(word[5:] for word in Path("/proc/cmdline").read_text().split() if word.startswith("case=")))
        until_s = now_s() + 12
        while now_s() < until_s:
            time.sleep(0.02)
            say("alive")
        say("the machine was not reset")
    except BaseException:
        traceback.print_exc()
    libc.reboot(POWER_OFF)
    time.sleep(100)


main()
