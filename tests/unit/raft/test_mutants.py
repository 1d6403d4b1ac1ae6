"""The list of mutants fits the sources; `./dev mutants` makes all of them, here it is a few."""

import ast
from collections import Counter
from dataclasses import replace

import pytest

from tests.mutants.edits import REPOSITORY, UnfitError, check, failing_without, missed_by, mutants

MUTANTS = {mutant.name: mutant for mutant in mutants()}
VOTE = MUTANTS["the vote that is stored is not looked at"]
SYNC = MUTANTS["the sync of a file does not reach the operating system"]


def test_every_name_is_there_once():
    assert [name for name, times in Counter(mutant.name for mutant in mutants()).items() if times > 1] == []
    assert len(MUTANTS) >= 24


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_can_be_made_and_still_is_python(mutant):
    check(mutant)
    source = (REPOSITORY / mutant.file).read_text()
    assert ast.dump(ast.parse(mutant.edited(source))) != ast.dump(ast.parse(source))


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_what_is_named_for_a_mutant_is_there(mutant):
    for test in mutant.tests:
        file, name = test.split("::")
        assert f"def {name}(" in (REPOSITORY / file).read_text()


@pytest.mark.parametrize("text", ["never written", "self"])
def test_a_text_that_is_not_there_exactly_once_is_an_error(text):
    with pytest.raises(UnfitError, match="it must be once"):
        check(replace(VOTE, old=text))


def test_a_mutant_that_nothing_is_named_for_is_an_error():
    with pytest.raises(UnfitError, match="no test"):
        check(replace(VOTE, tests=(), seeds=""))


@pytest.mark.parametrize("mutant", [VOTE, SYNC], ids=["vote", "sync"])
def test_a_mutant_is_noticed_by_its_tests(mutant):
    assert missed_by(mutant) == []


def test_an_edit_that_changes_nothing_survives():
    idle = replace(VOTE, new=VOTE.old)
    assert missed_by(idle) == list(VOTE.tests)


def test_a_test_that_is_not_there_is_an_error_and_no_notice():
    with pytest.raises(UnfitError, match="pytest ends with 4"):
        missed_by(replace(VOTE, tests=("tests/unit/raft/test_elections.py::test_of_nothing",)))


def test_what_is_named_passes_without_a_mutant():
    assert failing_without([VOTE, SYNC]) == []
