"""The joining node's side: a key, a question to any member, and the files that the answer is kept in."""

import os
from hashlib import sha256
from pathlib import Path

from appliance.cluster.state import FORMAT
from appliance.node import certificates as files
from appliance.node.config import TlsSection
from appliance.node.invitation import Invitation, key_digest
from appliance.node.messages import Join, Joined, MessageError, decode, encode
from appliance.node.privileges import run_user
from raft import ReplicaError, certificates
from raft.address import parse
from raft.certificates import CertificateError, Subject
from raft.joining import JoinError, ask


class JoinProblem(Exception):  # noqa: N818  as ConfigProblem
    """Why the node is no member, or not yet known to be; the same question may be asked again."""

    def __init__(self, message: str, *, answered: bool = True) -> None:
        super().__init__(message)
        self.answered = answered
        """False: no member could be reached"""


def check_address(address: str) -> None:
    """Raises JoinProblem when it is not host:port."""
    try:
        parse(address)
    except ReplicaError as error:
        raise JoinProblem(str(error)) from None


def join(
    invitation: Invitation, address: str, tls: TlsSection | None, hosts: tuple[str, ...], timeout_s: float
) -> Joined:
    """Become a member: afterwards the files of `tls` hold what the node needs. Raises JoinProblem."""
    question = _question(invitation, address, tls, hosts)
    try:
        answer = decode(ask(invitation.door, invitation.member, encode(question), timeout_s))
    except JoinError as error:
        what = f"no member let {invitation.member} in" if error.answered else "no member can be reached"
        raise JoinProblem(f"{what}: {error}", answered=error.answered) from None
    except MessageError as error:
        raise JoinProblem(f"no member let {invitation.member} in: {error}") from None
    if not isinstance(answer, Joined):
        raise JoinProblem(f"the answer is a {type(answer).__name__}: run the same version everywhere")
    if tls is not None:
        files.write_readable(tls.ca, answer.ca)
        files.write_readable(tls.cert, answer.certificate)
    return answer


def _question(invitation: Invitation, address: str, tls: TlsSection | None, hosts: tuple[str, ...]) -> Join:
    who = invitation.member
    if tls is None:
        drawn = sha256(f"{who} {address}".encode()).hexdigest()
        return Join(invitation.token, invitation.secret, who, address, drawn, format=FORMAT)
    try:
        for place in (tls.ca, tls.cert, tls.key):
            _make_directory(place.parent)
        if not tls.key.exists():
            files.write_key(tls.key, certificates.new_key())
        key = certificates.key_from_pem(tls.key.read_bytes())
        request = certificates.request(Subject(invitation.cluster, who), key)
    except CertificateError as error:
        raise JoinProblem(f"{tls.key}: {error}; move it away, a new one is made") from None
    pem = certificates.request_to_pem(request).decode()
    digest = key_digest(key.public_key())
    return Join(invitation.token, invitation.secret, who, address, digest, pem, hosts, FORMAT)


def _make_directory(path: Path) -> None:
    """The run user's, also when root does it: files take their owner from it."""
    user = run_user()
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700)
        os.chown(
            parent, user.pw_uid, user.pw_gid, follow_symlinks=False
        )  # what lies there now may not be what was made
