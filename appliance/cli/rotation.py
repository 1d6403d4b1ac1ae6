"""Whether a cluster can do without its old authority: what its members say of themselves."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from appliance.cli.client import Document, connect
from appliance.cli.exits import Code, CommandError

FRESH_S = 5.0
"""a report older than this says nothing about now"""

_OTHERWISE = "--unasked goes by the directory alone"
_REMEDY = "copy ca.crt and a certificate of the new authority there, and try again 15 s later; --leave-out shuts it out"


def check(cluster: str, authority: str, left_out: Collection[str]) -> None:
    """Raises CommandError while a member trusts or shows only what is about to be forgotten, or is not heard of."""
    view = _view(cluster)
    names = _names(view)
    if unknown := sorted(set(left_out) - names):
        raise CommandError(Code.USAGE, f"--leave-out: {', '.join(unknown)}: no member; there are {_listed(names)}")
    reported = {member["name"]: member for member in view["members"]}
    lines = [
        f"{name}: {'; '.join(found)}"
        for name in sorted(names - set(left_out))
        if (found := list(_needs(reported.get(name), authority)))
    ]
    if lines:
        count = f"{len(lines)} of {len(names)} members"
        message = f"{count} would be shut out, or may be: {_REMEDY}"
        raise CommandError(Code.REFUSED, message, lines)


def _view(cluster: str) -> Document:
    try:
        view = connect().cluster()
    except CommandError as error:
        raise CommandError(error.code, f"the cluster cannot be asked: {error}; {_OTHERWISE}", error.lines) from None
    if view["name"] != cluster:
        message = f"the authority is that of cluster {cluster!r}, the node that was asked belongs to {view['name']!r}"
        raise CommandError(Code.REFUSED, f"{message}: name another one with --config or --api; {_OTHERWISE}")
    if not view["quorum"]:
        message = f"{view['node']} has no contact with a quorum, so what the others have is not known"
        raise CommandError(Code.UNREACHABLE, f"{message}; nothing was changed; {_OTHERWISE}")
    return view


def _names(view: Document) -> set[str]:
    """Also those whose replica takes part and whose node has not announced itself yet."""
    return {member["name"] for member in view["members"]} | set(view["raft"]["members"])


def _needs(member: Mapping[str, Any] | None, authority: str) -> Iterator[str]:
    """What of the old authority a member needs, or why that is not known."""
    age_s = None if member is None else member["reported_age_s"]
    if member is None or age_s is None:
        yield "it has not reported what it has"
        return
    if age_s > FRESH_S:
        yield f"its last report is {age_s:.0f} s old"
    found = member["certificate"]
    if found is None:
        yield "its node runs without TLS"
        return
    if authority not in found["trusts"]:
        yield f"its ca.crt does not hold the new authority, but {_listed(found['trusts'])}"
    if found["issuer"] != authority:
        yield f"its certificate is of {found['issuer'] or 'nobody: it cannot be read'}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
