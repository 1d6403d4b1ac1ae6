"""The one door to PySyncObj: pinned to the byte, and nothing of its disk or wire is left in use."""

import os
import shutil
from pathlib import Path

import pysyncobj
import pytest
from pysyncobj.node import Node

from raft import compat
from raft.core import Core
from raft.messages import TYPES
from tests.unit.raft.bench import NAMES, Bench, Group, entry

SOURCES = Path(pysyncobj.__file__).parent


def test_the_installed_version_is_the_one_that_is_mended():
    compat.check_version()


def test_another_version_is_refused_with_what_to_do():
    remedy = r"raft/ mends 0\.3\.17 and no other: pip install --force-reinstall --no-deps pysyncobj==0\.3\.17"
    with pytest.raises(ImportError, match=remedy):
        compat.check_version("0.3.18")


@pytest.mark.parametrize("name", compat.PINNED_FILES)
def test_sources_that_somebody_has_changed_are_refused(tmp_path, name):
    for source in compat.PINNED_FILES:
        shutil.copy(SOURCES / source, tmp_path)
    compat.check_version(directory=tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(ImportError, match=f"{name} is not PySyncObj 0.3.17's"):
        compat.check_version(directory=tmp_path)


def test_a_private_name_that_is_gone_fails_at_import():
    with pytest.raises(AttributeError):
        compat.replaces(noSuchName="step")(Core)


def test_every_private_name_is_there():
    """A misspelled one would be made anew by its first writing, and mend nothing."""
    bench = Bench().found().lead()
    inside = bench.engine._core.inside
    for name, value in vars(compat.Internals).items():
        if isinstance(value, compat._Private):
            getattr(inside, name)
            assert value._name.removeprefix("_SyncObj__") in (SOURCES / "syncobj.py").read_text()


def test_what_is_replaced_is_what_runs():
    core = Bench().engine._core
    assert core._SyncObj__generateRaftTimeout() == 2.0**40
    assert core._SyncObj__tryLogCompaction.__func__ is Core._compact
    assert core._SyncObj__applyLogEntries.__func__ is Core._apply_committed


def test_it_sends_requests_for_votes_and_nothing_else_by_itself():
    asked = []
    transport = compat.TransportAdapter(asked.append)
    assert transport.send(Node("n2"), {"type": "request_vote"})
    assert asked == ["n2"]
    with pytest.raises(AssertionError, match="PySyncObj sends 'append_entries' by itself"):
        transport.send(Node("n2"), {"type": "append_entries"})


def test_nothing_that_it_would_unpickle_has_a_type_here():
    assert TYPES.keys().isdisjoint({"append_entries", "request_vote", "apply_command", "next_node_idx"})


def test_nothing_is_pickled_or_unpickled_while_a_group_lives(monkeypatch):
    def never(*_):
        raise AssertionError("pickle")

    for module in (pysyncobj.pickle, pysyncobj.syncobj.pickle):
        for name in ("loads", "dumps", "load", "dump"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, never)
    group = Group(*NAMES, compact_entries=5, keep_entries=1)
    group.led_by("n1")
    group.stop("n3")
    for number in range(20):
        group.propose(b"%d" % number)
    group.add("n3")
    group.restart("n2")
    group.led_by("n2")
    assert len(group.agree()) == 20


def test_replicas_leave_no_descriptors_open():
    """D27: its notifier's pipe is never closed by itself."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        Bench().found().lead()
    assert len(os.listdir("/proc/self/fd")) == before


# -- the journal as PySyncObj sees it ------------------------------------------------------------------


@pytest.fixture
def adapter():
    bench = Bench().found()
    bench.hear_entries(*(entry(index, 1) for index in range(2, 6)))
    return compat.JournalAdapter(bench.journal)


def test_the_journal_is_a_list_that_begins_with_what_precedes_it(adapter):
    assert len(adapter) == 5
    assert adapter[0] == (b"\1", 1, 0)
    assert adapter[1] == entry(2, 1)
    assert adapter[-1] == adapter[4] == entry(5, 1)
    assert adapter[1:3] == [entry(2, 1), entry(3, 1)]
    assert adapter[:] == [adapter[0], *adapter[1:]]


def test_a_journal_that_was_compacted_begins_with_the_term_of_what_is_gone():
    bench = Bench(compact_entries=5, keep_entries=2).found()
    bench.hear_entries(*(entry(index, 3) for index in range(2, 10)), commit=9, term=3)
    bench.step()
    adapter = compat.JournalAdapter(bench.journal)
    assert (len(adapter), adapter[0], adapter[-1]) == (3, (b"\1", 7, 3), entry(9, 3))


def test_term_vote_and_commit_index_are_the_journals(adapter):
    adapter.setCurrentTerm(4, "n3")
    assert (adapter.getCurrentTerm(), adapter.getVotedForNodeId()) == (4, "n3")
    adapter.setRaftCommitIndex(3)
    assert adapter.getRaftCommitIndex() == 3
    adapter.add(b"\1", 6, 4)
    assert adapter[-1] == (b"\1", 6, 4)
