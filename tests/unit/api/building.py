"""Builds published values of a three-node cluster, and a small node behind the gateway's interface."""

import threading
from concurrent.futures import Future
from dataclasses import replace
from http.client import HTTPConnection

from appliance.api.published import OperatorAnswer, Published, RaftSeen, ReplicaSeen
from appliance.api.raft_view import Fsyncs, RaftCertificate, RaftMember, RaftView
from appliance.cluster.config import Policy
from appliance.cluster.state import (
    Change,
    Config,
    HistoryEntry,
    NodeRole,
    Operation,
    OperationKind,
    Phase,
    PhaseMark,
    Position,
)
from appliance.ha.seen import (
    DirectoryKind,
    DirectorySeen,
    LeaseSeen,
    Notes,
    Observation,
    PostmasterSeen,
    ReportSeen,
)
from tests.unit.cluster import building as cluster
from tests.unit.cluster.building import NAMES
from tests.unit.ha import building as decisions

MIB = 1 << 20
LSN = 0x3000060
TAKEN_S = 1000.0


def member(name, role=NodeRole.DATA, tags=None):
    return cluster.member(name, role, tags=tags or {}, incarnation=f"inc-{name}")


def instance(*, primary, lsn=LSN, timeline=2, streaming=None):
    return decisions.instance(
        primary=primary,
        timeline=timeline,
        lsn=lsn,
        received_lsn=0 if primary else lsn,
        replayed_lsn=0 if primary else lsn,
        checkpoint_timeline=timeline,
        slots=frozenset(),
        streaming=(not primary) if streaming is None else streaming,
    )


def report(name, *, primary=False, lsn=LSN, **changes):
    shown = {
        "doing": "nothing to do",
        "postmaster_start": "2026-11-23T05:00:00.123456+00:00",
        "server_version": 150014,
        "version": "0.1.0",
    }
    return decisions.report(name, primary=primary, lsn=lsn, **(shown | changes))


HISTORY = (
    HistoryEntry("2026-11-23T04:00:00+00:00", Change.BOOTSTRAP, 1, 1, 0, "", "pg3", "cluster initialised on pg3"),
    HistoryEntry("2026-11-23T05:00:00+00:00", Change.FAILOVER, 4, 2, 0x2000000, "pg3", "pg1", "pg3 was silent"),
)


def state(**changes):
    """The same small cluster, with a history and a document to show."""
    base = cluster.state(
        last_known=Position(2, LSN),
        config=Config(3, {"ttl": "6s", "postgresql": {"parameters": {"work_mem": "8MB"}}}),
        history=HISTORY,
    )
    return replace(base, **changes)


VOTERS = {name: ReplicaSeen("voter", f"10.0.0.{name[-1]}:7400") for name in NAMES}


def raft(role="leader", **changes):
    return replace(RaftSeen(role, "pg1", 7, 42, members=VOTERS), **changes)


def published(me="pg1", **changes):
    """A healthy cluster with primary pg1, as `me` knows it."""
    primary = me == "pg1"
    reports = {name: ReportSeen(report(name, primary=name == "pg1"), 0.3) for name in NAMES}
    base = Published(
        node=me,
        cluster="shop",
        version="0.1.0",
        taken_s=TAKEN_S,
        wall_time=1_790_000_000.0,
        state=state(),
        policy=Policy(),
        seen=Observation(
            me=member(me),
            directory=DirectorySeen(DirectoryKind.CLUSTER, system_identifier="7423474350493388827"),
            notes=Notes(epoch=4),
            lease=LeaseSeen(4, 5.5) if primary else None,
            postmaster=PostmasterSeen(100.0),
            instance=instance(primary=primary),
            contact_s=0.2,
        ),
        report=report(me, primary=primary),
        reports=reports,
        raft=raft("leader" if primary else "follower", peers={n: True for n in NAMES if n != me}),
        rule="nothing_to_do",
        doing="nothing to do",
        last_renewal_s=0.3,
    )
    return replace(base, **changes)


def seen(value, **changes):
    """The same published value with another observation of the own node."""
    return replace(value, seen=replace(value.seen, **changes))


def standby(tags=None, **changes):
    value = published("pg2")
    me = member("pg2", tags=tags or {})
    return seen(value, me=me, **changes)


def witness():
    value = published("pg3")
    gone = DirectorySeen(DirectoryKind.MISSING)
    me = member("pg3", NodeRole.WITNESS)
    return seen(value, me=me, directory=gone, postmaster=None, instance=None)


def raft_view(**changes):
    """The replica of pg1, which leads; pg3 is away and was refused twice."""
    roles = {"pg1": "voter", "pg2": "voter", "pg3": "joining"}
    lags = {"pg1": 0, "pg2": 1, "pg3": 38}
    members = tuple(
        RaftMember(
            name=name,
            role=role,
            replica_id=f"id-{name}",
            address=f"{name}:7400",
            leads=name == "pg1",
            connected=None if name == "pg1" else name == "pg2",
            match_index=42 - lags[name],
            lag=lags[name],
            problem="peer pg3 at pg3:7400: connection refused" if name == "pg3" else None,
            refused_us=None,
            refused_us_age_s=None,
        )
        for name, role in roles.items()
    )
    base = RaftView(
        node="pg1",
        cluster="shop",
        cluster_id="cafe",
        incarnation=1,
        replica_id="id-pg1",
        role="leader",
        votes=True,
        term=7,
        leader="pg1",
        commit_index=41,
        applied_index=41,
        first_index=2,
        last_index=42,
        log_bytes=8192,
        fsyncs=Fsyncs(120, 0.0021, 0.0304),
        tick_late_s=0.0004,
        tick_late_longest_s=0.0121,
        failure=None,
        members=members,
        refusals={"cluster": 2, "junk": 0},
        certificate=RaftCertificate("2027-02-21T06:00:00+00:00", None),
        removed_by=(),
    )
    return replace(base, **changes)


def ask(server, method, path):
    """A request whose path goes out as it is; other clients tidy it."""
    connection = HTTPConnection(*server.addresses[0], timeout=10)
    try:
        connection.request(method, path)
        return connection.getresponse()
    finally:
        connection.close()


class Node:
    """A gateway whose raft leader answers as told and whose operations the test moves on."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.value = published()
        self.replica = raft_view()
        self.clock_s = TAKEN_S
        self.requests = []
        self.answer = None
        """an answer for every request; None: accept"""
        self.stuck = threading.Event()
        self.stuck.set()
        """cleared: submit itself blocks"""

    def published(self):
        return self.value

    def raft(self):
        return self.replica

    def now_s(self):
        return self.clock_s

    def submit(self, request, limit_s):
        self.requests.append(request)
        self.stuck.wait(30)
        answered = Future()
        if self.answer is not None:
            answered.set_result(replace(self.answer, id=self.answer.id or request.id))
        else:
            if request.kind in {"switchover", "failover"} and not request.dry_run:
                self._start(request)
            answered.set_result(OperatorAnswer("accepted", request.id, message="as you say"))
        return answered

    def drop(self, name):
        """As after the raft leader has taken this replica out."""
        known = self.value.raft
        members = {other: replica for other, replica in known.members.items() if other != name}
        self.value = replace(self.value, raft=replace(known, members=members))

    def _start(self, request):
        self.put(
            Operation(
                id=request.id,
                kind=OperationKind(request.kind),
                requester=request.requester,
                reason=request.reason,
                source="pg1",
                target=request.target,
                epoch=4,
                phase=Phase.REQUESTED,
                marks=(PhaseMark(Phase.REQUESTED, "2026-11-23T06:00:00+00:00"),),
                allow_data_loss=request.allow_data_loss,
            )
        )

    def put(self, operation):
        others = tuple(o for o in self.value.state.operations if o.id != operation.id)
        self.value = replace(self.value, state=replace(self.value.state, operations=(*others, operation)))

    def advance(self, phase, *, primary=None, message=""):
        """Move the running operation on, as the raft leader would."""
        running = self.value.state.running_operation()
        self.put(replace(running, phase=phase, message=message))
        if primary is not None:
            held = replace(self.value.state.appointment, node=primary)
            self.value = replace(self.value, state=replace(self.value.state, appointment=held))
