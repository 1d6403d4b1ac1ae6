"""What must hold in every state of a small world (docs/safety.md: R5 to R9, R13, R14)."""

from dataclasses import replace
from itertools import combinations

from appliance.cluster import elections
from appliance.cluster.state import ClusterState, Election, LeaseStatus, Position, SyncVersion, Vote
from tests.model.model import Model
from tests.model.world import Node, Wal, World


class Checks:
    """With what they have found for one state and the same positions: it is asked for often."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._winners: dict[object, tuple[str, ...]] = {}

    def fault(self, world: World) -> str:
        """In words, the first that does not hold; empty: all do."""
        if world.fault:
            return world.fault
        for check in (self._appointed, self._next, self._fenced, self._listed, self._kept, self._alone):
            if found := check(world):
                return f"{check.__name__[1:]}: {found}"
        return ""

    def _appointed(self, world: World) -> str:
        """Nothing acknowledged is missing from the WAL of whoever is appointed."""
        state = self._model.state(world.log)
        held = state.appointment
        assert held is not None
        node = world.nodes[self._model.names.index(held.node)]
        if node.incarnation == held.incarnation and not has(node, world.acked):
            return f"{held.node} is appointed in epoch {held.epoch} and lacks {world.acked}, it has {node.wal}"
        return ""

    def _next(self, world: World) -> str:
        """R7: whoever would be appointed if these nodes, whichever they are, voted now and nobody else."""
        for name in self.winners(world):
            node = world.nodes[self._model.names.index(name)]
            if not has(node, world.acked):
                return f"{name} may be appointed next and lacks {world.acked}, it has {node.wal}"
        return ""

    def winners(self, world: World) -> tuple[str, ...]:
        """By the real `may_appoint`, for each set of voters."""
        state, names = self._model.state(world.log), self._model.names
        able = tuple(
            (name, node.incarnation, Position(node.wal[-1], len(node.wal)))
            for name, node in zip(names, world.nodes, strict=True)
            if node.wal and not node.dead and node.incarnation == state.members[name].incarnation != ""
        )
        key = (world.log, able)
        if key not in self._winners:
            number = state.epoch + 1
            asked = replace(state, epoch=number, election=Election(number, ""), lease=LeaseStatus.EXPIRED)
            votes = [Vote(number, *vote) for vote in able]
            found = {
                vote.node
                for size in range(1, len(votes) + 1)
                for voters in combinations(votes, size)
                for vote in voters
                if elections.may_appoint(asked, vote.node, voters) is None
            }
            self._winners[key] = tuple(sorted(found))
        return self._winners[key]

    def _fenced(self, world: World) -> str:
        """R6: who has pledged itself takes WAL from no older primary, and is none."""
        by_name = dict(zip(self._model.names, world.nodes, strict=True))
        state = self._model.state(world.log)
        for name, node in by_name.items():
            voted = self._model.look(world, self._model.names.index(name)).report.vote if node.up else None
            if voted is None or voted.election != state.epoch:
                continue
            if node.running == "primary":
                return f"{name} is a primary of epoch {node.epoch} and votes in election {voted.election}"
            if node.source:
                return f"{name} takes WAL from {node.source} and votes in election {voted.election}"
        return ""

    def _listed(self, world: World) -> str:
        """R8: no process of the appointed primary counts by anything that an election does not allow for."""
        state = self._model.state(world.log)
        held = state.appointment
        assert held is not None
        node = world.nodes[self._model.names.index(held.node)]
        if node.running != "primary" or node.epoch != held.epoch:
            return ""
        members, k = union(state.sync)
        if not node.waits and k > 0:
            return f"commits of {held.node} wait for nobody, an election takes {k} of {sorted(members)} for granted"
        for sender in node.senders:
            counts = sender.standby in sender.setting.members
            if counts and k > 0 and (sender.standby not in members or sender.setting.k < k):
                return (
                    f"the walsender of {sender.standby} counts by {sender.setting}, listed are {k} of {sorted(members)}"
                )
        return ""

    def _kept(self, world: World) -> str:
        """R13: who is asked for by an election has not given its WAL up."""
        state = self._model.state(world.log)
        held = state.appointment
        assert held is not None
        for name, member in state.members.items():
            if not member.rebuilding:
                continue
            if name == held.node:
                return f"{name} rebuilds and is appointed"
            if name in asked_for(state):
                return f"{name} rebuilds and is in a synchronous set"
            if any(name in each.holders for each in state.grounds):
                return f"{name} rebuilds and is a holder"
        return ""

    def _alone(self, world: World) -> str:
        """R4, R10: with fencing by lease never two that are writable."""
        primaries = [n for n, node in zip(self._model.names, world.nodes, strict=True) if node.running == "primary"]
        if self._model.by_lease and len(primaries) > 1:
            return f"{' and '.join(primaries)} are primaries at one time"
        return ""


def has(node: Node, wal: Wal) -> bool:
    return node.wal[: len(wal)] == wal


def union(versions: tuple[SyncVersion, ...]) -> tuple[frozenset[str], int]:
    """R8, written once more: what is judged here must not be what it is judged by."""
    return frozenset(n for v in versions for n in v.wanted.members), min(v.wanted.k for v in versions)


def asked_for(state: ClusterState) -> set[str]:
    """Everybody in a listed S, also in a `before`."""
    return {name for each in state.grounds for version in each.sync for name in version.wanted.members}
