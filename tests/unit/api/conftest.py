import httpx2
import pytest

from appliance.api.server import ApiServer

from .building import Node

TOKEN = "s3cret-token"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One real server for the tests of a module; each of them gets its node anew."""
    node, path = Node(), tmp_path_factory.mktemp("api") / "api.sock"
    api = ApiServer(node, "127.0.0.1:0", path, TOKEN)
    api.start()
    yield api, node, path
    api.stop(5.0)
    assert not api.alive


@pytest.fixture
def node(running):
    running[1].reset()
    return running[1]


@pytest.fixture
def server(running, node):
    return running[0]


@pytest.fixture
def socket_path(running, node):
    return running[2]


@pytest.fixture
def url(server):
    host, port = server.addresses[0]
    return f"http://{host}:{port}"


@pytest.fixture
def http(url):
    with httpx2.Client(base_url=url, timeout=15) as client:
        yield client


@pytest.fixture
def trusted(url):
    with httpx2.Client(base_url=url, timeout=30, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client
