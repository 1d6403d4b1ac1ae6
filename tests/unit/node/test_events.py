"""What is logged is written in order by a thread of its own, whoever reads it or does not: real pipes."""

import fcntl
import json
import os
import sys
import threading
import time

import pytest

from appliance.node.events import Events
from appliance.node.line_writer import QUEUE_LIMIT_LINES, LineWriter

AT_ONCE_S = 1.0
"""A thousand lines take some milliseconds; a pipe that nobody reads would take for ever."""


class Pipe:
    """The smallest one there is."""

    def __init__(self):
        self.out, self.into = os.pipe()
        self.size = fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, 4096)

    def fill(self):
        os.write(self.into, b"x" * (self.size - 1) + b"\n")

    def read(self):
        """Lines until the other end is closed."""
        with os.fdopen(self.out, "rb") as file:
            return file.read().decode().splitlines()

    def reader(self):
        """Reads from now on, in a thread; call it for the lines."""
        lines = []
        thread = threading.Thread(target=lambda: lines.extend(self.read()))
        thread.start()

        def result():
            os.close(self.into)
            thread.join(10)
            assert not thread.is_alive()
            return lines

        return result


@pytest.fixture
def pipe():
    return Pipe()


def wait_until(predicate):
    until_s = time.monotonic() + 10
    while not predicate():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def events_into(pipe, monkeypatch, level="info"):
    monkeypatch.setattr(sys, "stdout", os.fdopen(os.dup(pipe.into), "w"))
    return Events("pg1", level, "json")


def test_all_lines_come_in_order(pipe, monkeypatch):
    read = pipe.reader()
    events = events_into(pipe, monkeypatch)
    for number in range(QUEUE_LIMIT_LINES):
        events.emit("node.began", version=number)
    events.close(10)
    sys.stdout.close()
    lines = [json.loads(line) for line in read()]
    assert [line["version"] for line in lines] == list(range(QUEUE_LIMIT_LINES))
    assert {(line["node"], line["event"], line["level"]) for line in lines} == {("pg1", "node.began", "info")}
    assert lines[0]["timestamp"].endswith("Z")


def test_who_logs_does_not_wait_for_who_reads_and_the_gap_is_told_where_it_is(pipe, monkeypatch):
    events = events_into(pipe, monkeypatch, level="error")
    emitted = 3 * QUEUE_LIMIT_LINES
    began_s = time.monotonic()
    for number in range(emitted):
        events.emit("loop.failed", "error", error=number)
    assert time.monotonic() - began_s < AT_ONCE_S
    read = pipe.reader()
    wait_until(lambda: not events._writer._lines)
    events.emit("loop.failed", "error", error="after")
    events.close(10)
    sys.stdout.close()
    *lines, after = [json.loads(line) for line in read()]
    assert after["error"] == "after"
    number = written = 0
    for line in lines:  # one gap, or two when this process had no CPU for a while
        if line["event"] == "log.lost":
            assert line["node"] == "pg1"
            number += line["lines"]
        else:
            assert line["error"] == number
            number, written = number + 1, written + 1
    assert number == emitted
    assert QUEUE_LIMIT_LINES <= written < emitted


def test_the_end_does_not_wait_for_who_reads_either(pipe):
    pipe.fill()
    writer = LineWriter(pipe.into)
    writer.put("last words")
    began_s = time.monotonic()
    writer.close(0.2)
    assert 0.2 <= time.monotonic() - began_s < AT_ONCE_S
    read = pipe.reader()
    writer.close(10)
    assert read()[1:] == ["last words"]


def test_what_cannot_be_written_is_counted_and_told_later(pipe):
    os.close(pipe.out)
    writer = LineWriter(pipe.into)
    writer.put("one")
    wait_until(lambda: writer._lost == 1)
    writer.put("two")
    wait_until(lambda: writer._lost == 2)
    read = (other := Pipe()).reader()
    os.dup2(other.into, pipe.into)
    writer.put("three")
    writer.close(10)
    os.close(pipe.into)
    assert read() == ["three", "2 lines were lost"]


def test_a_descriptor_that_does_not_wait_by_itself_is_waited_for(pipe):
    os.set_blocking(pipe.into, False)
    pipe.fill()
    writer = LineWriter(pipe.into)
    writer.put("\udcff" + "x" * 10_000)
    time.sleep(0.05)
    read = pipe.reader()
    writer.close(10)
    assert read()[1:] == ["\\udcff" + "x" * 10_000]
