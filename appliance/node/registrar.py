"""Lets nodes join: a token is bound to the key that came with it, its node becomes a member and gets a certificate.

Whoever joins repeats the whole question until an answer has arrived, so each step may be repeated: the token knows its
key, members are known by name, and a certificate may be issued twice.
"""

import re
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from appliance.api.published import InviteRequest, OperatorAnswer
from appliance.cluster import tokens
from appliance.cluster.codec import encode_command
from appliance.cluster.commands import IssueToken, UseToken
from appliance.cluster.state import ClusterState, JoinToken, NodeRole
from appliance.node.certificates import read, read_authority
from appliance.node.clock import wall_s
from appliance.node.config import NodeConfig
from appliance.node.config_values import WILDCARDS
from appliance.node.invitation import Invitation, digest, key_digest
from appliance.node.messages import (
    Admit,
    Admitted,
    Certified,
    Certify,
    Declined,
    Join,
    Joined,
    MessageError,
    decode,
    encode,
)
from raft import Applied, Member, Members, Outcome, Refused, Replica, ReplicaError, certificates
from raft.address import parse
from raft.certificates import CertificateError, PublicKey, Subject
from raft.members import Role

PROPOSE_LIMIT_S = 3.0
CHANGE_LIMIT_S = 4.0
VALID_FOR = timedelta(days=365)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)

T = TypeVar("T")


class JoinError(Exception):
    """Why a node may not join, or not now; for whoever runs `appliance join`."""


class Registrar:
    """Called on the replica's threads, also for strangers; every wait is bounded."""

    def __init__(self, config: NodeConfig, replica: Replica[ClusterState]) -> None:
        self._config = config
        self._replica = replica

    def invite(self, request: InviteRequest, limit_s: float) -> OperatorAnswer:
        """Make a token for one node; the line that carries it is told once, and kept nowhere."""
        secret, identity, now_s = secrets.token_urlsafe(24), secrets.token_hex(4), wall_s()
        expires_s = now_s + request.valid_for_s
        command = IssueToken(JoinToken(identity, digest(secret), request.member, request.role, expires_s), now_s)
        members = {member.name: member.address for member in self._replica.status().members.all}
        try:
            ca = self._trusted()
        except CertificateError as error:
            return OperatorAnswer("refused", request.id, "tls.unreadable", str(error))
        except OSError as error:
            return OperatorAnswer("refused", request.id, "tls.unreadable", f"{error.filename}: {error.strerror}")
        outcome = self._replica.propose(encode_command(command), f"invite-{request.id}", limit_s).result()
        match outcome:
            case Applied() if all(token.id != identity for token in self._replica.view().state.tokens):
                # what was applied is an earlier request with this id, whose secret nobody has any more
                told = "this request has made a token before, which is told once; ask again with another key"
                return OperatorAnswer("refused", request.id, "token.told", told)
            case Applied():
                line = Invitation(self._config.cluster, members, ca, identity, secret, request.member).encode()
                return OperatorAnswer("accepted", request.id, message=line)
            case Refused(reason=reason, index=None):
                return OperatorAnswer("no_quorum", request.id, "quorum.none", reason)
            case Refused(reason=reason):
                code, _, text = reason.partition(": ")
                return OperatorAnswer("refused", request.id, code, text)
            case _:
                return OperatorAnswer("unknown", request.id, "outcome.unknown", outcome.reason)

    def join(self, name: str, question: bytes) -> bytes:
        """Answer a stranger who calls itself so. Raises JoinError and MessageError, whose words it is told."""
        match decode(question):
            case Join() as asked if asked.member == name:
                check_address(asked.address)
                self._check_format(asked)
                token = self._use_token(asked)
                admitted = self._admit(Admit(token.id, asked.member, asked.address, asked.key))
                certificate = ""
                if self._config.tls is not None:
                    certify = Certify(token.id, asked.member, asked.address, asked.key, asked.request, asked.hosts)
                    certificate = self._certificate(certify)
                ca = self._trusted().decode()
                return encode(Joined(self._config.cluster, admitted.members, token.role, certificate, ca))
            case other:
                raise MessageError(f"{type(other).__name__} is no question that a stranger may ask")

    def answer(self, asked: Admit | Certify) -> Admitted | Certified | Declined:
        """For the member that a stranger has asked."""
        try:
            return self.admit(asked) if isinstance(asked, Admit) else self.certify(asked)
        except JoinError as error:
            return Declined(str(error))

    def admit(self, asked: Admit) -> Admitted:
        """On the raft leader: make the node of a used token a member. Raises JoinError."""
        check_address(asked.address)
        token = self._used_token(asked.token, asked.key)
        if token.member != asked.member:
            raise JoinError(f"the token is for {token.member}, not for {asked.member}")
        role: Role = "learner" if token.role is NodeRole.LEARNER else "joining"

        def admitted(members: Members) -> Members:
            known = members.get(asked.member) or Member(asked.member, "", asked.address, role)
            return members.with_member(replace(known, address=asked.address))

        members = self._replica.status().members
        self._check_address(asked)
        if admitted(members) != members:
            # by the members in force then: one who was removed just now must not come back with this
            _applied(self._replica.revise_members(admitted, CHANGE_LIMIT_S).result(), "the members were not changed")
        return Admitted({member.name: member.address for member in admitted(members).all})

    def _check_address(self, asked: Admit) -> None:
        """Two members behind one address, or one that runs left without connections, would be nobody's intention."""
        status = self._replica.status()
        holder = next((member for member in status.members.all if member.address == asked.address), None)
        if holder is not None and holder.name != asked.member:
            raise JoinError(
                f"{asked.address} is the address of {holder.name}; say --address with that of {asked.member}"
            )
        known = status.members.get(asked.member)
        up = {status.name, *(peer.name for peer in status.peers if peer.connected)}
        if known is not None and known.address != asked.address and asked.member in up:
            raise JoinError(
                f"{asked.member} is a member at {known.address}, and connected: end its node if {asked.address}"
                " is to take its place, or add the new node under another name"
            )

    def certify(self, asked: Certify) -> Certified:
        """Where the authority's key lies: a certificate for the key of a used token. Raises JoinError."""
        tls = self._config.tls
        if tls is None or not tls.issuing_key.exists():
            raise JoinError(f"{self._config.name} has no key of the cluster's authority (tls.ca_key)")
        if self._used_token(asked.token, asked.key).member != asked.member:
            raise JoinError(f"the token is not for {asked.member}")
        key = self._own_key(asked)
        try:
            issued = certificates.issue(
                read_authority(tls.ca, tls.issuing_key),
                asked.member,
                key,
                hosts=_hosts(asked),
                serial=certificates.new_serial(),
                now=datetime.now(UTC),
                valid_for=VALID_FOR,
            )
        except (CertificateError, OSError) as error:
            raise JoinError(str(error)) from error
        return Certified(certificates.certificates_to_pem([issued]).decode())

    def _trusted(self) -> bytes:
        """The authorities' certificates, and nothing else that may lie in that file: it goes out. Empty without TLS."""
        tls = self._config.tls
        return b"" if tls is None else certificates.certificates_to_pem(read(tls.ca))

    def _check_format(self, asked: Join) -> None:
        """Before its token is used: it could not read the log that it would get."""
        agreed = self._replica.view().state.format
        if asked.format < agreed:
            raise JoinError(
                f"the cluster uses format {agreed}, the version on {asked.member} knows up to {asked.format}:"
                " install the version there that the members run"
            )

    def _use_token(self, asked: Join) -> JoinToken:
        """All that can be wrong with the question is said before: a token serves once."""
        command = UseToken(asked.token, digest(asked.secret), asked.member, asked.key, wall_s())
        state = self._replica.view().state
        # by what is known here first: strangers must not be able to fill the log, nor who repeats a question
        if isinstance(used := tokens.use(state, command), str):
            raise JoinError(f"the token was not used: {used}")
        self._check_key(asked)
        if used != state:
            proposed = self._replica.propose(encode_command(command), f"join-{secrets.token_hex(8)}", PROPOSE_LIMIT_S)
            _applied(proposed.result(), "the token was not used")
        return self._used_token(asked.token, asked.key)

    def _check_key(self, asked: Join) -> None:
        """Whose digest is told is no secret, so its owner has to show that it is.

        Otherwise, with a token that somebody else has used, its member could be moved to another address.
        """
        if not _DIGEST.fullmatch(asked.key):
            raise JoinError("the key's digest is none: run the same version everywhere")
        if self._config.tls is not None:
            self._own_key(asked)
            try:
                certificates.check_hosts(_hosts(asked))
            except CertificateError as error:
                raise JoinError(str(error)) from error

    def _own_key(self, asked: Join | Certify) -> PublicKey:
        """The key of the certificate request, which is signed with it; it must be the token's."""
        try:
            requested = certificates.request_from_pem(asked.request.encode(errors="replace"))
            key = certificates.requested_key(requested, Subject(self._config.cluster, asked.member))
        except CertificateError as error:
            raise JoinError(str(error)) from error
        if key_digest(key) != asked.key:
            raise JoinError("the certificate request is for another key than the token")
        return key

    def _used_token(self, identity: str, key: str) -> JoinToken:
        """As the agreed state has it now: R2, since what it says is acted upon."""
        _applied(self._replica.barrier(PROPOSE_LIMIT_S).result(), "the token was not looked up")
        known = self._replica.view().state.tokens
        found = next((token for token in known if (token.id, token.used_by) == (identity, key)), None)
        if found is None:
            raise JoinError(f"no token {identity} is in use with this key")
        return found

    def _admit(self, asked: Admit) -> Admitted:
        leader = self._replica.view().leader
        if leader is None:
            raise JoinError("there is no raft leader: try again")
        return self._ask(leader, asked, Admitted)

    def _certificate(self, asked: Certify) -> str:
        """From here, or from whoever can."""
        names = sorted(self._replica.status().members.names, key=lambda name: name != self._config.name)
        problems = []
        for name in names:
            try:
                return self._ask(name, asked, Certified).certificate
            except JoinError as error:
                problems.append(str(error))
        raise JoinError(f"nobody can issue a certificate: {'; '.join(problems)}")

    def _ask(self, name: str, question: Admit | Certify, kind: type[T]) -> T:
        try:
            answer = decode(self._replica.request(name, encode(question), CHANGE_LIMIT_S + 1.0).result())
        except (ReplicaError, MessageError) as error:
            raise JoinError(f"{name}: {error}") from error
        if isinstance(answer, Declined):
            raise JoinError(answer.reason)
        if not isinstance(answer, kind):
            raise JoinError(f"{name} answered with a {type(answer).__name__}")
        return answer


def check_address(address: str) -> None:
    """It goes into the log, to every member, and into the certificate. Raises JoinError."""
    try:
        host, _ = parse(address)
    except ReplicaError as error:
        raise JoinError(str(error)) from None
    if not host or host in WILDCARDS:
        raise JoinError(f"{address!r} is no address that others can reach; write for example 10.0.0.11:7400")


def _hosts(asked: Join | Certify) -> list[str]:
    """That the certificate shall name: the replica's own, and those of PostgreSQL."""
    return list(dict.fromkeys((parse(asked.address)[0], *asked.hosts)))


def _applied(outcome: Outcome, what: str) -> None:
    match outcome:
        case Applied():
            return
        case Refused(reason=reason):
            raise JoinError(f"{what}: {reason}")
        case _:
            raise JoinError(f"{what}, or it was: {outcome.reason}; try again")
