"""What `appliance join` does on the host, mostly as root, in directories that belong to others."""

import os
from pathlib import Path

import pytest

from appliance.node.joining import _make_directory
from appliance.node.privileges import run_user


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_directory_swapped_for_a_link_gives_nothing_away(tmp_path, monkeypatch):
    """Whom the parent belongs to may rename what is in it, also between two calls of root's."""
    precious, made = tmp_path / "etc", tmp_path / "state" / "tls"
    precious.mkdir(mode=0o755)
    made.parent.mkdir()
    mkdir = Path.mkdir

    def swapped(path, **more):
        mkdir(path, **more)
        path.rename(path.with_name("moved"))
        path.symlink_to(precious)

    monkeypatch.setattr(Path, "mkdir", swapped)
    _make_directory(made)
    assert precious.stat().st_uid == 0


def test_directories_are_made_for_whom_the_node_runs_as(tmp_path):
    _make_directory(tmp_path / "a" / "b")
    for made in (tmp_path / "a", tmp_path / "a" / "b"):
        assert made.stat().st_mode & 0o777 == 0o700
        assert made.stat().st_uid == run_user().pw_uid
