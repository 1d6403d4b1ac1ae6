"""What a running PostgreSQL says about itself: the one statement of a look, and its answer as frozen values."""

import json
from dataclasses import dataclass
from typing import Any

from appliance.cluster.lsn import parse_lsn

LOOK = """
SELECT row_to_json(seen) FROM (
  SELECT
    r.in_recovery,
    CASE WHEN NOT r.in_recovery THEN pg_walfile_name(pg_current_wal_lsn()) END AS wal_file,
    CASE WHEN NOT r.in_recovery THEN pg_current_wal_flush_lsn() END AS flushed_lsn,
    CASE WHEN NOT r.in_recovery THEN pg_current_wal_insert_lsn() END AS insert_lsn,
    CASE WHEN r.in_recovery THEN pg_last_wal_receive_lsn() END AS received_lsn,
    CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn() END AS replayed_lsn,
    CASE WHEN r.in_recovery THEN extract(epoch FROM pg_last_xact_replay_timestamp()) END AS replay_timestamp,
    CASE WHEN r.in_recovery THEN pg_get_wal_replay_pause_state() END AS replay_pause,
    extract(epoch FROM pg_postmaster_start_time()) AS postmaster_start_time,
    CASE WHEN r.in_recovery
      THEN (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup') END AS replay_waits_for,
    current_setting('primary_conninfo') AS primary_conninfo,
    current_setting('primary_slot_name') AS primary_slot_name,
    current_setting('synchronous_standby_names') AS synchronous_standby_names,
    c.timeline_id AS checkpoint_timeline,
    v.min_recovery_end_timeline AS recovery_timeline,
    s.system_identifier::text,
    (SELECT row_to_json(receiver) FROM (
      SELECT status, sender_host, sender_port, slot_name, received_tli, latest_end_lsn FROM pg_stat_wal_receiver
    ) AS receiver) AS receiver,
    (SELECT json_agg(sender) FROM (
      SELECT usename, application_name, client_addr, state, sent_lsn, write_lsn, flush_lsn, replay_lsn, sync_state,
        sync_priority, extract(epoch FROM clock_timestamp() - reply_time) AS reply_age_s
      FROM pg_stat_replication
    ) AS sender) AS walsenders,
    (SELECT json_agg(slot) FROM (
      SELECT slot_name, slot_type, active, restart_lsn, wal_status FROM pg_replication_slots
    ) AS slot) AS slots,
    pg_conf_load_time()::text AS conf_load_time,
    CASE WHEN pg_conf_load_time()::text IS DISTINCT FROM $1
      THEN (SELECT json_agg(name) FROM pg_settings WHERE pending_restart) END AS pending_restart
  FROM (SELECT pg_is_in_recovery() AS in_recovery) AS r,
    pg_control_checkpoint() AS c, pg_control_recovery() AS v, pg_control_system() AS s
) AS seen
"""
"""$1: the time of the configuration whose pending restarts are known. pg_settings costs more than all the rest."""


_WAITS_FOR_WAL = {"RecoveryWalStream", "RecoveryRetrieveRetryInterval"}
"""https://www.postgresql.org/docs/current/monitoring-stats.html: for a receiver to bring some, or to look again"""


@dataclass(frozen=True, slots=True)
class Receiver:
    status: str
    """streaming, or what it does instead"""
    sender_host: str
    sender_port: int
    slot: str
    latest_end_lsn: int | None


@dataclass(frozen=True, slots=True)
class WalSender:
    user: str
    application_name: str
    client_addr: str
    """empty: over the unix socket"""
    state: str
    sent_lsn: int | None
    write_lsn: int | None
    flush_lsn: int | None
    replay_lsn: int | None
    sync_state: str
    sync_priority: int
    reply_age_s: float | None
    """since the standby sent its last reply, by two hosts' clocks: to be shown, not decided on"""


@dataclass(frozen=True, slots=True)
class Slot:
    name: str
    physical: bool
    active: bool
    restart_lsn: int | None
    wal_status: str
    """reserved, extended, unreserved, lost; empty: reserves nothing"""


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    in_recovery: bool
    timeline: int
    """primary: the one it writes; standby: the newest that its receiver or control file knows of"""
    flushed_lsn: int | None
    """of a primary"""
    insert_lsn: int | None
    """of a primary"""
    received_lsn: int | None
    """of a standby; stays after the receiver has ended, None when there was none since the start"""
    received_timeline: int | None
    replayed_lsn: int | None
    """of a standby"""
    replay_timestamp: float | None
    """of the last replayed commit, the primary's clock in seconds since 1970"""
    replay_paused: bool
    replay_waits: bool
    """the startup process waits for WAL that is not on this disk (R6, T2): everything local is replayed"""
    receiver: Receiver | None
    walsenders: tuple[WalSender, ...]
    slots: tuple[Slot, ...]
    system_identifier: str
    server_version: int
    """as 150018"""
    postmaster_start_time: float
    """seconds since 1970"""
    pending_restart: tuple[str, ...]
    """parameters whose new value waits for a restart"""
    primary_conninfo: str
    primary_slot_name: str
    synchronous_standby_names: str
    """as this session shows it; that commits obey it already is more (R8)"""
    checkpoint_timeline: int
    """of the last checkpoint; pg_rewind from here needs it to be `timeline` (R15)"""

    @property
    def position_lsn(self) -> int:
        """How far it has WAL: flushed on a primary, the later of received and replayed on a standby."""
        return max(lsn or 0 for lsn in (self.flushed_lsn, self.received_lsn, self.replayed_lsn))

    @property
    def streaming(self) -> bool:
        return self.receiver is not None and self.receiver.status == "streaming"


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
        insert_lsn=_lsn(said["insert_lsn"]),
        received_lsn=_lsn(said["received_lsn"]),
        received_timeline=receiver["received_tli"] if receiver else None,
        replayed_lsn=_lsn(said["replayed_lsn"]),
        replay_timestamp=said["replay_timestamp"],
        replay_waits=said["replay_waits_for"] in _WAITS_FOR_WAL,
        replay_paused=said["replay_pause"] not in {None, "not paused"},
        receiver=_receiver(receiver) if receiver else None,
        walsenders=tuple(_walsender(sender) for sender in said["walsenders"] or ()),
        slots=tuple(_slot(slot) for slot in said["slots"] or ()),
        system_identifier=said["system_identifier"],
        server_version=server_version,
        postmaster_start_time=said["postmaster_start_time"],
        pending_restart=known.pending_restart,
        primary_conninfo=said["primary_conninfo"],
        primary_slot_name=said["primary_slot_name"],
        synchronous_standby_names=said["synchronous_standby_names"],
        checkpoint_timeline=said["checkpoint_timeline"],
    )
    return seen, known


def _timeline(said: dict[str, Any]) -> int:
    if said["wal_file"]:
        return int(said["wal_file"][:8], 16)
    received: int = (said["receiver"] or {}).get("received_tli") or 0
    known: int = max(said["recovery_timeline"] or 0, said["checkpoint_timeline"])
    return max(received, known)


def _receiver(said: dict[str, Any]) -> Receiver:
    return Receiver(
        status=said["status"] or "",
        sender_host=said["sender_host"] or "",
        sender_port=said["sender_port"] or 0,
        slot=said["slot_name"] or "",
        latest_end_lsn=_lsn(said["latest_end_lsn"]),
    )


def _walsender(said: dict[str, Any]) -> WalSender:
    return WalSender(
        user=said["usename"] or "",
        application_name=said["application_name"] or "",
        client_addr=said["client_addr"] or "",
        state=said["state"] or "",
        sent_lsn=_lsn(said["sent_lsn"]),
        write_lsn=_lsn(said["write_lsn"]),
        flush_lsn=_lsn(said["flush_lsn"]),
        replay_lsn=_lsn(said["replay_lsn"]),
        sync_state=said["sync_state"] or "",
        sync_priority=said["sync_priority"] or 0,
        reply_age_s=said["reply_age_s"],
    )


def _slot(said: dict[str, Any]) -> Slot:
    return Slot(
        name=said["slot_name"],
        physical=said["slot_type"] == "physical",
        active=said["active"],
        restart_lsn=_lsn(said["restart_lsn"]),
        wal_status=said["wal_status"] or "",
    )


def _lsn(text: str | None) -> int | None:
    return None if text is None else parse_lsn(text)
