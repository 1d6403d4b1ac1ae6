"""The one line that brings a new node into the cluster: whom to ask, whom to trust, and a secret that serves once."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgpack
from cryptography.hazmat.primitives import serialization

from raft.certificates import PublicKey
from raft.joining import Door

FORMAT = 1
_LIMIT_CHARACTERS = 64 * 1024
_MEMBERS_LIMIT = 64


class InvitationError(ValueError):
    """What was given is no token of this version; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Invitation:
    cluster: str
    members: Mapping[str, str]
    """Name to raft address of those that can be asked."""
    ca: bytes
    """The authorities' certificates in PEM; empty where the cluster has no TLS."""
    token: str
    """The token's id in the agreed state."""
    secret: str
    member: str
    """The name that the new node must have."""

    @property
    def door(self) -> Door:
        return Door(self.cluster, self.members, self.ca)

    def encode(self) -> str:
        """One line without spaces."""
        fields = [FORMAT, self.cluster, dict(self.members), self.ca, self.token, self.secret, self.member]
        return base64.urlsafe_b64encode(msgpack.packb(fields)).decode().rstrip("=")


def decode(line: str) -> Invitation:
    """Raises InvitationError."""
    text = line.strip()
    if not 0 < len(text) <= _LIMIT_CHARACTERS:
        raise InvitationError(
            f"{len(text)} characters are no token: copy the whole line that `members add` has printed"
        )
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        fields = msgpack.unpackb(packed, max_array_len=16, max_map_len=_MEMBERS_LIMIT, max_ext_len=0)
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise InvitationError("it is damaged or cut off: copy the whole line that `members add` has printed") from error
    match fields:
        case [int(version), str(cluster), dict(members), bytes(ca), str(token), str(secret), str(member)] if (
            version == FORMAT and all(isinstance(text, str) for pair in members.items() for text in pair)
        ):
            return Invitation(cluster, members, ca, token, secret, member)
        case [int(version), *_] if version != FORMAT:
            raise InvitationError(
                f"it has format {version}, this version reads {FORMAT}: use the same version everywhere"
            )
    raise InvitationError("it is no join token: copy the whole line that `members add` has printed")


def digest(secret: str) -> str:
    """What the cluster keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def key_digest(key: PublicKey) -> str:
    """What the cluster keeps of a key: which one a token was used with."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()
