"""What a running PostgreSQL says about itself: the one statement of a look, and its answer as frozen values."""

import json
from dataclasses import dataclass
from typing import Any

from appliance.cluster.lsn import parse_lsn
from appliance.postgres.settings import ADMITS, SYNC_NAMES, SYNC_VERSION

SHOWN_SYNC_VERSION = f"""
CASE WHEN current_setting('{SYNC_NAMES}', true) = current_setting('synchronous_standby_names')
  THEN current_setting('{SYNC_VERSION}', true) END
"""
"""Null: never set; or the names are others than those written with it, be it by ALTER SYSTEM or because PostgreSQL
refused them: a reload with one bad value takes all the others, the version too."""

LOOK = f"""
SELECT row_to_json(seen) FROM (
  SELECT
    r.in_recovery,
    CASE WHEN NOT r.in_recovery THEN pg_walfile_name(pg_current_wal_lsn()) END AS wal_file,
    CASE WHEN NOT r.in_recovery THEN pg_current_wal_flush_lsn() END AS flushed_lsn,
    CASE WHEN r.in_recovery THEN pg_last_wal_receive_lsn() END AS received_lsn,
    CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn() END AS replayed_lsn,
    CASE WHEN r.in_recovery THEN extract(epoch FROM pg_last_xact_replay_timestamp()) END AS replay_timestamp,
    CASE WHEN r.in_recovery THEN pg_get_wal_replay_pause_state() END AS replay_pause,
    extract(epoch FROM pg_postmaster_start_time()) AS postmaster_start_time,
    CASE WHEN r.in_recovery
      THEN (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup') END AS replay_waits_for,
    current_setting('primary_conninfo') AS primary_conninfo,
    {SHOWN_SYNC_VERSION} AS sync_version,
    current_setting('appliance.refuses_writes', true) AS refuses_writes,
    current_setting('{ADMITS}', true) AS admits,
    c.timeline_id AS checkpoint_timeline,
    v.min_recovery_end_timeline AS recovery_timeline,
    (SELECT row_to_json(receiver) FROM (SELECT status, received_tli FROM pg_stat_wal_receiver) AS receiver) AS receiver,
    (SELECT json_agg(sender) FROM (
      SELECT usename, application_name, client_addr, state, sync_state, sync_priority, flush_lsn
      FROM pg_stat_replication WHERE pid <> pg_backend_pid()
    ) AS sender) AS walsenders,
    (SELECT json_agg(slot) FROM (
      SELECT slot_name, slot_type, active, wal_status FROM pg_replication_slots
    ) AS slot) AS slots,
    pg_conf_load_time()::text AS conf_load_time,
    CASE WHEN pg_conf_load_time()::text IS DISTINCT FROM $1
      THEN (SELECT json_agg(name) FROM pg_settings WHERE pending_restart) END AS pending_restart
  FROM (SELECT pg_is_in_recovery() AS in_recovery) AS r,
    pg_control_checkpoint() AS c, pg_control_recovery() AS v
) AS seen
"""  # noqa: S608
"""$1: the time of the configuration whose pending restarts are known. pg_settings costs more than all the rest."""


UNKNOWN_SYNC_VERSION = -1

_WAITS_FOR_WAL = {"RecoveryWalStream", "RecoveryRetrieveRetryInterval"}
"""https://www.postgresql.org/docs/current/monitoring-stats.html: for a receiver to bring some, or to look again"""


@dataclass(frozen=True, slots=True)
class WalSender:
    user: str
    application_name: str
    client_addr: str
    """empty: over the unix socket"""
    state: str
    sync_state: str
    sync_priority: int
    flushed_lsn: int
    """what its standby has said that it has on disk; 0: it has said nothing yet"""


@dataclass(frozen=True, slots=True)
class Slot:
    name: str
    physical: bool
    active: bool
    wal_status: str
    """reserved, extended, unreserved, lost; empty: reserves nothing"""


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    in_recovery: bool
    timeline: int
    """primary: the one it writes; standby: the newest that its receiver or control file knows of"""
    flushed_lsn: int | None
    """of a primary"""
    received_lsn: int | None
    """of a standby; stays after the receiver has ended, None when there was none since the start"""
    replayed_lsn: int | None
    """of a standby"""
    replay_timestamp: float | None
    """of the last replayed commit, the primary's clock in seconds since 1970"""
    replay_paused: bool
    replay_waits: bool
    """the startup process waits for WAL that is not on this disk (R6, T2): everything local is replayed"""
    receiver: str | None
    """the status of the WAL receiver: streaming, or what it does instead; None when there is none"""
    walsenders: tuple[WalSender, ...]
    slots: tuple[Slot, ...]
    server_version: int
    """as 150018"""
    postmaster_start_time: float
    """seconds since 1970"""
    pending_restart: tuple[str, ...]
    """parameters whose new value waits for a restart"""
    primary_conninfo: str
    sync_version: int
    """of the synchronous set that it has loaded; UNKNOWN_SYNC_VERSION: none that the appliance wrote"""
    checkpoint_timeline: int
    """of the last checkpoint; pg_rewind from here needs it to be `timeline` (R15)"""
    refuses_writes: bool = False
    """`appliance.refuses_writes` as it is loaded"""
    admits: bool = True
    """`appliance.admits` as it is loaded; one that was started without it knows no gate"""

    @property
    def position_lsn(self) -> int:
        """How far it has WAL: flushed on a primary, the later of received and replayed on a standby."""
        return max(lsn or 0 for lsn in (self.flushed_lsn, self.received_lsn, self.replayed_lsn))

    @property
    def streaming(self) -> bool:
        return self.receiver == "streaming"


@dataclass(frozen=True, slots=True)
class Known:
    """What one look leaves for the next."""

    conf_load_time: str | None = None
    pending_restart: tuple[str, ...] = ()


def read_answer(answer: str, known: Known, server_version: int) -> tuple[InstanceSeen, Known]:
    """The answer to LOOK that was asked with `known.conf_load_time`."""
    said: dict[str, Any] = json.loads(answer)
    receiver = said["receiver"]
    if said["conf_load_time"] != known.conf_load_time:
        known = Known(said["conf_load_time"], tuple(sorted(said["pending_restart"] or ())))
    seen = InstanceSeen(
        in_recovery=said["in_recovery"],
        timeline=_timeline(said),
        flushed_lsn=_lsn(said["flushed_lsn"]),
        received_lsn=_lsn(said["received_lsn"]),
        replayed_lsn=_lsn(said["replayed_lsn"]),
        replay_timestamp=said["replay_timestamp"],
        replay_waits=said["replay_waits_for"] in _WAITS_FOR_WAL,
        replay_paused=said["replay_pause"] not in {None, "not paused"},
        receiver=(receiver["status"] or "") if receiver else None,
        walsenders=tuple(_walsender(sender) for sender in said["walsenders"] or ()),
        slots=tuple(_slot(slot) for slot in said["slots"] or ()),
        server_version=server_version,
        postmaster_start_time=said["postmaster_start_time"],
        pending_restart=known.pending_restart,
        primary_conninfo=said["primary_conninfo"],
        sync_version=read_sync_version(said["sync_version"]),
        refuses_writes=said.get("refuses_writes") == "on",
        admits=said.get("admits") != "off",
        checkpoint_timeline=said["checkpoint_timeline"],
    )
    return seen, known


def read_sync_version(shown: str | None) -> int:
    """The answer to SHOWN_SYNC_VERSION; a role or a database may have been given a setting of that name."""
    return int(shown) if shown is not None and shown.isdecimal() else UNKNOWN_SYNC_VERSION


def _timeline(said: dict[str, Any]) -> int:
    if said["wal_file"]:
        return int(said["wal_file"][:8], 16)
    received: int = (said["receiver"] or {}).get("received_tli") or 0
    known: int = max(said["recovery_timeline"] or 0, said["checkpoint_timeline"])
    return max(received, known)


def _walsender(said: dict[str, Any]) -> WalSender:
    return WalSender(
        user=said["usename"] or "",
        application_name=said["application_name"] or "",
        client_addr=said["client_addr"] or "",
        state=said["state"] or "",
        sync_state=said["sync_state"] or "",
        sync_priority=said["sync_priority"] or 0,
        flushed_lsn=_lsn(said["flush_lsn"]) or 0,
    )


def _slot(said: dict[str, Any]) -> Slot:
    return Slot(
        name=said["slot_name"],
        physical=said["slot_type"] == "physical",
        active=said["active"],
        wal_status=said["wal_status"] or "",
    )


def _lsn(text: str | None) -> int | None:
    return None if text is None else parse_lsn(text)
