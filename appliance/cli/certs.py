"""`appliance certs`: the cluster's authority and its members' certificates, as files on this host."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appliance.cli import rotation
from appliance.cli.exits import Code, CommandError
from appliance.cli.node_file import load
from appliance.cli.output import Format, Table, emit, say
from appliance.cli.target import find_target
from appliance.node import certificates
from appliance.node.certificates import CA, CA_KEY, CertificateProblem, Described, RefusedError
from appliance.node.config import TlsSection
from appliance.node.config_values import node_name

_SHOWN = 16
"""characters of what is only there to be compared"""
_LIFE = re.compile(r"([1-9]\d{0,5})(min|h|d|y)")
_LONGEST = timedelta(days=100 * 365)
_UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "y": timedelta(days=365)}


def init(cluster: str, directory: str, valid_for: str) -> int:
    name, place = _name("--cluster", cluster), Path(directory)
    with _explained():
        made = certificates.make_authority(place, name, _life(valid_for))
    say(sys.stdout, f"made the authority of cluster {name}: {place / CA}, valid until {_until(made)}")
    say(
        sys.stderr,
        f"{place / CA_KEY} lets its reader issue certificates of this cluster: keep it as you keep passwords",
    )
    return Code.DONE


def issue(member: str, hosts: Sequence[str], directory: str, valid_for: str, out: str, *, replace: bool) -> int:
    name, place = _name("MEMBER", member), Path(out or directory)
    with _explained():
        made = certificates.issue(Path(directory), name, hosts or [name], _life(valid_for), place, replace=replace)
    shown = ", ".join(made.hosts)
    say(sys.stdout, f"issued {place / name}.crt and .key for {name} ({shown}), valid until {_until(made)}")
    if not hosts:
        say(sys.stderr, f"no --host: standbys and clients that verify PostgreSQL's host must reach it as {name}")
    return Code.DONE


def show(files: Sequence[str], output: Format) -> int:
    """The named files, else what the node of this host uses."""
    paths = [Path(file) for file in files] or [path for tls in _nodes() for path in (tls.cert, tls.ca)]
    with _explained():
        found = [each for path in dict.fromkeys(paths) for each in certificates.describe(path)]
    rows = [_row(each) for each in found]
    header = ["NAME", "CLUSTER", "SIGNED BY", "FROM", "UNTIL", "RENEW AT", "STATE", "SHA-256", "FILE"]
    emit([asdict(each) for each in found], Table(header, rows), output)
    return Code.DONE


def _row(found: Described) -> list[str]:
    return [
        _short(found.member),
        found.cluster,
        _short(found.issuer),
        *(_day(moment) for moment in (found.valid_from, found.expires_at, found.renew_at)),
        found.state,
        found.fingerprint[:_SHOWN],
        found.file,
    ]


def _short(name: str) -> str:
    """An authority's name ends with forty digits."""
    return name[:_SHOWN] if name.startswith("ca-") else name


def renew() -> int:
    """Of every node that --config names."""
    for tls in _nodes():
        with _explained():
            made = certificates.renew(tls)
        say(sys.stdout, f"renewed {tls.cert} for {made.member}, valid until {_until(made)}")
    say(sys.stderr, "a running node uses it from its next connection on, without a restart")
    return Code.DONE


def begin_rotation(directory: str, valid_for: str) -> int:
    place = Path(directory)
    with _explained():
        made = certificates.begin_rotation(place, _life(valid_for))
    say(
        sys.stdout,
        f"{made.member} issues from now on, valid until {_until(made)}; {place / CA} trusts it and the one before",
    )
    say(
        sys.stderr,
        f"next: copy {place / CA} to every node, then issue or renew every node's certificate,",
        f"then `appliance certs rotate-ca finish --dir {place}`, and copy {place / CA} to every node again",
    )
    return Code.DONE


def finish_rotation(directory: str, left_out: Sequence[str], *, unasked: bool) -> int:
    place = Path(directory)
    with _explained():
        authority = certificates.next_authority(place, left_out)
        if not unasked:
            rotation.check(authority.cluster, authority.member, left_out)
        made = certificates.finish_rotation(place)
    say(sys.stdout, f"{place / CA} trusts {made.member} alone, until {_until(made)}: copy it to every node")
    return Code.DONE


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        raise CommandError(Code.REFUSED, str(error)) from None
    except CertificateProblem as error:
        raise CommandError(Code.FAILED, str(error)) from None


def _nodes() -> list[TlsSection]:
    """Of the nodes on this host that --config, or its default, names."""
    configs = find_target().configs
    if not configs:
        raise CommandError(Code.USAGE, "certificates are files on this host: name a node's file with --config")
    return [_tls(config) for config in configs]


def _tls(path: Path) -> TlsSection:
    tls = load(path).tls
    if tls is None:
        raise CommandError(Code.FAILED, f"{path}: no tls in it, so this node has no certificate; see `appliance certs`")
    return tls


def _name(option: str, text: str) -> str:
    try:
        return node_name(text)
    except ValueError as error:
        raise CommandError(Code.USAGE, f"{option}: {error}") from None


def _life(text: str) -> timedelta:
    found = _LIFE.fullmatch(text)
    life = int(found[1]) * _UNITS[found[2]] if found is not None else timedelta()
    if not timedelta() < life <= _LONGEST:
        raise CommandError(
            Code.USAGE, f"--valid-for: {text!r} is no life up to 100y; write for example 30min, 365d or 10y"
        )
    return life


def _until(made: Described) -> str:
    return _day(made.expires_at)


def _day(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%MZ}"
