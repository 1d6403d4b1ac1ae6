"""The guard's memory on disk: a bounded log and the last fence.

A thread of its own writes, so that a stalled disk delays no signal.
"""

import json
import os
import queue
import threading
import time
from collections.abc import Mapping

LOG_LIMIT_BYTES = 256 * 1024
WAITING_LIMIT = 1000
FENCE_NAME = "fenced.json"
STACK_BYTES = 256 * 1024

Fields = Mapping[str, object]


def wall_time() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Recorder:
    """Takes lines and fences at once and writes them soon; what a full disk or a long stall refuses is lost."""

    def __init__(self, run_dir: str) -> None:
        self._log_path = os.path.join(run_dir, "guard.log")
        self._fence_path = os.path.join(run_dir, FENCE_NAME)
        self._run_dir = run_dir
        self._waiting: queue.SimpleQueue[tuple[str, Fields] | None] = queue.SimpleQueue()
        threading.stack_size(STACK_BYTES)
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def log(self, event: str, **fields: object) -> None:
        """Append a line to the log."""
        if self._waiting.qsize() < WAITING_LIMIT:
            line = {"time": wall_time(), "event": event, **fields}
            self._waiting.put((self._log_path, line))

    def fence(self, record: Fields) -> None:
        """Replace the record of the last fence, durably."""
        self._waiting.put((self._fence_path, record))

    def last_fence(self) -> Fields | None:
        """Read the fence that an earlier guard recorded; None when there is none that can be read."""
        try:
            with open(self._fence_path, "rb") as file:
                record = json.load(file)
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and isinstance(record.get("epoch"), int) else None

    def close(self, limit_s: float = 1.0) -> None:
        """Write what waits, but no longer than `limit_s`."""
        self._waiting.put(None)
        self._thread.join(limit_s)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            path, fields = job
            try:
                if path == self._log_path:
                    self._append(fields)
                else:
                    self._replace(fields)
            except Exception:  # noqa: BLE001, S110  a full disk, say: PostgreSQL runs on, and nowhere is left to say it
                pass

    def _append(self, line: Fields) -> None:
        file = os.open(self._log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
            size_bytes = os.fstat(file).st_size
        finally:
            os.close(file)
        if size_bytes > LOG_LIMIT_BYTES:
            os.replace(self._log_path, self._log_path + ".1")

    def _replace(self, record: Fields) -> None:
        fresh = self._fence_path + ".new"
        file = os.open(fresh, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(record).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(fresh, self._fence_path)
        directory = os.open(self._run_dir, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
