"""Nothing is skipped silently: CI and root must run every test; anybody else is told what was left out."""

import os

import pytest

LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_configure(config):
    config.stash[LEFT_OUT] = []


class Skips:
    """On the controller of a parallel run too: workers send their reports there."""

    def __init__(self, left_out):
        self.left_out = left_out

    def pytest_runtest_logreport(self, report):
        self._note(report)

    def pytest_collectreport(self, report):
        self._note(report)

    def _note(self, report):
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.left_out.append(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")


def pytest_sessionstart(session):
    session.config.pluginmanager.register(Skips(session.config.stash[LEFT_OUT]), "appliance-skips")


def everything_must_run():
    return os.environ.get("CI") == "true" or os.geteuid() == 0


def pytest_sessionfinish(session, exitstatus):
    controller = not hasattr(session.config, "workerinput")
    if controller and session.config.stash[LEFT_OUT] and exitstatus == 0 and everything_must_run():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    left_out = config.stash[LEFT_OUT]
    if left_out:
        verdict = "and must not be: CI and root run everything" if everything_must_run() else "on this machine"
        terminalreporter.section(f"left out: {len(left_out)}, {verdict}")
        for line in left_out:
            terminalreporter.line(line)
