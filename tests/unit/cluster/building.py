"""States and commands of a small cluster, as values and as Hypothesis strategies."""

from dataclasses import replace

from hypothesis import strategies as st

from appliance.cluster.commands import (
    AbandonBootstrap,
    AdvanceOperation,
    Announce,
    Appoint,
    BeginBootstrap,
    ChangeSync,
    Depose,
    FinaliseSync,
    FinishBootstrap,
    IssueToken,
    NotePosition,
    OpenElection,
    Promoted,
    RaiseFormat,
    Rebuild,
    Rebuilt,
    Recovered,
    Release,
    RemoveMember,
    RevokeToken,
    SetConfig,
    StartOperation,
    UseToken,
)
from appliance.cluster.state import (
    ASYNCHRONOUS,
    AcceptedLoss,
    Appointment,
    ClusterState,
    Config,
    Election,
    JoinToken,
    LeaseStatus,
    Member,
    NodeRole,
    OperationKind,
    Phase,
    Position,
    SyncSet,
    SyncVersion,
    Timeline,
    Vote,
)

AT = "2026-11-23T05:00:00+00:00"
NAMES = ("pg1", "pg2", "pg3")
LIMIT = 1 << 20
SWITCH = 0x2000000
LSN = 0x3000000


def member(name, role=NodeRole.DATA, **changes):
    n = name[-1]
    base = Member(
        name=name,
        role=role,
        raft=f"10.0.0.{n}:7400",
        api_url=f"http://10.0.0.{n}:8008",
        postgres=f"10.0.0.{n}:5432" if role is not NodeRole.WITNESS else "",
        incarnation=f"inc-{name}" if role is not NodeRole.WITNESS else "",
    )
    return replace(base, **changes)


def state(**changes):
    """pg1 is the open primary of epoch 4 on timeline 2; pg2 and pg3 are standbys."""
    base = ClusterState(
        name="shop",
        system_identifier="7423474350493388827",
        members={name: member(name) for name in NAMES},
        epoch=4,
        appointment=Appointment(
            4, "pg1", "inc-pg1", 2, Position(1, SWITCH), opened=True, holders=frozenset({"pg1", "pg3"})
        ),
        lease=LeaseStatus.HELD,
        timelines=(Timeline(1, 1, "pg3", 0, 0), Timeline(2, 4, "pg1", 1, SWITCH)),
        last_known=Position(2, LSN),
        config=Config(1, {"ttl": "6s", "synchronous_mode": "off"}),
    )
    return replace(base, **changes)


def with_members(base, *members):
    return replace(base, members={**base.members, **{m.name: m for m in members}})


def vacant(**changes):
    """The lease of epoch 4 ran out and election 5 is open."""
    base = state(epoch=5, lease=LeaseStatus.EXPIRED, election=Election(5, "the lease is expired"))
    return replace(base, **changes)


def synchronous(*listed, **changes):
    """The same cluster with commits that wait for `listed`, finalised when it is one: pg2 and pg3 unless said."""
    listed = listed or (sync(1, "pg2", "pg3"),)
    return state(**{"sync": listed, "config": Config(1, {"ttl": "6s"}), **changes})


def contested(*listed, **changes):
    """Election 5 is open, and nobody knows whether pg1 still runs."""
    election = Election(5, "pg1 is silent")
    return synchronous(*listed, **{"epoch": 5, "lease": LeaseStatus.CONTESTED, "election": election, **changes})


def vote(node, lsn=LSN, timeline=2, election=5, incarnation=None):
    return Vote(election, node, f"inc-{node}" if incarnation is None else incarnation, Position(timeline, lsn))


def appoint(node, *votes, election=5, timeline=3, wanted=ASYNCHRONOUS):
    return Appoint(election, node, votes, timeline, wanted, "the reason", AT)


def sync(k, *members, version=1, epoch=4, failsafe=False):
    return SyncVersion(version, epoch, SyncSet(k, frozenset(members), failsafe=failsafe))


DOCUMENTS = (
    {"synchronous_mode": "off"},
    {},
    {"ttl": "6s"},
    {"synchronous_mode": "on", "synchronous_node_count": 2},
    {"synchronous_mode_strict": True},
    {"failsafe_mode": True},
    {"failover": {"fencing": "lease"}},
    {"ttl": "1s"},
    {"maximum_lag_on_failover": 0},
    {"maximum_lag_on_failover": float("inf")},
    {"ttl": float("nan")},
    {"ttl": 10**400},
    {"ttl": "9" * 400},
    {"synchronous_mode": []},
    {"postgresql": {"parameters": {"work_mem": None}}},
    {"postgresql": 5},
    {"": {}},
)
ROLES = (NodeRole.DATA, NodeRole.DATA, NodeRole.WITNESS, NodeRole.LEARNER)
LSNS = (LSN, LSN - 1, LSN + LIMIT, LSN - LIMIT - 1, SWITCH, 0)
TAPES = st.binary(min_size=100, max_size=400)
"""Choices, one byte each: far cheaper than drawing every command, and they shrink as well."""


class Tape:
    """Reads choices from bytes; at the end it always takes the first."""

    def __init__(self, choices):
        self._choices = iter(choices)
        self.left = len(choices)

    def byte(self):
        self.left -= 1
        return next(self._choices, 0)

    def pick(self, *options):
        return options[self.byte() % len(options)]

    def near(self, *known):
        """A number at or around those that the state knows."""
        return self.pick(*known) + self.pick(0, 1, 0, 1, -1, 2)

    def name(self, *likely):
        return self.pick(*likely, *NAMES, "pg4")


def next_command(present, tape):
    """A command that mostly fits the present state, and often just misses it."""
    return tape.pick(*_MAKERS)(present, tape)


def _epoch(present, tape):
    return tape.near(present.appointment.epoch if present.appointment else 0, present.epoch)


def _holder(present, tape):
    return tape.name(*([present.appointment.node] * 4 if present.appointment else []))


def _position(present, tape):
    held = present.appointment
    return Position(tape.near(held.timeline if held else 1, present.highest_timeline), tape.pick(*LSNS))


def _ballot(present, tape):
    """Votes as an honest node casts them, or with something wrong."""
    number = present.election.number if present.election else present.epoch
    node = tape.name()
    known = present.members[node].incarnation if node in present.members else ""
    honest = Vote(number, node, known, Position(present.highest_timeline, LSN))
    wrong = Vote(tape.near(number), tape.name(node), tape.pick(known, "inc-pg2", ""), _position(present, tape))
    return tape.pick(honest, honest, wrong)


def _open_election(present, tape):
    number = tape.pick(present.epoch + 1, tape.near(present.epoch))
    position = tape.pick(None, _position(present, tape))
    return OpenElection(number, _epoch(present, tape), "why", tape.pick("", tape.name()), position)


def _appoint(present, tape):
    votes = tuple(_ballot(present, tape) for _ in range(tape.pick(1, 2, 3, 3, 0)))
    number = present.election.number if present.election else present.epoch
    node = tape.name(*(v.node for v in votes))
    timeline = tape.pick(present.highest_timeline + 1, tape.near(present.highest_timeline))
    wanted = _wanted(present, node, tape)
    return Appoint(tape.pick(number, tape.near(number)), node, votes, timeline, wanted, "why", AT)


def _wanted(present, node, tape):
    """What fits the configuration, mostly: all others, one of them, nobody."""
    others = tuple(sorted(present.members.keys() - {node}))
    fitting = (SyncSet(1, frozenset(others)), SyncSet(1, frozenset(others[:1]), others[:1]), SyncSet())
    if present.config.document.get("synchronous_mode") == "off":
        fitting = (ASYNCHRONOUS,) * 3
    odd = SyncSet(tape.pick(0, 1, 2), frozenset({tape.name()}), tape.pick((), ("pg2",)), tape.pick(False, True))
    return tape.pick(*fitting, *fitting, odd)


def _change_sync(present, tape):
    version = tape.pick(present.sync_now.version + 1, tape.near(present.sync_now.version))
    return ChangeSync(_epoch(present, tape), version, _wanted(present, _holder(present, tape), tape))


def _promoted(present, tape):
    timeline = tape.near(present.highest_timeline)
    return Promoted(_epoch(present, tape), _holder(present, tape), timeline, tape.near(timeline - 1), tape.pick(*LSNS))


def _start_operation(present, tape):
    kind = tape.pick(*OperationKind)
    known = [o.id for o in present.operations]
    name = tape.pick(f"op{len(known)}", *known)
    anything = AcceptedLoss(Position(0, 0), Position(9, LSN))
    accepted = tape.pick(None, None, anything, AcceptedLoss(Position(2, LSN - 1), Position(2, LSN)))
    target = tape.pick("", tape.name())
    loss = accepted is not None
    return StartOperation(name, kind, "me", "", target, _epoch(present, tape), AT, loss, accepted)


def _on_token(present, tape):
    known = tape.pick("t0", *[token.id for token in present.tokens][-2:])
    now_unix_s = tape.pick(1e9, 1e9, 2e9)
    fresh = JoinToken(f"t{len(present.tokens)}", tape.pick("d", "d", ""), tape.name(), tape.pick(*ROLES), 1e9 + 3600)
    return tape.pick(
        IssueToken(fresh, now_unix_s),
        UseToken(known, "d", tape.name(), tape.pick("k", "l"), now_unix_s),
        RevokeToken(known),
    )


def _recovered(present, tape):
    """Now and then: whose data is not kept has none from there on."""
    number = present.recovery.number + tape.pick(0, 0, 0, 1)
    known = {name: m.incarnation for name, m in present.members.items()}
    kept = tape.pick(known, known, known, {}, dict(list(known.items())[1:]), {"pg1": "inc-other"})
    return Recovered(number, kept)


_MAKERS = (
    _recovered,
    _open_election,
    _appoint,
    _promoted,
    lambda present, tape: Depose(_epoch(present, tape), "silent"),
    lambda present, tape: Depose(_epoch(present, tape), "silent"),
    lambda present, tape: Rebuilt(tape.name(), tape.pick("inc-new", "inc-pg1")),
    _open_election,
    _appoint,
    _appoint,
    _promoted,
    lambda present, tape: Release(
        _epoch(present, tape), _holder(present, tape), "fenced", tape.pick(None, _position(present, tape))
    ),
    lambda present, tape: NotePosition(_epoch(present, tape), _position(present, tape)),
    lambda present, tape: Rebuild(tape.name()),
    lambda present, tape: Rebuilt(tape.name(), tape.pick("inc-new", "inc-pg1")),
    lambda present, tape: Announce(member(tape.name(), tape.pick(*ROLES), rebuilding=tape.pick(False, True))),
    lambda present, tape: BeginBootstrap("shop", tape.name(), tape.pick(*DOCUMENTS)),
    lambda present, tape: AbandonBootstrap(tape.name(), "gave up"),
    lambda present, tape: FinishBootstrap(
        tape.name(), tape.pick("7", ""), tape.pick("inc-new", ""), Position(tape.pick(1, 2), LSN), AT
    ),
    _change_sync,
    _change_sync,
    lambda present, tape: FinaliseSync(_epoch(present, tape), tape.near(present.sync_now.version)),
    lambda present, tape: SetConfig(tape.near(present.config.version), tape.pick(*DOCUMENTS)),
    _start_operation,
    lambda present, tape: AdvanceOperation(
        tape.pick(*[o.id for o in present.operations][-2:], "op9"), tape.pick(*Phase), AT
    ),
    _on_token,
    lambda present, tape: tape.pick(
        RemoveMember(tape.pick("pg4", "pg4", "pg4", tape.name())),
        RemoveMember("pg4"),
        RaiseFormat(present.format + tape.pick(0, 1)),
    ),
)
