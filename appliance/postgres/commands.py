"""PostgreSQL's own tools as child processes: in the C locale, without a terminal, never without a limit."""

import os
import re
import selectors
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from appliance.postgres.errors import LAST_LINES, PostgresError

_LINE_END = re.compile(rb"[\r\n]")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tools' environment: messages that can be read by a program, and no PG* variable that changes what they do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", **(extra or {})}


def run(argv: Sequence[str], *, limit_s: float, text: str | None = None) -> str:
    """The tool's standard output. Raises PostgresError when it fails or takes longer than `limit_s`."""
    name = os.path.basename(argv[0])
    try:
        done = subprocess.run(
            argv, input=text or "", capture_output=True, text=True, errors="replace",
            env=environment(), timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise PostgresError(name, None, [f"no end after {limit_s:g} s"]) from error
    except OSError as error:
        raise PostgresError(name, None, [f"cannot be started: {error.strerror} ({argv[0]})"]) from error
    if done.returncode != 0:
        raise PostgresError(name, done.returncode, (done.stdout + done.stderr).splitlines())
    return done.stdout


def stream(argv: Sequence[str], on_line: Callable[[str], None], *, silence_limit_s: float) -> None:
    """Run a long tool and hand on each line that it says, carriage returns included.

    It may take any time but must not be silent for longer than `silence_limit_s`. What `on_line` raises ends it.
    """
    name = os.path.basename(argv[0])
    last = deque[str](maxlen=LAST_LINES)

    def said(line: str) -> None:
        last.append(line)
        on_line(line)

    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            if not _hand_on(process.stdout, said, silence_limit_s):
                raise PostgresError(name, None, [*last, f"silent for {silence_limit_s:g} s, given up"])
        code = process.wait(silence_limit_s)
    finally:
        process.kill()
        process.wait()
    if code != 0:
        raise PostgresError(name, code, tuple(last))


def _hand_on(output: IO[bytes], said: Callable[[str], None], silence_limit_s: float) -> bool:
    """Until the output ends; False when it was silent for too long."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while selector.select(silence_limit_s):
            read = os.read(output.fileno(), 65536)
            *lines, rest = _LINE_END.split(rest + read)
            for line in lines if read else [*lines, rest]:
                if text := line.decode(errors="replace").strip():
                    said(text)
            if not read:
                return True
    return False
