"""The guard's requests: one JSON object in, one out. Nothing of a request is believed before it was checked."""

import os
import signal
from typing import TypeVar

from appliance.node.guard_keeper import Deadline, Device, Keeper, Refused
from appliance.node.guard_record import Fields
from appliance.node.guard_system import Program

Value = TypeVar("Value")

HALF_MARGIN_LIMIT_S = 60
TIMEOUT_LIMIT_S = 3600
STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def answer(keeper: Keeper, about: Fields, request: Fields) -> Fields:
    """Do what is asked and tell the result; Refused when it cannot be."""
    match request.get("op"):
        case "status":
            return {**about, **status(keeper)}
        case "start":
            return {"pid": start(keeper, request)}
        case "deadline":
            keeper.hold(deadline_in(request), device_in(request))
        case "stop":
            keeper.send_signal(stop_signal(request))
        case "reload":
            keeper.send_signal(signal.SIGHUP)
        case "kill":
            keeper.kill()
        case "clean":
            keeper.clean(path(request, "data_dir"))
        case "quit":
            if keeper.postmaster is not None:
                raise Refused("running", f"postmaster {keeper.postmaster.pid} needs its guard")
        case other:
            raise Refused("bad_request", f"no such operation: {str(other)[:40]}")
    return {}


def status(keeper: Keeper) -> Fields:
    return {
        "postmaster": keeper.postmaster and keeper.postmaster._asdict(),
        "ending": keeper.ending is not None,
        "last_exit": keeper.last_exit,
        "deadline": keeper.deadline and keeper.deadline._asdict(),
        "fenced": keeper.last_fence,
        "watchdog": keeper.watchdog.status(),
    }


def start(keeper: Keeper, request: Fields) -> int:
    argv = member(request, "argv", list)
    env = member(request, "env", dict)
    if not argv or not all(is_argument(word) for word in [*argv, *env, *env.values()]):
        raise Refused(
            "bad_request", "argv and env consist of text that a program can be given, and argv of at least one"
        )
    deadline = member(request, "deadline", dict) if request.get("deadline") is not None else {}
    program = Program(argv, env, path(request, "data_dir"), path(request, "log_file"))
    return keeper.start(program, deadline_in(deadline), device_in(request))


def stop_signal(request: Fields) -> signal.Signals:
    mode = member(request, "mode", str)
    if mode not in STOP_SIGNALS:
        raise Refused("bad_request", f"stop mode {mode[:40]} is none of {', '.join(STOP_SIGNALS)}")
    return STOP_SIGNALS[mode]


def deadline_in(request: Fields) -> Deadline | None:
    """Read a deadline; None when it says that there shall be none."""
    if request.get("at_s") is None:
        return None
    epoch = member(request, "epoch", int)
    at_s = number(request, "at_s")
    half_margin_s = number(request, "half_margin_s")
    if not 0 <= epoch < 2**63 or at_s < 0 or not 0 <= half_margin_s <= HALF_MARGIN_LIMIT_S:
        raise Refused("bad_request", f"deadline {at_s} s, half a margin {half_margin_s} s, epoch {epoch}")
    return Deadline(epoch, at_s, half_margin_s)


def device_in(request: Fields) -> Device | None:
    """Read which watchdog stands behind the deadline; None when none does."""
    if request.get("watchdog") is None:
        return None
    asked = member(request, "watchdog", dict)
    timeout_s, required = member(asked, "timeout_s", int), asked.get("required") is True
    if not 0 < timeout_s <= TIMEOUT_LIMIT_S:
        raise Refused("bad_request", f"watchdog timeout of {timeout_s} s")
    return Device(path(asked, "device"), timeout_s, required)


def member(request: Fields, name: str, kind: type[Value]) -> Value:
    value = request.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Refused("bad_request", f"{name} must be a {kind.__name__}")
    return value


def number(request: Fields, name: str) -> float:
    value = request.get(name)
    # Beyond 10^9 s of uptime the number is no moment but a mistake, and infinity means for ever.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise Refused("bad_request", f"{name} must be a number of seconds")
    return float(value)


def path(request: Fields, name: str) -> str:
    value = member(request, name, str)
    if not value.startswith("/") or not is_argument(value):
        raise Refused("bad_request", f"{name} must be an absolute path")
    return value


def is_argument(word: object) -> bool:
    if not isinstance(word, str) or "\0" in word:
        return False
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return True
