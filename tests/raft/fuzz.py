"""Feeds the decoder what it has not seen: mutations of messages, kept when they reach new lines. Memory is measured.

    python -m tests.raft.fuzz --inputs 1000000 --seed 1

Ends with one line of verdict; the first input that raises anything but CodecError is printed in hexadecimal.
"""

import argparse
import contextlib
import random
import resource
import sys
import time
import tracemalloc

import msgpack

from raft import codec
from raft.codec import HELLO_LIMIT_BYTES, CodecError, FrameReader, decode, decode_log, encode, encode_log
from raft.messages import to_wire
from tests.harness.raft_messages import every_message

INTRODUCTION = {
    "proto": codec.PROTOCOL,
    "cluster": "c",
    "cluster_id": "ab" * 8,
    "incarnation": 1,
    "from": "n1",
    "replica_id": "id",
    "address": "10.0.0.1:7400",
}
PLAIN = [
    {"type": "hello", **INTRODUCTION, "kind": "raft", "to": "n2", "session": "s"},
    {"type": "welcome", **INTRODUCTION},
    {"type": "refuse", "cluster": "c", "reason": "no"},
    {"type": "ping"},
    {"type": "request", "id": 1, "payload": b"x" * 40},
    {"type": "answer", "id": 1, "ok": True, "payload": b""},
]
PLAIN_TYPES = frozenset(message["type"] for message in PLAIN)
LOG = [to_wire(message) for message in every_message()]
TELLING = [bytes([byte]) for byte in (0, 1, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, *range(0xBF, 0xE0), 0xFF)]
TELLING += [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8,
    b"\x91" * 64,
]
GROWTH_LIMIT_BYTES = 8 * 1024 * 1024
PEAK_PER_BYTE = 40
PEAK_FLOOR_BYTES = 64 * 1024


class FindingError(Exception):
    def __init__(self, data, error):
        super().__init__(f"{type(error).__name__}: {error}\ninput: {data.hex()}")


class Lines:
    """Which lines of the codec follow each other while it runs."""

    def __init__(self):
        self.seen = set()
        self.new = False
        self.at = 0

    def __enter__(self):
        self.new = False
        sys.settrace(self.enter)

    def __exit__(self, *_):
        sys.settrace(None)

    def enter(self, frame, *_):
        return self.step if frame.f_code.co_filename == codec.__file__ else None

    def step(self, frame, *_):
        arc = (self.at, frame.f_lineno)
        self.at = frame.f_lineno
        if arc not in self.seen:
            self.seen.add(arc)
            self.new = True
        return self.step


def mutate(data, corpus, chance):
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(data))
        match chance.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.choice(TELLING)
            case 2 if data:
                token = chance.choice(TELLING)
                data[at : at + len(token)] = token
            case 3:
                del data[at : at + chance.randint(1, 8)]
            case 4:
                other = chance.choice(corpus)
                begin = chance.randint(0, len(other))
                data[at:] = other[begin:]
            case 5:
                data[at:at] = data[at : at + chance.randint(1, 30)]
    return bytes(data[:4096])


def structured(chance):
    """A message with one field replaced: deeper into the checks than bytes get by chance."""
    message = dict(chance.choice([*PLAIN, *LOG]))
    if message["type"] == "append":
        message["entries"] = b"".join(chance.randbytes(chance.randint(0, 15)) for _ in range(3))
    name = chance.choice([*message, "more"])
    message[name] = chance.choice(
        [
            None,
            -1,
            0,
            1,
            2**63,
            2**64 - 1,
            True,
            False,
            1.5,
            "",
            "x" * 1025,
            b"",
            chance.randbytes(9),
            [],
            [1],
            {},
            {"a": 1},
        ]
    )
    return msgpack.packb(message)


def try_body(body):
    """Either a message that means the same when it is sent on, or a CodecError."""
    accepted = False
    for read, write in ((lambda data: decode(data, PLAIN_TYPES), encode), (decode_log, encode_log)):
        try:
            message = read(body)
        except CodecError:
            continue
        except BaseException as error:
            raise FindingError(body, error) from error
        accepted = True
        if message is None:
            continue
        (again,) = FrameReader().feed(write(message))
        if read(again) != message:
            raise FindingError(body, ValueError("it means something else when it is sent on"))
    return accepted


def try_stream(bodies, chance):
    """Frames, cut anywhere, with a wrong length now and then."""
    stream = b"".join((len(body) + (chance.random() < 0.05)).to_bytes(4, "big") + body for body in bodies)
    reader = FrameReader(HELLO_LIMIT_BYTES)
    at = 0
    try:
        while at < len(stream):
            size = chance.choice((1, 3, 4, 5, 100, 65536))
            for body in reader.feed(stream[at : at + size]):
                try_body(body)
            at += size
    except CodecError:
        return
    except FindingError:
        raise
    except BaseException as error:
        raise FindingError(stream, error) from error


def peak_bytes(body):
    tracemalloc.start()
    try:
        for read in (lambda data: decode(data, PLAIN_TYPES), decode_log):
            with contextlib.suppress(CodecError):
                read(body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def run(inputs, seed, report=lambda line: None):
    """Raises FindingError, or answers the figures."""
    chance = random.Random(seed)
    lines = Lines()
    corpus = [encode(message)[4:] for message in PLAIN] + [encode_log(message)[4:] for message in every_message()]
    accepted = kept = worst_bytes = 0
    base_bytes = None
    began_s = time.monotonic()
    for number in range(inputs):
        body = structured(chance) if number % 4 == 3 else mutate(chance.choice(corpus), corpus, chance)
        with lines:
            accepted += try_body(body)
        if lines.new and len(corpus) < 5000:
            corpus.append(body)
            kept += 1
        if number % 16 == 0:
            try_stream([chance.choice(corpus), body], chance)
        if number % 500 == 0:
            peak = peak_bytes(body)
            worst_bytes = max(worst_bytes, peak)
            if peak > PEAK_FLOOR_BYTES + PEAK_PER_BYTE * len(body):
                raise FindingError(body, MemoryError(f"{peak} bytes for an input of {len(body)}"))
        if number == inputs // 10:
            base_bytes = resident_bytes()
        if number % 100_000 == 99_999:
            report(f"{number + 1} inputs, {len(lines.seen)} arcs, {kept} kept, {resident_bytes() >> 20} MiB")
    growth_bytes = resident_bytes() - (base_bytes or 0)
    if growth_bytes > GROWTH_LIMIT_BYTES:
        raise FindingError(b"", MemoryError(f"{growth_bytes} bytes more after {inputs} inputs"))
    return {
        "inputs": inputs,
        "seed": seed,
        "accepted": accepted,
        "arcs": len(lines.seen),
        "growth_kib": growth_bytes >> 10,
        "worst_peak_kib": worst_bytes >> 10,
        "seconds": round(time.monotonic() - began_s, 1),
    }


def main(run, description):
    options = argparse.ArgumentParser(description=description.partition("\n")[0])
    options.add_argument("--inputs", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    try:
        figures = run(chosen.inputs, chosen.seed, report=lambda line: print(line, flush=True))
    except FindingError as finding:
        sys.exit(f"FOUND: {finding}")
    print("nothing found:", ", ".join(f"{value} {name}" for name, value in figures.items()))


if __name__ == "__main__":
    main(run, __doc__)
