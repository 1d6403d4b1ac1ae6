"""The lists of mutants, and one of them made and looked at: each says what it is and what must notice it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LISTS = tuple(Path(__file__).with_name(name) for name in ("raft.toml", "formats.toml"))
LIMIT_S = 300
_PARTS = ("raft", "appliance", "tests", "pyproject.toml")
_TESTS_FAILED = 1
"""pytest's word for it; every other is about the run itself, and no proof of anything."""


class UnfitError(Exception):
    """The list and the sources do not fit each other."""


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    seeds: str = ""
    """A profile of the simulator and seeds of it, `power 0..8`."""

    def edited(self, source):
        """The source with the mutant in it."""
        found = source.count(self.old)
        if found != 1:
            raise UnfitError(f"{self.name}: what it replaces stands {found} times in {self.file}, it must be once")
        return source.replace(self.old, self.new)


def mutants():
    known = [fields for each in LISTS for fields in tomllib.loads(each.read_text())["mutant"]]
    return [Mutant(**(fields | {"tests": tuple(fields.get("tests", ()))})) for fields in known]


def check(mutant, repository=REPOSITORY):
    """UnfitError when it cannot be made, or nothing is named that could notice it."""
    mutant.edited((repository / mutant.file).read_text())
    if not mutant.tests and not mutant.seeds:
        raise UnfitError(f"{mutant.name}: no test and no seeds are named for it")


class Copy:
    """The sources in a place of their own, until the end of the `with`."""

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp(prefix="mutant-"))
        for part in _PARTS:
            source, target = REPOSITORY / part, self.path / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def make(self, mutant):
        file = self.path / mutant.file
        file.write_text(mutant.edited(file.read_text()))

    def failing(self, tests):
        """Those of the tests that fail here; whatever else is wrong is an UnfitError."""
        done = self._python("-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "--color=no", *tests)
        if done.returncode not in {0, _TESTS_FAILED}:
            raise UnfitError(f"pytest ends with {done.returncode}: {done.stdout[-600:]}{done.stderr[-600:]}")
        failed = set(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", done.stdout, re.MULTILINE))
        return [test for test in tests if test in failed]

    def seeds_fail(self, seeds):
        profile, numbers = seeds.split()
        done = self._python("-m", "tests.simulation.raft", "--profile", profile, "--seeds", numbers, "--jobs", "1")
        if not re.search(r"^(ok|failed): ", done.stdout, re.MULTILINE):
            raise UnfitError(f"no verdict from seeds {seeds}: {done.stdout[-600:]}{done.stderr[-600:]}")
        return done.returncode != 0

    def _python(self, *arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        environment |= {"PYTHONPATH": str(self.path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *arguments]
        try:
            return subprocess.run(
                command, check=False, cwd=self.path, env=environment, capture_output=True, text=True, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired as error:
            raise UnfitError(f"{' '.join(arguments)} does not end within {LIMIT_S} s") from error


def missed_by(mutant):
    """What was named for this mutant and did not notice it; none: it is noticed."""
    with Copy() as copy:
        copy.make(mutant)
        failing = copy.failing(mutant.tests) if mutant.tests else []
        missed = [test for test in mutant.tests if test not in failing]
        if mutant.seeds and not copy.seeds_fail(mutant.seeds):
            missed.append(f"seeds {mutant.seeds}")
        return missed


def failing_without(wanted):
    """Which of all that is named for these mutants fails although none has been made."""
    tests = sorted({test for mutant in wanted for test in mutant.tests})
    seeds = sorted({mutant.seeds for mutant in wanted if mutant.seeds})
    with Copy() as copy:
        failing = copy.failing(tests) if tests else []
        return failing + [f"seeds {each}" for each in seeds if copy.seeds_fail(each)]
