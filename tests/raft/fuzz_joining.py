"""Feeds the readers of join questions, certificate requests and pasted tokens what they have not seen.

    python -m tests.raft.fuzz_joining --inputs 1000000 --seed 1

Ends with one line of verdict; the first input that raises anything but the reader's own error is printed.
"""

import base64
import json
import random
import time

from cryptography.hazmat.primitives.serialization import Encoding

from appliance.api.published import OperatorAnswer, OperatorRequest
from appliance.cluster.state import NodeRole
from appliance.node import invitation, messages
from appliance.node.invitation import Invitation, InvitationError
from appliance.node.messages import (
    Admit,
    Admitted,
    AskCredentials,
    Certified,
    Certify,
    CredentialsAnswer,
    Join,
    Joined,
    MessageError,
    Operate,
    ReportAnswer,
    encode,
)
from raft import certificates
from raft.certificates import CertificateError, Subject
from tests.raft.fuzz import FindingError, main, resident_bytes

WHO = Subject("c", "n4")
REQUEST = certificates.request(WHO, certificates.new_key())
DER = REQUEST.public_bytes(Encoding.DER)
PEM = certificates.request_to_pem(REQUEST)
MESSAGES = [
    encode(message)
    for message in (
        Join("t", "s", "n4", "10.0.0.4:7400", "k", PEM.decode(), ("pg4.example",)),
        Joined("c", {"n1": "10.0.0.1:7400"}, NodeRole.DATA, "x", "y"),
        Admit("t", "n4", "10.0.0.4:7400", "k"),
        Admitted({"n1": "10.0.0.1:7400"}),
        Certify("t", "n4", "10.0.0.4:7400", "k", PEM.decode(), ("pg4.example",)),
        Certified("x"),
        ReportAnswer(True, 3, 4, {}),
        AskCredentials("n4"),
        CredentialsAnswer({"a": 1}),
        OperatorAnswer("accepted", "1"),
        Operate(OperatorRequest(kind="switchover", id="1", requester="anna"), {"a": 1}, "c", ""),
    )
]
TOKEN = Invitation("c", {"n1": "10.0.0.1:7400"}, b"authorities", "t", "s", "n4").encode()
TELLING = [
    b"[",
    b"{",
    b'"',
    b"null",
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"[" * 1500,
    b'{"a":' * 1500,
    b"\0",
    b"9" * 5000,
    b"\xff",
]
VALUES = [
    None,
    -1,
    0,
    2**70,
    1e309,
    float("nan"),
    True,
    "",
    "\ud800",
    "x" * 3000,
    [],
    [[]],
    {},
    {"a": {}},
    ["a"],
    "data",
]
GROWTH_LIMIT_BYTES = 8 * 1024 * 1024


def mutate(data, chance):
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(data))
        match chance.randrange(4):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.choice(TELLING)
            case 2:
                del data[at : at + chance.randint(1, 9)]
            case _:
                data[at:at] = data[at : at + chance.randint(1, 30)]
    return bytes(data)


def replaced(value, chance):
    """One value somewhere within by another one: deeper into the checks than bytes get by chance."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        return {**value, name: replaced(value[name], chance)}
    return chance.choice(VALUES)


def message(chance):
    seed = chance.choice(MESSAGES)
    if chance.random() < 0.5:
        return mutate(seed, chance)
    return json.dumps(replaced(json.loads(seed), chance)).encode()


def token(chance):
    if chance.random() < 0.3:
        return mutate(TOKEN.encode(), chance).decode("latin-1")
    packed = base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4))
    return base64.urlsafe_b64encode(mutate(packed, chance)).decode().rstrip("=")


def request(chance):
    if chance.random() < 0.2:
        return mutate(PEM, chance)
    body = base64.encodebytes(mutate(DER, chance))
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def requested_key(data):
    return certificates.requested_key(certificates.request_from_pem(data), WHO)


READERS = {
    "questions": (message, messages.decode, MessageError),
    "tokens": (token, invitation.decode, InvitationError),
    "requests": (request, requested_key, CertificateError),
}


def run(inputs, seed, report=lambda line: None):
    """Raises FindingError, or answers the figures."""
    chance = random.Random(seed)
    accepted = dict.fromkeys(READERS, 0)
    base_bytes = 0
    began_s = time.monotonic()
    for number in range(inputs):
        name = chance.choice(list(READERS))
        make, read, refusal = READERS[name]
        data = make(chance)
        try:
            read(data)
            accepted[name] += 1
        except refusal:
            pass
        except BaseException as error:
            raise FindingError(data if isinstance(data, bytes) else data.encode(), error) from error
        if number == inputs // 10:
            base_bytes = resident_bytes()
        if number % 100_000 == 99_999:
            report(f"{number + 1} inputs, {resident_bytes() >> 20} MiB")
    growth_bytes = resident_bytes() - base_bytes
    if growth_bytes > GROWTH_LIMIT_BYTES:
        raise FindingError(b"", MemoryError(f"{growth_bytes} bytes more after {inputs} inputs"))
    figures = {f"{name} accepted": count for name, count in accepted.items()}
    seconds = round(time.monotonic() - began_s, 1)
    return {"inputs": inputs, "seed": seed, **figures, "growth_kib": growth_bytes >> 10, "seconds": seconds}


if __name__ == "__main__":
    main(run, __doc__)
