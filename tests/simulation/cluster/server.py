"""A running simulated PostgreSQL: commits, walsenders that each have settings of their own, receivers, promotion.

Written after what PostgreSQL does (syncrep.c, walsender.c, checkpointer.c): every process reads the settings files at
its own time; a backend waits if the checkpointer's flag says so; a walsender releases by its own k and S.
"""

from dataclasses import dataclass, field

from appliance.ha.seen import InstanceSeen, SenderSeen
from appliance.postgres.errors import PostgresError
from tests.simulation.cluster.wal import Record, lsn_of

LINK_LIMIT_S = 5.0
"""wal_sender_timeout and wal_receiver_timeout"""
RETRY_S = 0.3


@dataclass(eq=False)
class Commit:
    value: int
    answer: object
    """called with "acknowledged", "local" (a cancelled wait) or "unknown", once"""
    count: int = 0
    record: object = None
    done: bool = False

    def end(self, outcome):
        if not self.done:
            self.done = True
            self.answer(self, outcome)


@dataclass(eq=False)
class Link:
    """A walsender and the walreceiver at its other end. Each way has at most one message on its way."""

    source: object
    target: object
    conf: object
    """the walsender's own settings"""
    sent: int
    flushed: int = 0
    streaming: bool = False
    open_at_source: bool = True
    open_at_target: bool = True
    sending: bool = False
    replying: bool = False
    stalled_s: float = 0.0
    last_s: float = 0.0

    @property
    def member(self):
        return self.target.host.name

    @property
    def priority(self):
        _, members, by_priority = self.conf.standbys
        if self.member not in members:
            return 0
        return 1 + members.index(self.member) if by_priority else 1


@dataclass(eq=False)
class Server:
    world: object
    host: object
    directory: object
    standby: bool
    alive: bool = True
    ready_s: float = 0.0
    links: list = field(default_factory=list)
    """its walsenders"""
    receiver: Link | None = None
    waiting: list = field(default_factory=list)
    flushing: bool = False
    released: int = 0
    replayed: int = 0
    recovered: int = 0
    """of a primary: how many records it had when it became one, so that a session sees what they committed"""
    stopping: bool = False
    checkpoint_running: bool = False
    checkpoint_error: str | None = None
    target: int = 0
    """recoveryTargetTLI of a standby"""
    silent_since_s: float = 0.0

    def begin(self):
        directory, world = self.directory, self.world
        self.wal = directory.wal
        self.conf = self.session_conf = directory.conf
        self.upstream = directory.conf.upstream if self.standby else ""
        """the startup process's own primary_conninfo"""
        self.target = max([self.wal.timeline, *self.wal.parents])
        self.began_s = self.silent_since_s = world.now_s
        self.flag = self.conf.waits
        """the checkpointer's: whether commits wait at all (T7)"""
        self.commits = []
        directory.shut_down, directory.was_primary = False, not self.standby
        self.ready_s = world.now_s + world.random.choice((0.05, 0.2, 0.2, 1.0))
        self._later(self.ready_s - world.now_s, self._become_ready)

    @property
    def ready(self):
        return self.alive and self.world.now_s >= self.ready_s and not self.stopping

    @property
    def age_s(self):
        return self.world.now_s - self.began_s

    @property
    def answers(self):
        return self.ready and self.directory.consistent and self.world.now_s >= self.host.postgres_stands_until_s

    @property
    def writable(self):
        return self.ready and not self.standby

    def _later(self, delay_s, action, *arguments):
        self.world.schedule.after(delay_s, self._run, action, arguments)

    def _run(self, action, arguments):
        if not self.alive:
            return
        if self.world.now_s < self.host.postgres_stands_until_s:
            self.world.at_latest(self.host.postgres_stands_until_s, self._run, action, arguments)
        else:
            action(*arguments)

    def _become_ready(self):
        self.wal.flushed = self.replayed = len(self.wal.records)
        self.world.woken(self.host)
        if self.standby:
            self._connect()
        else:
            self.recovered = len(self.wal.records)
            self.world.checks.writable(self)

    # -- clients -----------------------------------------------------------------------------------------

    def write(self, commit):
        if not self.answers or self.standby or not self.conf.admits:
            commit.end("refused")
            return
        commit.record = self._append(commit.value)
        commit.count = len(self.wal.records)
        self.commits.append(commit)

    def _append(self, value=None):
        record = Record(self.wal.timeline, value)
        self.wal.records.append(record)
        self._flush()
        return record

    def cancel(self, commit):
        """The client cancels its wait: COMMIT with a warning."""
        if self.answers and commit in self.waiting:
            self.waiting.remove(commit)
            commit.end("local")

    def _flush(self):
        if not self.flushing and self.wal.flushed < len(self.wal.records):
            self.flushing = True
            self._later(self.host.flush_s(), self._flushed, len(self.wal.records))

    def _flushed(self, count):
        hangs_s = self.host.disk_stands_until_s - self.world.now_s
        if hangs_s > 0:
            self._later(hangs_s, self._flushed, count)
            return
        answered = self.directory.consistent
        self.flushing = False
        self.wal.flushed = self.replayed = max(self.wal.flushed, min(count, len(self.wal.records)))
        if self.directory.consistent and not answered:
            self.world.count("consistent later")
            self.world.woken(self.host)
        for link in self.links:
            self._send(link)
        if self.receiver is not None:
            self._reply(self.receiver)
        flushed = [commit for commit in self.commits if commit.count <= self.wal.flushed]
        self.commits = [commit for commit in self.commits if commit.count > self.wal.flushed]
        for commit in flushed:
            self._wait_for_standbys(commit)
        self._flush()

    def _wait_for_standbys(self, commit):
        if not self.flag or self.released >= commit.count:
            self._acknowledge(commit)
        else:
            self.waiting.append(commit)

    def _acknowledge(self, commit):
        self.world.checks.acknowledged(self, commit)
        commit.end("acknowledged")

    # -- settings ----------------------------------------------------------------------------------------

    def reload(self):
        """SIGHUP to the postmaster, which hands it on; each process reads the files when it comes to it."""
        self._later(self.world.random.uniform(0.001, 0.02), self._reload)

    def _reload(self):
        self.conf = self.directory.conf
        for link in self.links:
            self._later(self._reading_s(), self._reload_sender, link)
        self._later(self._reading_s(), self._reload_checkpointer)
        self._later(self.world.random.uniform(0.0, 0.05), self._reload_session)
        if self.standby:
            self._later(self.world.random.choice((0.001, 0.01, 0.3)), self._reload_startup)

    def _reading_s(self):
        return self.world.random.choice((0.001, 0.005, 0.02, 0.5, 3.0)) * self.world.random.random()

    def _reload_sender(self, link):
        if link.open_at_source:
            link.conf = self.directory.conf
            self._release(link)

    def _reload_checkpointer(self):
        self.flag = self.directory.conf.waits
        if not self.flag:
            waiting, self.waiting = self.waiting, []
            for commit in waiting:
                self._acknowledge(commit)

    def _reload_session(self):
        self.session_conf = self.directory.conf
        self.world.woken(self.host)

    def _reload_startup(self):
        if not self.standby:
            return
        upstream = self.directory.conf.upstream
        if upstream != self.upstream:
            self.upstream = upstream
            self.silent_since_s = self.world.now_s
            self._end_receiver()
            self._connect()

    # -- replication -------------------------------------------------------------------------------------

    def _connect(self):
        if not self.standby or self.receiver is not None or not self.upstream:
            return
        source = self.world.hosts[self.upstream].server
        if self.ready and self._can_stream(source):
            link = Link(source, self, source.conf, len(self.wal.records), self.wal.flushed)
            link.last_s = self.world.now_s
            self.receiver = link
            source.links.append(link)
            source._send(link)
            self._later(0.2, self._keep_alive, link)
            self.world.woken(self.host)
        else:
            self._later(RETRY_S, self._connect)

    def _can_stream(self, source):
        if source is None or not source.answers or not self.world.reach(self.host.name, source.host.name):
            return False
        if any(link.member == self.host.name for link in source.links):
            return False  # the slot is active for another process
        mine, theirs, count = self.wal.timeline, source.wal.timeline, len(self.wal.records)
        if mine > theirs or not all(n in source.wal.files for n in range(mine + 1, theirs + 1)):
            return False
        left = source.sendable if mine == theirs else source.wal.left_at(mine)
        if left is None or count > left or (count < left and source.lacks_a_file(mine)):
            return False
        self.wal.take_history(source.wal)
        if mine != theirs and not self._goes_over_to(theirs):
            return False
        self.world.checks.streams(self, source)
        return True

    def _goes_over_to(self, timeline):
        """rescanLatestTimeLine: the newest history there is has to go on from what was recovered to before."""
        newest = max([self.target, *self.wal.parents])
        if self.target not in self.wal.line(newest):
            self.world.count("stuck on a dead timeline")
            return False
        self.target = newest
        return timeline in self.wal.line(newest)

    def lacks_a_file(self, timeline):
        """A walsender reads the last segment of a timeline in the file of the next one, which is to have some WAL."""
        line = self.wal.line(self.wal.timeline)
        following = line[: max(0, line.index(timeline))]
        ends = [self.wal.parents[child][1] for child in reversed(following)]
        missing = len(ends) > 1 and ends[1] <= ends[0]
        if missing:
            self.world.count("asked for a file that nobody wrote")
        return missing

    @property
    def sendable(self):
        return self.replayed if self.standby else self.wal.flushed

    def _send(self, link):
        count = self.sendable
        if link.open_at_source and not link.sending and count > link.sent:
            batch, link.sent, link.sending = self.wal.records[link.sent : count], count, True
            link.last_s = max(link.last_s, self.world.now_s + self.host.latency_s())
            self.world.schedule.at(link.last_s, self._arrive, link, batch)
        elif count == link.sent:
            link.streaming = True

    def _arrive(self, link, batch):
        target = link.target
        if not link.open_at_target or not target.alive:
            return
        late_s = target.host.postgres_stands_until_s - self.world.now_s
        if self.world.network.is_cut(self.host.name, target.host.name):
            late_s = 0.1
        if late_s > 0:
            self.world.schedule.after(late_s, self._arrive, link, batch)
            return
        if batch[-1].timeline > target.wal.timeline:
            target.wal.take_history(self.wal)
            target.target = max([target.target, *target.wal.parents])
        target.wal.records.extend(batch)
        link.sending = False
        target._flush()
        if self.alive:
            self._send(link)

    def _reply(self, link):
        if link.open_at_target and not link.replying and self.wal.flushed > link.flushed:
            link.replying = True
            self._later(self.host.latency_s(), self._told, link, self.wal.flushed)

    def _told(self, link, flushed):
        if self.world.network.is_cut(self.host.name, link.source.host.name):
            self._later(0.1, self._told, link, flushed)
            return
        link.replying = False
        link.source._run(link.source._hear, (link, flushed))
        self._reply(link)

    def _hear(self, link, flushed):
        if link.open_at_source:
            link.flushed = max(flushed, link.flushed)
            self._release(link)
            self._send(link)

    def _release(self, link):
        """SyncRepReleaseWaiters of one walsender: by its own k; who counts is as each walsender has it."""
        k, _, by_priority = link.conf.standbys
        counted = [other for other in self.links if other.priority and other.streaming]
        if by_priority:
            counted = sorted(counted, key=lambda other: other.priority)[:k]
        if not k or len(counted) < k or link not in counted:
            return
        self.released = max(self.released, sorted((other.flushed for other in counted), reverse=True)[k - 1])
        free = [commit for commit in self.waiting if commit.count <= self.released]
        self.waiting = [commit for commit in self.waiting if commit.count > self.released]
        for commit in free:
            self._acknowledge(commit)

    def _keep_alive(self, link):
        if not link.open_at_target:
            return
        other = link.source
        reached = self.world.reach(self.host.name, other.host.name) and not other.host.off
        link.stalled_s = 0.0 if reached else link.stalled_s + 0.2
        if link.stalled_s > LINK_LIMIT_S or (reached and not link.open_at_source):
            self._end_receiver()
            self._later(RETRY_S, self._connect)
        else:
            self._later(0.2, self._keep_alive, link)

    def _end_receiver(self):
        """The walsender hears of it, or, behind a cut or without its peer, when its time is up."""
        link, self.receiver = self.receiver, None
        if link is not None:
            link.open_at_target = False
            self.world.schedule.after(0.02, _end_sender, link, 0.0)
            self.world.woken(self.host)

    def end_senders(self, member):
        for link in [link for link in self.links if link.member == member]:
            self._end_link(link)

    def _end_link(self, link):
        link.open_at_source = False
        self.links.remove(link)
        self.world.woken(self.host)

    # -- what the node orders ----------------------------------------------------------------------------

    def look(self):
        if not self.answers:
            return None
        conf, wal = self.session_conf, self.wal
        end = wal.end_lsn if self.standby else lsn_of(wal.flushed)
        source = self.receiver
        files = self.directory.conf.upstream if self.standby else ""
        if source is not None or not files:
            self.silent_since_s = self.world.now_s
        return InstanceSeen(
            in_recovery=self.standby,
            timeline=wal.timeline,
            lsn=end,
            received_lsn=end if self.standby else 0,
            replayed_lsn=lsn_of(self.replayed) if self.standby else 0,
            receiver_running=source is not None,
            upstream=self.world.address(conf.upstream) if conf.upstream and files else "",
            checkpoint_timeline=self.directory.control_timeline,
            slots=self.world.slots,
            streaming=source is not None,
            replay_waits=self.replayed == len(wal.records),
            senders=tuple(SenderSeen(link.member, lsn_of(link.flushed), link.streaming) for link in self.links),
            sync_version=conf.version,
            admits=conf.admits,
            silent_s=self.world.now_s - self.silent_since_s if self.standby else 0.0,
            histories=frozenset(n for n in wal.parents if n > wal.timeline) if self.standby else frozenset(),
        )

    def _must_answer(self):
        if not self.answers:
            raise PostgresError("psql", None, ["no answer"])

    def shown_sync_version(self):
        self._must_answer()
        return self.conf.version

    def mark_wal(self):
        """Flushed on return, or an error; nobody is waited for."""
        self._must_answer()
        if self.standby or self.host.disk_stands_until_s > self.world.now_s:
            raise PostgresError("psql", None, ["no answer in time"])
        self._append()
        self._flushed(len(self.wal.records))
        return self.wal.end_lsn

    def checkpoint(self, *, twice):
        self._must_answer()
        if self.checkpoint_running:
            return False
        self.checkpoint_running = True
        self._later(self.world.random.choice((0.05, 0.3)), self._checkpoint, twice)
        return True

    def _checkpoint(self, again):
        """The checkpointer may work off a request before a reload that came with it, and never the next one."""
        if self.host.disk_stands_until_s > self.world.now_s:
            self._later(self.host.disk_stands_until_s - self.world.now_s, self._checkpoint, again)
            return
        if again:
            self._later(0.05, self._checkpoint_after_reload)
            return
        if self.world.random.random() < 0.5:
            self._reload_checkpointer()
        self._end_checkpoint()

    def _checkpoint_after_reload(self):
        self._reload_checkpointer()
        self._end_checkpoint()

    def _end_checkpoint(self):
        self.checkpoint_running = False
        self.directory.checkpoint()
        self.world.woken(self.host)

    def promote(self):
        self._must_answer()
        self._later(self.world.random.choice((0.02, 0.1, 0.6)), self._promote)

    def _promote(self):
        if not self.standby or self.stopping:
            return
        self._end_receiver()
        wal = self.wal
        parent = max(self.target, wal.timeline)
        timeline = parent + 1
        while timeline in wal.files:
            timeline += 1
        self.standby = False
        wal.parents[timeline] = (parent, len(wal.records))
        wal.files.add(timeline)
        wal.records.append(Record(timeline))
        wal.flushed = self.replayed = self.recovered = len(wal.records)
        self.released = 0
        self.directory.was_primary, self.directory.standby_signal, self.directory.needs = True, False, None
        self.world.checks.promoted(self, timeline)
        self.world.woken(self.host)
        for link in self.links:
            self._send(link)

    def stop_fast(self):
        """Sessions end at once; a primary sends everything, its shutdown checkpoint too, to whoever listens."""
        if not self.stopping:
            self.stopping = True
            self._end_sessions()
            self._later(self.world.random.choice((0.02, 0.2)), self._shut_down, self.world.now_s + LINK_LIMIT_S, None)

    def _shut_down(self, limit_s, count):
        if not self.standby and count is None:
            self._append()
            count = len(self.wal.records)
        behind = not self.standby and any(link.flushed < count for link in self.links)
        unflushed = self.wal.flushed < len(self.wal.records)
        if unflushed or (behind and self.world.now_s < limit_s):
            self._later(0.02, self._shut_down, limit_s, count)
            return
        self.directory.checkpoint()
        self.end(clean=True)

    def stop_now(self, longest_s):
        self._later(self.world.random.uniform(0, longest_s), self.end)

    def _end_sessions(self):
        for commit in [*self.commits, *self.waiting]:
            commit.end("unknown")
        self.commits, self.waiting = [], []

    def end(self, *, clean=False):
        """However it ends: what was not flushed may be gone."""
        if not self.alive:
            return
        self._end_sessions()
        self.alive = False
        self.directory.shut_down = clean
        if not clean:
            self.wal.lose(self.world.random.randint(self.wal.flushed, len(self.wal.records)))
        if self.receiver is not None:
            self._end_receiver()
        for link in list(self.links):
            self._end_link(link)
        self.world.server_ended(self)


def _end_sender(link, waited_s):
    """At the source, of a link whose receiver is gone."""
    source = link.source
    if not source.alive or not link.open_at_source:
        return
    if source.world.reach(link.target.host.name, source.host.name) or waited_s > LINK_LIMIT_S:
        source._run(_drop, (link,))
    else:
        source.world.schedule.after(0.2, _end_sender, link, waited_s + 0.2)


def _drop(link):
    if link.open_at_source:
        link.source._end_link(link)
