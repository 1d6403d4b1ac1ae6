"""The command line itself: fast help, one line for every error, options that stand anywhere."""

import contextlib
import os
import pwd
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from appliance.cli.options import hoisted, seconds

ROOT = Path(__file__).parents[3]


def process(*arguments, **options):
    command = [sys.executable, "-m", "appliance.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False, **options)


def test_help_is_fast_and_lists_the_commands():
    took_s = []
    for _ in range(3):
        began_s = time.monotonic()
        found = process("--help")
        took_s.append(time.monotonic() - began_s)

    assert found.returncode == 0
    assert {"node", "bootstrap", "status", "switchover", "failover", "history", "dsn", "demo"} <= set(
        found.stdout.split()
    )
    # Alone it is below 0.1 s; other tests run beside it.
    assert min(took_s) < 0.5


def test_help_imports_neither_http_nor_yaml_nor_pydantic():
    code = """
import sys
from appliance.cli.main import run
run(["--help"])
heavy = {"httpx2", "yaml", "pydantic", "psycopg", "rich", "psutil", "asyncio"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or 0)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["statsu"], "no such command 'statsu'"),
        (["status", "--colour"], "no such option"),
        (["status", "-o", "xml"], "'xml' is not one of"),
        (["failover"], "missing option '--to'"),
        (["switchover", "--timeout", "soon"], "--timeout: 'soon' is not a number with a unit"),
        (["dsn", "--role", "king"], "--role: 'king' is not one of rw, ro, any"),
        (["demo", "up", "--nodes", "9"], "less than or equal to 7"),
        (["switchover", "--yes", "--config"], "option '--config' requires an argument"),
        (["status", "-o", "xml"], "invalid value for '--output' / '-o': 'xml'"),
        (["status", "--interval", "0s"], "--interval: '0s' is too short; write 0.1s or more"),
        (["status", "--interval", "soon"], "--interval: 'soon' is not a number with a unit"),
        (["switchover", "--yes", "--to", ""], "--to: '' names nobody; name a member"),
        (["failover", "--yes", "--to", " "], "--to: ' ' names nobody"),
        (["operations", "show", "../cluster"], "'../cluster' is no operation's id"),
        (["operations", "show", ""], "'' is no operation's id"),
        (["operations", "show", "x" * 70000], "is no operation's id"),
        (["status", "--api", "http://[::1"], "--api: 'http://[::1' is no URL of a node; write for example http://"),
        (["status", "--api", "foo://bar"], "--api: 'foo://bar' is no URL"),
        (["status", "--api", ","], "--api: '' is no URL"),
        (["status", "--api", "pg1:99999"], "--api: 'pg1:99999' is no URL"),
        (["status", "--api", "pg1", "--token", "schlüssel"], "--token: holds a character that no token has"),
    ],
)
def test_a_wrong_use_is_one_line_and_2(appliance, arguments, words):
    found = appliance(*arguments)

    assert found.code == 2
    assert found.err.startswith("appliance: ")
    assert words in found.err
    assert found.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("demo",), ("operations",)])
def test_a_group_without_a_command_shows_its_help(appliance, arguments):
    found = appliance(*arguments)

    assert found.code == 2
    assert "Commands:" in found.err


def test_nothing_to_talk_to(appliance, monkeypatch, tmp_path):
    monkeypatch.setattr("appliance.cli.target.SYSTEM_CONFIG", tmp_path / "none.yml")
    monkeypatch.setattr("appliance.cli.demo.layout.ROOTS_DIRECTORY", tmp_path / "none")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = appliance("status")

    assert found.code == 2
    assert "use --config FILE or --api" in found.err


def test_a_node_that_does_not_answer_is_3(appliance):
    found = appliance("status", "--api", "127.0.0.1:1")

    assert found.code == 3
    assert found.err == ("appliance: no node answers: http://127.0.0.1:1: connection refused; is the node running?\n")


@pytest.fixture
def closed(tmp_path):
    """Nobody may enter it, and who runs the command is not root."""
    place = tmp_path / "closed"
    place.mkdir(mode=0)
    if os.geteuid() == 0:
        for directory in (tmp_path, *tmp_path.parents[:-2]):
            directory.chmod(directory.stat().st_mode | 0o011)
    yield place
    place.chmod(0o700)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "--config", "PLACE/node.yml"], "PLACE/node.yml: permission denied; use --api"),
        (["demo", "status", "--dir", "PLACE/below"], "permission denied"),
    ],
)
def test_what_this_user_may_not_read_is_one_line_and_6(closed, arguments, words):
    nobody = pwd.getpwnam("nobody")
    someone = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    found = process(*(argument.replace("PLACE", str(closed)) for argument in arguments), **someone)

    assert found.returncode == 6, found.stderr
    assert words.replace("PLACE", str(closed)) in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_closed_pipe_is_no_traceback():
    command = f"{sys.executable} -m appliance.cli.main node --sample | true"
    found = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)

    assert found.stderr == ""


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["status", "--api", "u"], ["--api", "u", "status"]),
        (["status", "--api=u", "-o", "json"], ["--api=u", "status", "-o", "json"]),
        (["demo", "up", "--", "--api", "u"], ["demo", "up", "--", "--api", "u"]),
        (["join", "--token", "t", "--config", "f"], ["--config", "f", "join", "--token", "t"]),
        (["--config", "f", "join", "--token=t"], ["--config", "f", "join", "--token=t"]),
    ],
)
def test_options_that_stand_anywhere(given, read):
    assert hoisted(given) == read


@pytest.mark.parametrize(("text", "number"), [("30", 30.0), ("1.5", 1.5), ("2min", 120.0), ("250ms", 0.25)])
def test_durations(text, number):
    assert seconds("--timeout", text) == number


def test_a_full_disk_and_a_closed_output_are_no_traceback():
    command = f"{sys.executable} -m appliance.cli.main node --sample"
    full = subprocess.run(["sh", "-c", f"{command} > /dev/full"], cwd=ROOT, capture_output=True, text=True, check=False)
    closed = subprocess.run(["sh", "-c", f"{command} >&-"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert full.returncode == 1
    assert full.stderr == "appliance: the output cannot be written: no space left on device\n"
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b"<html>"])
def test_another_server_is_not_taken_for_a_node(appliance, body):
    with _serving(body) as url:
        for words in (("status",), ("history",), ("operations", "list"), ("members", "list"), ("dsn",)):
            found = appliance(*words, "--api", url)
            assert found.code in {1, 3}
            assert "this is not the API of a node" in found.err
        found = appliance("switchover", "--yes", "--api", url)
        assert (found.code, found.out) == (1, "")


@contextlib.contextmanager
def _serving(body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # the name is http.server's

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_version(appliance):
    assert appliance("version").out.startswith("appliance 0.")


def test_the_sample_and_the_check_of_a_file(appliance, tmp_path):
    file = tmp_path / "node.yml"
    file.write_text(appliance("node", "--sample").out)
    good = appliance("node", "--check", "--config", file)
    file.write_text("{name: pg1, cluster: shop, nmae: x, members: {pg1: 'h:1', pg2: 'h:2'}, role: king}")
    bad = appliance("node", "--config", file, "--check")

    assert (good.code, good.err) == (0, "")
    assert good.out == f"{file}: node pg1 of cluster shop, 3 members: fine\n"
    assert (bad.code, bad.out) == (2, "")
    assert bad.err.splitlines() == [
        f"appliance: {file}: role: 'king' will not do; write data, witness or learner",
        f"{file}: nmae: unknown setting; did you mean name?",
    ]


def test_the_check_of_a_file_asks_postgresql_about_every_value(appliance, tmp_path):
    file = tmp_path / "node.yml"
    file.write_text("""
        {name: pg1, cluster: shop, members: {pg1: 'h:1'}, postgresql: {parameters: {work_mem: a lot}},
         bootstrap: {config: {postgresql: {parameters: {max_connections: 99999999, shared_bufers: 1GB}}}}}
    """)
    found = appliance("node", "--check", "--config", file)
    lines = [line.removeprefix("appliance: ").removeprefix(f"{file}: ") for line in found.err.splitlines()]

    assert (found.code, found.out) == (2, "")
    assert [line.partition(": ")[0] for line in lines] == [
        "postgresql.parameters.work_mem",
        "bootstrap.config.postgresql.parameters.max_connections",
        "bootstrap.config.postgresql.parameters.shared_bufers",
    ]
    assert "'a lot' is refused by PostgreSQL" in lines[0]
    assert "did you mean shared_buffers?" in lines[2]


def test_a_file_is_checked_without_postgresql_and_says_so(appliance, tmp_path):
    file = tmp_path / "node.yml"
    file.write_text("{name: pg1, cluster: shop, members: {pg1: 'h:1'}, postgresql: {bin_dir: /nowhere}}")
    found = appliance("node", "--check", "--config", file)

    assert found.code == 0
    assert "PostgreSQL was not asked about its parameters" in found.err


def test_advice_goes_to_stderr(appliance, tmp_path):
    file = tmp_path / "node.yml"
    file.write_text("{name: pg1, cluster: shop, members: {pg1: 'h:1', pg2: 'i:1'}}")
    found = appliance("node", "--check", "--config", file)

    assert found.code == 0
    assert "2 voters survive no more losses than 1" in found.err


def test_the_environment_names_the_api(appliance, url, monkeypatch):
    monkeypatch.setenv("APPLIANCE_API", url)

    assert appliance("status").code == 0
    assert os.environ["APPLIANCE_API"] == url
