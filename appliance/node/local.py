"""This node's PostgreSQL: the one place where the node's file, the agreed configuration and the tools come together.

Every method begins something and returns; whether it worked is seen at the next look.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from appliance.cluster.config import Policy
from appliance.cluster.names import slot_name
from appliance.cluster.state import ClusterState, NodeRole, SyncSet
from appliance.ha.storage import Room
from appliance.ha.sync import NOT_APPOINTED, to_load, waits_for
from appliance.node.clock import wall_s
from appliance.node.config import NodeConfig
from appliance.node.config_values import split_address
from appliance.node.guard_client import Deadline, GuardClient
from appliance.node.guard_system import look_at
from appliance.node.notes import new_incarnation
from appliance.postgres.auto_conf import clean_auto_conf
from appliance.postgres.binaries import Binaries
from appliance.postgres.certificate import Certificate
from appliance.postgres.conninfo import conninfo
from appliance.postgres.control import ControlData
from appliance.postgres.copies import replaced, settle
from appliance.postgres.credentials import REPLICATION_ROLE, REWIND_ROLE, Credentials, write_passfile
from appliance.postgres.directory import inspect, postmaster_pid, remove_stale_lock
from appliance.postgres.files import remove_durably, write_if_changed
from appliance.postgres.history import place_placeholders, remove_placeholders_above_real, settle_history
from appliance.postgres.jobs import Job
from appliance.postgres.monitor import Monitor
from appliance.postgres.settings import (
    CONTROLLED,
    NOBODY,
    Settings,
    effective,
    server_argv,
    server_environment,
    settings_differ,
    standby_names,
    write_settings,
    write_standby_signal,
)
from appliance.postgres.shadows import remove_shadows
from appliance.postgres.specs import Clone, Discard, InitdbOptions, Initialise, Rewind, Spec
from appliance.postgres.validate import check_values

STANDBY_SIGNAL = "standby.signal"


def _names(wanted: SyncSet | None) -> str:
    if wanted is None:
        return NOBODY
    return standby_names(wanted.k, wanted.order or sorted(wanted.members), by_priority=bool(wanted.order))


class LocalPostgres:
    """Used by the control loop only."""

    def __init__(self, config: NodeConfig, binaries: Binaries, guard: GuardClient, monitor: Monitor) -> None:
        self._config = config
        self._guard = guard
        self._job_directory = config.state_dir / "job"
        self._credentials_file = config.state_dir / "credentials.json"
        self._passfile = config.state_dir / "pgpass"
        self.binaries = binaries
        self.monitor = monitor
        self.data_dir = config.postgresql.data_dir
        self.log_file = config.state_dir / "postgres.log"
        self.log_begin = 0
        """its size before the last start of this process's life; 0: not known"""
        self._valid_parameters: Mapping[str, str] | None = None
        self._loaded: Settings | None = None
        """what PostgreSQL was last started or reloaded with in this process's life; None: not known"""
        self.room = Room()
        """set at each look: what the disk leaves to PostgreSQL"""
        self.admits = True
        """set at each look: whether applications are to be let in (R5a)"""
        self.job: Job | None = None
        self.credentials = Credentials.load(self._credentials_file)
        if self.credentials is not None:
            self.keep_credentials(self.credentials)

    def keep_credentials(self, credentials: Credentials) -> None:
        """Store them for later starts, and as the files that libpq and `appliance dsn` read; all 0600."""
        credentials.store(self._credentials_file)
        write_passfile(self._passfile, credentials)
        if credentials.application is not None:
            write_if_changed(self._config.application_password_file, credentials.application + "\n")
        self.credentials = credentials

    def settings(self, state: ClusterState, policy: Policy, upstream: str) -> Settings:
        """What the files should say; `upstream` is a member's name, or empty for no source."""
        section, sync = self._config.postgresql, to_load(state, self._config.name)
        in_recovery = (self.data_dir / STANDBY_SIGNAL).exists()
        return Settings(
            cluster_name=self._config.name,
            port=section.port,
            unix_socket_dir=section.socket_dir,
            listen=",".join(section.listen_hosts),
            parameters={**policy.parameters, **section.parameters},
            hba=policy.pg_hba,
            ident=policy.pg_ident,
            primary_conninfo=self._conninfo(state, upstream) if upstream else "",
            primary_slot_name=slot_name(self._config.name) if upstream else "",
            synchronous_standby_names=_names(waits_for(state, self._config.name, in_recovery=in_recovery)),
            sync_version=sync.version if sync is not None else NOT_APPOINTED,
            certificate=self.certificate(),
            slot_wal_mb=self.room.slot_wal_mb,
            refuses_writes=self.room.refuses_writes,
            admits=self.admits,
        )

    def certificate(self) -> Certificate | None:
        """As its files are now; None when nothing is encrypted."""
        tls = self._config.tls
        return Certificate.found(tls.ca, tls.cert, tls.key) if tls is not None else None

    def _conninfo(self, state: ClusterState, member: str, *, database: bool = False) -> str:
        host, port = split_address(state.members[member].postgres)
        return conninfo(
            host=host,
            port=port,
            user=REWIND_ROLE if database else REPLICATION_ROLE,
            passfile=self._passfile,
            dbname="postgres" if database else "",
            application_name=self._config.name,
            ca=self._config.tls.ca if self._config.tls is not None else None,
            major=self.binaries.major,
        )

    def settings_differ(self, state: ClusterState, policy: Policy, upstream: str) -> bool:
        """Also where the files are as they should be, but nobody knows whether PostgreSQL was told to read them."""
        settings = self.settings(state, policy, upstream)
        return settings != self._loaded or settings_differ(self.data_dir, settings, self._floor())

    @property
    def told_conninfo(self) -> str | None:
        """The source of WAL in what PostgreSQL was last started or reloaded with; None: not in this process's life."""
        return self._loaded.primary_conninfo if self._loaded is not None else None

    def apply_settings(self, state: ClusterState, policy: Policy, upstream: str) -> None:
        """Render and reload; what needs a restart shows as pending in PostgreSQL."""
        settings = self.settings(state, policy, upstream)
        if write_settings(self.data_dir, settings, self._floor()) or settings != self._loaded:
            self._guard.reload()
            self._loaded = settings
            if settings.certificate is not None:
                settings.certificate.check()  # last: it keeps nobody from following a new primary

    def _floor(self) -> ControlData | None:
        """A standby must not start with less than its primary had (shared memory for its transactions)."""
        directory = inspect(self.data_dir, self.binaries)
        return directory.control if directory.standby_signal else None

    def start_primary(self, state: ClusterState, policy: Policy, deadline: Deadline) -> None:
        """In place, on its present timeline. The guard holds the deadline before PostgreSQL runs (R4)."""
        remove_durably(self.data_dir / STANDBY_SIGNAL)
        self._start(self.settings(state, policy, ""), deadline, None)

    def start_standby(self, state: ClusterState, policy: Policy, upstream: str) -> None:
        """Placeholders of timelines that never came would keep it from becoming ready (R14)."""
        write_standby_signal(self.data_dir)
        remove_placeholders_above_real(self.data_dir / "pg_wal")
        self._start(replace(self.settings(state, policy, upstream), admits=True), None, self._floor())

    def _start(self, settings: Settings, deadline: Deadline | None, floor: ControlData | None) -> None:
        clean_auto_conf(self.data_dir, CONTROLLED | effective(settings, self.data_dir).keys())
        if settings.parameters != self._valid_parameters:
            check_values(self.binaries, self.data_dir, settings)
            self._valid_parameters = settings.parameters
        write_settings(self.data_dir, settings, floor)
        self._config.postgresql.socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._guard.clean(self.data_dir)
        remove_stale_lock(self.data_dir, settings.socket)
        remove_shadows(self.data_dir / "pg_wal")
        self.log_begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        self._guard.start_postgres(
            server_argv(self.binaries, self.data_dir, settings, floor),
            env=server_environment(),
            data_dir=self.data_dir,
            log_file=self.log_file,
            deadline=deadline,
        )
        self._loaded = settings

    def end_stray(self, pid: int) -> None:
        """Immediate shutdown of a postmaster that no guard holds; its crash recovery follows at the next start.

        One that is stopped does not hear of it, and what it forked may be stopped or not.
        """
        if postmaster_pid(self.data_dir) != pid:
            return
        os.kill(pid, signal.SIGQUIT)
        process = look_at(pid)
        if process is not None and process.state == "T":
            self._guard.clean(self.data_dir)

    def promote(self, own: int, assigned: int, deadline: Deadline) -> None:
        """R14: placeholders make PostgreSQL pick the assigned timeline; the guard is armed before it opens (R4)."""
        self._guard.set_deadline(deadline)
        place_placeholders(self.data_dir / "pg_wal", own, assigned)
        self.monitor.promote()

    def settle_history(self, timeline: int) -> bool:
        """Whether it had to be written (R14)."""
        return settle_history(self.data_dir / "pg_wal", timeline)

    def initialise(self, state: ClusterState, policy: Policy) -> None:
        """initdb with roles and a first start, as a job; the passwords are made here and stored first."""
        section = self._config.bootstrap.application
        if self.credentials is None or (section is not None and self.credentials.application is None):
            # Without a cluster nobody knows those of an earlier attempt, which may have been made for no application.
            self.keep_credentials(Credentials.generate(application=section is not None))
        assert self.credentials is not None
        initdb = self._config.initdb
        self._begin(
            Initialise(
                self.binaries,
                self.data_dir,
                self.credentials,
                application_role=section.user if section is not None else "",
                application_database=section.database if section is not None else "",
                wal_dir=self._config.postgresql.wal_dir,
                options=InitdbOptions(initdb.locale, initdb.encoding, initdb.wal_segsize),
                settings=replace(self.settings(state, policy, ""), refuses_writes=False),
                incarnation=new_incarnation(state.recovery.number),
            )
        )

    def clone(self, state: ClusterState, source: str) -> None:
        self._begin(
            Clone(
                self.binaries,
                self.data_dir,
                self._conninfo(state, source),
                self._conninfo(state, source, database=True),
                self._config.postgresql.wal_dir,
                slot_name(self._config.name),
                new_incarnation(state.recovery.number),
            )
        )

    def rewind(self, state: ClusterState, source: str, timeline: int) -> None:
        database = self._conninfo(state, source, database=True)
        self._begin(Rewind(self.binaries, self.data_dir, database, timeline, new_incarnation(state.recovery.number)))

    def replaced_kept_s(self) -> float | None:
        """Since a clone replaced a directory that is still kept; None when there is none (R12)."""
        try:
            return max(0.0, wall_s() - replaced(self.data_dir).stat().st_ctime)
        except OSError:
            return None

    def discard_replaced(self) -> None:
        self._begin(Discard(self.data_dir))

    def _begin(self, spec: Spec) -> None:
        self.job = Job.start(spec, self._job_directory)

    def settle(self) -> None:
        """End what an earlier node process's job left running, and finish an installation it was killed in (R12)."""
        Job.kill_leftovers(self._job_directory)
        settle(self.data_dir)

    def fileno_of_job(self) -> int | None:
        return self.job.fileno() if self.job is not None else None


def state_directories(config: NodeConfig) -> tuple[Path, ...]:
    """Directories that must exist, private to the run user, before anything starts."""
    directories = (config.state_dir, config.raft.dir, config.http.socket.parent)
    return directories if config.role is NodeRole.WITNESS else (*directories, config.postgresql.socket_dir)
