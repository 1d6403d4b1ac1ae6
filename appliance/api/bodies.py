"""What a client sends to `/api/v1` to change something, and what it gets back beside the views."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from appliance.api.view import MemberView
from appliance.cluster.state import AcceptedLoss, HistoryEntry, NodeRole, Operation
from appliance.ha.candidates import Prospect
from appliance.ha.checks import Check

NAME_LIMIT = 200
KEYS_LIMIT = 32
_Name = Annotated[str, Field(max_length=NAME_LIMIT)]
_From = Annotated[_Name, Field(alias="from", description="refuse unless this member is the primary")]
_Text = Annotated[str, Field(max_length=1000)]


class _Body(BaseModel):
    # A misspelt key must not turn into a switchover to anybody.
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _not_by_thousands(cls, said: object) -> object:
        """Each key that is refused costs time and words: a body full of them held up the whole process."""
        if isinstance(said, dict) and len(said) > KEYS_LIMIT:
            counts = {"count": len(said), "limit": KEYS_LIMIT}
            raise PydanticCustomError("too_many_keys", "{count} keys, the limit is {limit}", counts)
        return said


class BootstrapBody(_Body):
    reason: _Text = ""


class SwitchoverBody(_Body):
    to: Annotated[_Name, Field(description="the new primary; empty: the best candidate")] = ""
    source: _From = ""
    reason: _Text = ""


class FailoverBody(_Body):
    to: Annotated[_Name, Field(min_length=1, description="the new primary")]
    source: _From = ""
    allow_data_loss: Annotated[
        bool, Field(description="lifts R7 and the check of how much is missing, for this member, as far as `accepts`")
    ] = False
    cluster: Annotated[_Name, Field(description="needed with `allow_data_loss`: the name of the cluster")] = ""
    accepts: Annotated[
        AcceptedLoss | None,
        Field(description="what a dry run has shown as `prospect.accepts`; without: what is known on arrival"),
    ] = None
    reason: _Text = ""


class InviteBody(_Body):
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="the new node's, or of one to be replaced"),
    ]
    role: NodeRole = NodeRole.DATA
    valid_for: Annotated[_Text, Field(description="how long the token can be used: `1h`")] = "1h"


@dataclass(frozen=True, slots=True)
class Invited:
    """A way in for one node. The token is told once, and serves once."""

    member: str
    role: NodeRole
    token: str
    expires_at: str


class TransferBody(_Body):
    to: Annotated[_Name, Field(description="the new raft leader; empty: the voter that has most of the log")] = ""


class RemovalBody(_Body):
    member: Annotated[_Name, Field(min_length=1, description="who leaves the cluster")]
    force: Annotated[bool, Field(description="also a member whose PostgreSQL runs")] = False
    reason: _Text = ""


@dataclass(frozen=True, slots=True)
class ConfigView:
    """The configuration document; what it does not say has its default."""

    version: int
    document: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Transferred:
    message: str


@dataclass(frozen=True, slots=True)
class Removed:
    member: str
    message: str


@dataclass(frozen=True, slots=True)
class DryRun:
    """It would go ahead: nothing was changed."""

    message: str
    checks: tuple[Check, ...]
    prospect: Prospect | None = None
    """of a failover with `allow_data_loss`: what it would give up"""


@dataclass(frozen=True, slots=True)
class Bootstrapping:
    id: str
    initialised: bool
    """the cluster has data and an open primary"""
    message: str


@dataclass(frozen=True, slots=True)
class Members:
    members: tuple[MemberView, ...]


@dataclass(frozen=True, slots=True)
class Operations:
    operations: tuple[Operation, ...]
    """oldest first, as started"""


@dataclass(frozen=True, slots=True)
class History:
    history: tuple[HistoryEntry, ...]
    """oldest first"""
