"""Nothing is skipped silently: CI and root must run every test; anybody else is told what was left out."""

import os

import pytest

LEFT_OUT = pytest.StashKey[list[str]]()
WHY_CHARACTERS = 1000


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


class Failures:
    """Names what failed at once, and why in a line: a log that is cut somewhere still says so."""

    def __init__(self, terminal):
        self.terminal = terminal

    def pytest_runtest_logreport(self, report):
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message if crash is not None else str(report.longrepr)
            self.terminal.write_line(f"\nfailed ({report.when}): {report.nodeid}: {why[:WHY_CHARACTERS]}")


def pytest_sessionstart(session):
    plugins = session.config.pluginmanager
    plugins.register(Skips(session.config.stash[LEFT_OUT]), "appliance-skips")
    if not hasattr(session.config, "workerinput"):
        plugins.register(Failures(plugins.get_plugin("terminalreporter")), "appliance-failures")


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
