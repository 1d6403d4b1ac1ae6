"""Zones: where a member says that it stands. With `zones` in the configuration there are those and no others."""

import difflib
from collections.abc import Sequence

from appliance.cluster.state import ClusterState, Member


def zone_of(member: Member | None) -> str:
    """Empty: not known."""
    return str(member.tags.get("zone", "")) if member is not None else ""


def unknown_zone(state: ClusterState, member: Member) -> str | None:
    """Why a member's zone is none, or None. Misspelt it would pass for a place that nothing else shares."""
    listed = state.config.document.get("zones") or ()
    return not_among(listed, member) if isinstance(listed, list | tuple) else None


def not_among(zones: Sequence[object], member: Member) -> str | None:
    names, zone = [str(name) for name in zones], zone_of(member)
    if not names or not zone or zone in names:
        return None
    near = difflib.get_close_matches(zone, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"zone {zone!r} of {member.name} is none of the configuration's zones: {', '.join(names)}{hint}"
