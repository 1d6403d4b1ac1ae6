"""What is said of disks and of a stuck postmaster: in `problems` and in `/metrics`."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.api.metrics import metrics
from appliance.api.present import Present
from appliance.api.verdict import findings
from appliance.ha.seen import PlaceSeen, ReportSeen, StorageSeen
from appliance.ha.storage import hung_after_s

from .building import TAKEN_S, instance, published, report, seen

MIB = 1 << 20
TOTAL = 100 * 1024 * MIB
GOOD = StorageSeen(PlaceSeen(free_bytes=TOTAL // 2, total_bytes=TOTAL))
HUNG_S = hung_after_s(published().policy)


def disk(free_mib, **changes):
    return StorageSeen(PlaceSeen(free_bytes=free_mib * MIB, total_bytes=TOTAL), **changes)


def stalled(seconds, **changes):
    return StorageSeen(PlaceSeen(stalled_s=seconds, free_bytes=TOTAL // 2, total_bytes=TOTAL), **changes)


def found(name, storage, successors=frozenset({"pg2"})):
    """By pg1, the primary, of itself or of a standby."""
    value = published()
    own = replace(value.report, storage=storage if name == "pg1" else GOOD)
    reports = {**value.reports, name: ReportSeen(report(name, primary=name == "pg1", storage=storage), 0.2)}
    value = replace(seen(value, storage=own.storage, successors=successors), report=own, reports=reports)
    (said,) = findings(Present.at(value, TAKEN_S))
    assert said.member == name
    return said


@pytest.mark.parametrize(
    ("name", "storage", "code", "severity"),
    [
        ("pg1", disk(5119), "storage.filling", "degraded"),
        ("pg2", disk(5119), "storage.filling", "degraded"),
        ("pg1", disk(1023), "storage.full", "critical"),
        ("pg2", disk(1023), "storage.full", "degraded"),
        ("pg1", stalled(2.1), "storage.stalled", "degraded"),
        ("pg1", stalled(HUNG_S + 0.1), "storage.stalled", "critical"),
        ("pg2", stalled(HUNG_S + 0.1), "storage.stalled", "degraded"),
        ("pg1", disk(50000, door_stalled_s=2.1), "postmaster.stalled", "degraded"),
    ],
)
def test_codes_and_severities(name, storage, code, severity):
    said = found(name, storage)

    assert (said.code, said.severity) == (code, severity)


def test_a_message_has_the_numbers():
    assert found("pg1", disk(1000)).message == (
        "pg1: the data directory has 1000 of 102400 MiB free, writes are refused below 1024 MiB"
    )
    assert "for 2.1 s" in found("pg2", stalled(2.1)).message


def test_a_primary_that_nobody_could_replace_says_so():
    assert "after 12 s it gives its lease up" in found("pg1", stalled(3.0)).hint
    assert "nobody else could take over" in found("pg1", stalled(3.0), frozenset()).hint


def test_a_stuck_postmaster_is_no_fault_of_the_disk():
    assert "kernel's log" in found("pg1", stalled(3.0)).hint
    assert "postmaster" in found("pg1", disk(50000, door_stalled_s=3.0)).hint


@pytest.mark.parametrize("storage", [None, GOOD, StorageSeen(PlaceSeen()), stalled(2.0), disk(5120)])
def test_what_is_well_or_not_known_is_no_problem(storage):
    value = published()
    value = replace(value, report=replace(value.report, storage=storage))

    assert findings(Present.at(value, TAKEN_S)) == ()


def samples(value):
    page = text_string_to_metric_families(metrics(value, TAKEN_S))
    return {(s.name, s.labels.get("directory")): s.value for f in page for s in f.samples}


def test_metrics():
    storage = StorageSeen(PlaceSeen(1.5, "", 10, 100), PlaceSeen(0.0, "", 20, 200), door_stalled_s=0.25)
    refusing = replace(instance(primary=True), refuses_writes=True)
    said = samples(seen(published(), storage=storage, instance=refusing))

    assert said["appliance_storage_free_bytes", "data"] == 10
    assert said["appliance_storage_free_bytes", "wal"] == 20
    assert said["appliance_storage_size_bytes", "wal"] == 200
    assert said["appliance_storage_stalled_seconds", "data"] == 1.5
    assert said["appliance_postmaster_stalled_seconds", None] == 0.25
    assert said["appliance_writes_refused", None] == 1


def test_what_is_not_known_is_left_out():
    said = samples(published())

    assert not [name for name, _ in said if name.startswith(("appliance_storage", "appliance_postmaster"))]
    assert said["appliance_writes_refused", None] == 0
