import os

import pytest

from appliance.api.server import ApiServer
from appliance.cli.main import run
from tests.unit.api.building import Node

TOKEN = "s3cret-token"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """The command line writes its options into the environment; each test begins without any."""
    for name in [name for name in os.environ if name.startswith("APPLIANCE_")]:
        monkeypatch.delenv(name)
    for name in ("APPLIANCE_CONFIG", "APPLIANCE_API", "APPLIANCE_TOKEN"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def server(node, tmp_path):
    api = ApiServer(node, "127.0.0.1:0", tmp_path / "run" / "api.sock", TOKEN)
    (tmp_path / "run").mkdir()
    api.start()
    yield api
    api.stop(3.0)


@pytest.fixture
def url(server):
    host, port = server.addresses[0]
    return f"http://{host}:{port}"


@pytest.fixture
def config(server, tmp_path):
    """The file of the node behind the server, as it would lie on its host."""
    path = tmp_path / "node.yml"
    path.write_text(f"""
        {{name: pg1, cluster: shop, members: {{pg1: "10.0.0.1:7400"}}, state_dir: {tmp_path},
          bootstrap: {{application: {{user: app, database: shop}}}}}}
    """)
    return path


class Ran:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def appliance(capsys):
    """Runs a command line in this process."""

    def call(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call
