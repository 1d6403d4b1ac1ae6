"""tests/conftest.py: a skipped test fails the run for CI and for root, and is named for everybody."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SUITE = """
import pytest

def test_runs():
    pass

@pytest.mark.skip(reason="no such kernel")
def test_is_left_out():
    pass
"""
MODULE = "import pytest\npytest.skip('no such module', allow_module_level=True)\n"


def run(directory, *options, ci):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "CI"))} | {"CI": ci}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", directory, *options, "."]
    return subprocess.run(
        command, check=False, cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def suite(tmp_path):
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_suite.py").write_text(SUITE)
    return tmp_path


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "parallel"])
def test_a_skip_fails_the_run_of_ci_and_is_named(suite, workers):
    (suite / "test_module.py").write_text(MODULE)
    found = run(suite, *workers, ci="true")

    assert found.returncode == 1, found.stdout
    assert "left out: 2, and must not be" in found.stdout
    assert "test_suite.py::test_is_left_out: no such kernel" in found.stdout
    assert "test_module.py: no such module" in found.stdout


def test_elsewhere_a_skip_is_named_and_the_run_passes_unless_it_is_root(suite):
    found = run(suite, ci="")

    assert found.returncode == (1 if os.geteuid() == 0 else 0), found.stdout
    assert "test_suite.py::test_is_left_out: no such kernel" in found.stdout


def test_a_run_without_skips_passes(suite):
    (suite / "test_suite.py").write_text("def test_runs(): pass\n")

    assert run(suite, ci="true").returncode == 0
