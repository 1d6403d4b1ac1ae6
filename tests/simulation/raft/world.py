"""Machines, network, clients and faults under one seed: `World(seed, profile).run()` tells what became of them.

The same seed, profile and sources give the same run, to the byte.
"""

import traceback
import zlib
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

from raft.api import JournalDamaged, ReplicaError
from raft.journal import Journal
from tests.simulation.raft import profiles
from tests.simulation.raft.administrator import LEAST_VOTERS, Administrator
from tests.simulation.raft.checks import Answers, Commits, Entries, History, Leaders, States, Violation, Votes
from tests.simulation.raft.clients import Clients
from tests.simulation.raft.faults import Faults
from tests.simulation.raft.machine import NEWEST
from tests.simulation.raft.network import Network
from tests.simulation.raft.process import CLUSTER, Process, is_outdated
from tests.simulation.raft.schedule import Schedule
from tests.simulation.raft.virtual_disk import Crash, Medium, VirtualDisk

STORY_LINES = 400
CALM_S = 3.0
"""When all is well nothing happens for so long that costs anybody the leadership."""
CRASH_SHARES = (0.0, 0.5, 1.0)
HEAL_LIMIT_S = 20.0
"""After the last fault everything must be well within this time."""


@dataclass
class Checks:
    leaders: Leaders = field(default_factory=Leaders)
    votes: Votes = field(default_factory=Votes)
    entries: Entries = field(default_factory=Entries)
    answers: Answers = field(default_factory=Answers)
    commits: Commits = field(default_factory=Commits)
    states: States = field(default_factory=States)
    history: History = field(default_factory=History)


class Host:
    """A machine: disk, clock, and a process at times."""

    def __init__(self, name, addresses, schedule, random, drift):
        self.name = name
        self.addresses = addresses
        self.medium = Medium()
        self.lost = {}
        """Replica id to what its disk held when it was lost: its answers may still be on their way."""
        self.process = None
        self.replica_ids = set()
        """Of all journals that were ever begun here."""
        self.stalled_until_s = 0.0
        self.crash_at_start = None
        """(calls, share) of a crash in the next start."""
        self.retired = False
        """It was removed from the members, and does not start by itself."""
        self.version = NEWEST
        """Of what is installed there; its process has it from its next start on."""
        self.rate = 1.0 + random.uniform(-drift, drift)
        self._offset_s = random.uniform(10, 100_000)
        self._schedule = schedule
        self._random = random

    @property
    def up(self):
        return self.process is not None

    def clock(self):
        """CLOCK_BOOTTIME of this machine."""
        return self._offset_s + self._schedule.now_s * self.rate

    def world_time_s(self, reading_s):
        return (reading_s - self._offset_s) / self.rate

    def lose_disk(self):
        held = self.medium.durable_meaning("journal")
        if held is not None:
            self.lost[held.replica_id] = held
        self.medium = Medium()

    def boot(self):
        """Another boot, another beginning of the clock."""
        self._offset_s = self._random.uniform(10, 100_000)


@dataclass(frozen=True)
class Result:
    seed: int
    profile: str
    drawn: str
    violation: str | None
    virtual_s: float
    digest: int
    counts: Counter
    story: tuple


class World:
    def __init__(self, seed, profile_name, *, full_story=False):
        self.seed = seed
        self.profile_name = profile_name
        self.random = Random(f"{profile_name} {seed}")
        self.profile = profiles.draw(profile_name, self.random)
        self.schedule = Schedule()
        self.checks = Checks()
        self.counts = Counter()
        self.steps = 0
        self.digest = 0
        self.story = deque(maxlen=None if full_story else STORY_LINES)
        self.healing = False
        self.network = Network(self.schedule, self.fork_random(), self.profile.net, self.tell)
        self.clients = Clients(self, self.fork_random())
        self.administrator = Administrator(self, self.fork_random())
        self.faults = Faults(self, self.fork_random())
        self.hosts = self._make_hosts()

    @property
    def now_s(self):
        return self.schedule.now_s

    def run(self):
        violation = None
        try:
            self._hurt()
            self._heal()
            self._settle()
            self._stay_well()
            self._finish()
        except Violation as error:
            violation = str(error)
            self.tell("check", violation)
        except Exception:
            violation = f"the simulator itself is wrong: {traceback.format_exc()}"
        self.count("acknowledged", self.checks.history.acknowledged)
        self.count("barriers", self.checks.history.barriers)
        self.count("committed", self.checks.commits.last)
        self.count("steps", self.steps)
        self.count("resets", self.network.resets)
        self.count("late frames", self.network.lingered)
        self.count("lost frames", self.network.lost)
        return Result(
            self.seed,
            self.profile_name,
            self.profile.name,
            violation,
            self.now_s,
            self.digest,
            self.counts,
            tuple(self.story),
        )

    # -- acts of a run -----------------------------------------------------------------------------------

    def _make_hosts(self):
        size = self.profile.size
        names = [f"n{number}" for number in range(1, size.voters + 1)]
        spares = [f"s{number}" for number in range(1, size.spares + 1)]
        founders = {name: f"{name}:1" for name in names}
        drift = self.profile.clocks.drift
        hosts = {}
        for name in names + spares:
            addresses = founders if name in founders else {}
            hosts[name] = Host(name, addresses, self.schedule, self.fork_random(), drift)
            hosts[name].version = 1 if self.profile.changes.upgrades else NEWEST
        if self.profile.machines.exact:
            # every call of the disk in turn, and each of them before, within and after
            calls, share = divmod(self.seed, len(CRASH_SHARES))
            self.random.choice([hosts[name] for name in names]).crash_at_start = (calls + 1, CRASH_SHARES[share])
        return hosts

    def _hurt(self):
        for name in self.hosts:
            if name.startswith("n"):
                self.schedule.after(self.random.uniform(0, 0.5), self.start, name)
        self.clients.begin()
        if self.profile.machines.early:
            self.faults.begin()
        else:
            while not any(host.up and host.process.leads for host in self.hosts.values()):
                if self.now_s >= HEAL_LIMIT_S:
                    raise Violation("no leader at the first start")
                self.schedule.run(self.now_s + 0.25)
            self.faults.begin()
        self.administrator.begin()
        self.schedule.run(self.now_s + self.profile.hurt_s)

    def _heal(self):
        self.tell("world", "heals")
        self.healing = True
        self.faults.end()
        self.administrator.end()
        self.network.mend_all()
        for host in self.hosts.values():
            host.stalled_until_s = self.now_s
            host.medium.capacity_bytes = None
            host.crash_at_start = None
            if host.up:
                host.process.disk.be_well()
        for host in self.hosts.values():
            if self._should_run(host):
                self.start(host.name)

    def _should_run(self, host):
        return not host.retired and (host.name.startswith("n") or bool(host.medium.names))

    def _settle(self):
        """Wait until everything is well; it must be so soon."""
        self.schedule.after(self.random.uniform(0, 3), self.clients.end)
        limit_s = self.now_s + HEAL_LIMIT_S
        while (problem := self._problem()) is not None:
            if self.now_s >= limit_s:
                raise Violation(f"{HEAL_LIMIT_S:g} s after the last fault: {problem}")
            self.schedule.run(self.now_s + 0.25)
        self.count("healed ms", int((self.now_s - limit_s + HEAL_LIMIT_S) * 1000))

    def _stay_well(self):
        """Nobody is deposed without a reason."""
        leader = self.leader()
        term = leader.engine.facts.term
        self.schedule.run(self.now_s + CALM_S)
        if self.leader() is not leader or leader.engine.facts.term != term:
            raise Violation(f"{leader.name} led term {term} when all was well, and was deposed within {CALM_S:g} s")

    def _problem(self):
        """What is not as it should be once nothing breaks any more."""
        leaders = [host.process for host in self.hosts.values() if host.up and host.process.leads]
        if len(leaders) != 1:
            return f"{len(leaders)} leaders"
        (leader,) = leaders
        for member in leader.members.all:
            host = self.hosts[member.name]
            if not host.up:
                # it was made a member again while it was being stopped
                host.retired, host.addresses = False, addresses_of(leader.members)
                self.start(member.name)
                return f"{member.name} is a member and not running"
            process = host.process
            if process.replica_id != member.replica_id:
                return f"{member.name} runs as {process.replica_id}, the members say {member.replica_id}"
            if member.role == "joining":
                return f"{member.name} is still joining"
            if process.members != leader.members:
                return f"{member.name} has other members than the leader"
            if process.engine.facts.leader != leader.name:
                return f"{member.name} follows {process.engine.facts.leader}"
            if process.engine.facts.applied_index < self.checks.commits.last:
                return f"{member.name} has applied {process.engine.facts.applied_index} of {self.checks.commits.last}"
        self.administrator.dismiss(leader.members)
        return self.clients.problem([member.name for member in leader.members.all])

    def _finish(self):
        """Nothing acknowledged is lost, also when now the power goes everywhere."""
        self.checks.history.finish(self.checks.states)
        for host in self.hosts.values():
            if not host.up:
                continue
            held = host.medium.durable_meaning("journal")
            self.power_off(host.process, restart=False)
            process = Process(self, host)
            if process.journal.held() != held:
                raise Violation(f"{host.name} comes back with {process.journal.held()}, had {held}")

    # -- processes ---------------------------------------------------------------------------------------

    def start(self, name):
        host = self.hosts[name]
        if host.up or host.retired:
            return
        try:
            process = Process(self, host)
        except Crash:
            self.count("crashes at start")
            self.tell(name, "crashes while it starts")
            self._lose(host)
            self.faults.restart_later(host)
            return
        except JournalDamaged as error:
            self.tell(name, f"does not start: {error}")
            if not host.medium.rotten:
                raise Violation(f"{name} finds its journal damaged: {error}") from error
            host.medium.kill()
            self.wipe(host)
            self.faults.restart_later(host)
            return
        except ReplicaError as error:
            self.tell(name, f"does not start: {error}")
            if is_outdated(host, error):
                self._install_newest(host)
            elif host.medium.capacity_bytes is None:
                raise Violation(f"{name} does not start: {error}") from error
            host.medium.kill()
            self.faults.restart_later(host)
            return
        host.process = process
        self.count("starts")
        self.tell(
            name, f"starts as {process.replica_id}, term {process.journal.term}, log {process.journal.last_index}"
        )
        self.network.add(process)
        process.wake(self.random.uniform(0, 0.05))

    def crashed(self, process):
        """The process has died within a call of its disk."""
        self.count("crashes in disk calls")
        host = process.host
        power = self._lose(host)
        self.tell(host.name, f"dies in call {process.disk.calls} of its disk, {'without power' if power else 'killed'}")
        self._end(process, silently=power)
        self.faults.restart_later(host)

    def _lose(self, host):
        power = self.random.random() < self.profile.machines.power_share
        if power:
            host.medium.lose_power(self.random)
            host.boot()
        else:
            host.medium.kill()
        return power

    def failed(self, process, reason):
        """The replica has ended itself, as it should after an error of its disk."""
        self.count("failed disks")
        self.tell(process.name, f"fails: {reason}")
        process.host.medium.kill()
        self._end(process)
        self.faults.restart_later(process.host)

    def outdated(self, process, reason):
        """It has ended itself, as it should before what only a newer version understands."""
        if "holds later" in reason:
            raise Violation(f"{process.name} meets what is new before the step to its format: {reason}")
        self.tell(process.name, f"ends: {reason}")
        process.host.medium.kill()
        self._end(process)
        self._install_newest(process.host)
        self.faults.restart_later(process.host)

    def _install_newest(self, host):
        self.count("ended before a newer version's entry")
        host.version = NEWEST

    def kill(self, process, *, restart=True):
        self.tell(process.name, "is killed")
        process.host.medium.kill()
        self._end(process)
        if restart:
            self.faults.restart_later(process.host)

    def power_off(self, process, *, restart=True):
        self.tell(process.name, "loses power")
        process.host.medium.lose_power(self.random)
        process.host.boot()
        self._end(process, silently=True)
        if restart:
            self.faults.restart_later(process.host)

    def wipe(self, host):
        """Another disk, empty, in a machine that is down."""
        self.count("wipes")
        self.tell(host.name, "has lost its disk")
        host.lose_disk()
        leader = self.leader()
        if leader is not None:
            host.addresses = addresses_of(leader.members)

    def rot(self, host):
        """A bit of a machine's journal turns over while it is down, in a place where the journal can notice it.

        At the very end it cannot tell rot from a torn write, and what it had acknowledged there is gone.
        """
        inode = host.medium.names["journal"]
        place = self.random.randrange(len(inode.content))
        rotten = bytearray(inode.content)
        rotten[place] ^= 1 << self.random.randrange(8)
        trial = Medium()
        VirtualDisk(trial).create("journal").write(rotten, 0)
        trial.kill()
        try:
            Journal(VirtualDisk(trial), CLUSTER, host.name, draw_id=str)
        except JournalDamaged:
            inode.content, inode.synced = bytearray(rotten), bytearray(rotten)
            host.medium.rotten = True
            self.count("rots")
            self.tell(host.name, f"has rot at byte {place} of its journal")
        except ReplicaError:
            self.tell(host.name, "has rot that makes it another's journal")

    def retire(self, host):
        host.lose_disk()
        host.retired = True

    def _end(self, process, *, silently=False):
        process.end()
        process.host.process = None
        self.network.remove(process, silently=silently)

    # -- what processes ask and tell ---------------------------------------------------------------------

    def leader(self):
        """Whoever leads the latest term, if it is up."""
        leaders = [host.process for host in self.hosts.values() if host.up and host.process.leads]
        return max(leaders, key=lambda process: process.engine.facts.term, default=None)

    def complete(self, members):
        """Whether everybody is there, as the members say, and agrees who they are."""
        if len(members.voters) < LEAST_VOTERS or any(member.role == "joining" for member in members.all):
            return False
        for member in members.all:
            process = self.hosts[member.name].process
            if process is None or process.replica_id != member.replica_id or process.members != members:
                return False
        return True

    def fork_random(self):
        return Random(self.random.getrandbits(64))

    def lag_s(self):
        return self.random.uniform(0.00005, self.profile.clocks.lag_s)

    def outcome(self, process, key, outcome):
        kind, name = key
        if kind in {"command", "barrier"}:
            self.clients.outcome(process, name, outcome)
        else:
            self.administrator.outcome(process, name, outcome)

    def members(self, process, leads):
        """The members by whom an entry may have been committed."""
        found = [process.members]
        if not leads:
            found += [host.process.members for host in self.hosts.values() if host.up]
        return found

    def majority_holds(self, members, index, term):
        voters = [member for member in members.all if member.voter]
        holding = sum(self._holds(member, index, term) for member in voters)
        return holding > len(voters) // 2

    def _holds(self, member, index, term):
        held = self.held_by(member)
        return held is not None and held.has(index, term)

    def held_by(self, member):
        """What a replica has on its disk, or had when the disk was lost; None when it never had one."""
        host = self.hosts[member.name]
        held = host.medium.durable_meaning("journal")
        return held if held is not None and held.replica_id == member.replica_id else host.lost.get(member.replica_id)

    def check_later_leaders(self, index, term, by):
        """What is committed in one term must be in the log of everybody who leads a later one."""
        for process in (host.process for host in self.hosts.values() if host.up):
            journal = process.journal
            if by.journal.term < process.led_term == journal.term:
                found = journal.term_at(index) if index >= journal.base_index else term
                if found != term:
                    raise Violation(
                        f"{by.name} commits entry {index} of term {term} in term {by.journal.term};"
                        f" {process.name}, which leads term {process.led_term}, has {found}"
                    )

    def on_disk_call(self, process, call):
        self.counts["disk calls"] += 1

    # -- the story ---------------------------------------------------------------------------------------

    def count(self, what, number=1):
        self.counts[what] += number

    def tell(self, who, text):
        self.story.append((self.now_s, who, text))
        self._mix(f"{self.now_s:.6f} {who} {text}".encode())

    def note_message(self, way, name, peer, message, frame):
        self.story.append((self.now_s, name, (way, peer, message)))
        if way == "<-":
            self._mix(frame)  # in what order a step sends to different peers is nobody's business

    def _mix(self, data):
        self.digest = zlib.crc32(data, self.digest)


def addresses_of(members):
    return {member.name: member.address for member in members.all}
