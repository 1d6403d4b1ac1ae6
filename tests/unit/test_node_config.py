"""node.yml: what loads, what its parts mean, and that every mistake is named with key, value and what would do."""

from pathlib import Path

import pytest
import yaml

from appliance.cluster.config import KNOWN_KEYS
from appliance.cluster.state import NodeRole
from appliance.node.config import NodeConfig
from appliance.node.config_problems import ConfigProblem, known_keys
from appliance.node.config_sample import SAMPLE

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"
MINIMAL = {"name": "pg1", "cluster": "shop", "members": {"pg1": "10.0.0.11:7400"}}


def problems(**changes):
    with pytest.raises(ConfigProblem) as caught:
        NodeConfig.read(MINIMAL | changes)
    return caught.value.problems


def test_the_smallest_file_has_every_path_and_address():
    config = NodeConfig.read(MINIMAL)

    assert config.role is NodeRole.DATA
    assert config.raft.dir == Path("/var/lib/appliance/raft")
    assert config.raft.election_timeout == (0.5, 1.0)
    assert config.http.socket == Path("/var/lib/appliance/run/api.sock")
    assert config.http.token_file == Path("/var/lib/appliance/api.token")
    assert config.postgresql.data_dir == Path("/var/lib/appliance/data")
    assert config.postgresql.socket_dir == Path("/var/lib/appliance/run")
    assert config.initdb.wal_segsize == 16
    assert config.raft_address == "10.0.0.11:7400"
    assert config.http_address == "10.0.0.11:8008"
    assert config.postgres_address == "10.0.0.11:5432"
    assert config.advice() == ()


def test_paths_follow_state_dir_unless_written():
    config = NodeConfig.read(MINIMAL | {"state_dir": "/srv/a", "postgresql": {"data_dir": "/srv/pg"}})

    assert (config.raft.dir, config.postgresql.data_dir) == (Path("/srv/a/raft"), Path("/srv/pg"))


@pytest.mark.parametrize(
    ("postgresql", "address"),
    [
        ({"listen": "127.0.0.1:5433"}, "127.0.0.1:5433"),
        ({"listen": "10.0.0.9,127.0.0.1:5433"}, "10.0.0.9:5433"),
        ({"listen": "*:5433"}, "10.0.0.11:5433"),
        ({"listen": "[::]:5433"}, "10.0.0.11:5433"),
        ({"listen": "[fd00::1]:5433"}, "[fd00::1]:5433"),
        ({"advertise": "db.example.com:6432"}, "db.example.com:6432"),
    ],
)
def test_the_advertised_address(postgresql, address):
    assert NodeConfig.read(MINIMAL | {"postgresql": postgresql}).postgres_address == address


def test_a_witness_has_no_address_of_postgresql():
    config = NodeConfig.read(MINIMAL | {"role": "witness"})

    assert (config.role, config.postgres_address) == (NodeRole.WITNESS, "")


def test_a_learner_does_not_count_as_a_voter():
    four = {f"pg{n}": f"h{n}:7400" for n in range(1, 5)}

    assert NodeConfig.read(MINIMAL | {"members": four, "role": "learner"}).advice() == ()
    assert NodeConfig.read(MINIMAL | {"role": "learner"}).postgres_address == "10.0.0.11:5432"


def test_the_listen_hosts_of_postgresql():
    section = NodeConfig.read(MINIMAL | {"postgresql": {"listen": "10.0.0.9, [::1]:5433"}}).postgresql

    assert (section.listen_hosts, section.port) == (("10.0.0.9", "::1"), 5433)


def test_values_with_units_and_yaml_booleans():
    document = yaml.safe_load("""
        raft: {election_timeout: [200ms, 0.4s]}
        initdb: {wal-segsize: 64MB}
        watchdog: off
        tags: {nofailover: true, zone: a, custom: {site: berlin, weight: 1.4}}
        postgresql: {parameters: {work_mem: 64MB, autovacuum: on}}
    """)
    parameters = document["postgresql"].pop("parameters")
    config = NodeConfig.read(MINIMAL | document)

    assert config.raft.election_timeout == (0.2, 0.4)
    assert config.initdb.wal_segsize == 64
    assert config.tags.announced == {"nofailover": True, "zone": "a", "site": "berlin", "weight": 1.4}
    assert parameters["autovacuum"] is True


@pytest.mark.parametrize(
    ("written", "mode", "device"),
    [
        ("", "off", "/dev/watchdog"),
        ("watchdog:", "off", "/dev/watchdog"),
        ("watchdog: off", "off", "/dev/watchdog"),
        ("watchdog: required", "required", "/dev/watchdog"),
        ("watchdog: {mode: off}", "off", "/dev/watchdog"),
        ("watchdog: {mode: automatic, device: /dev/watchdog1}", "automatic", "/dev/watchdog1"),
        ("watchdog: {device: /dev/watchdog1}", "off", "/dev/watchdog1"),
    ],
)
def test_a_watchdog_is_written_as_a_word_or_a_section(written, mode, device):
    section = NodeConfig.read(MINIMAL | (yaml.safe_load(written) or {})).watchdog

    assert (section.mode, str(section.device)) == (mode, device)


def test_local_parameters_are_kept_as_postgresql_writes_them():
    config = NodeConfig.read(MINIMAL | {"postgresql": {"parameters": {"work_mem": "64MB", "autovacuum": True}}})

    assert config.postgresql.parameters == {"work_mem": "64MB", "autovacuum": "on"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nmae": 1}, "nmae: unknown setting; did you mean name?"),
        ({"data_dir": "/d"}, "data_dir: unknown setting; did you mean postgresql.data_dir?"),
        ({"raft": {"lisen": "x"}}, "raft.lisen: unknown setting; did you mean raft.listen?"),
        ({"http": {"zzz": 1}}, "http.zzz: unknown setting; known here: http.listen, http.advertise, http.socket"),
        ({"role": "king"}, "role: 'king' will not do; write data, witness or learner"),
        ({"name": "a b"}, "name: 'a b' is no node name"),
        ({"members": {"pg1": "10.0.0.11"}}, "members.pg1: '10.0.0.11' is not host:port"),
        ({"members": {"pg1": "0.0.0.0:7400"}}, "members.pg1: '0.0.0.0:7400' is no address that others can reach"),
        ({"members": {"p g": "h:1"}}, "members.p g: 'p g' is no node name"),
        ({"members": {"pg2": "h:7400"}}, "members: 'pg1', this node's name, is not among them (pg2)"),
        ({"members": {"pg1": "h:1", "pg2": "h:1"}}, "members: 'h:1' belongs to pg1, pg2"),
        ({"members": {"pg1": "h:1", "PG1": "h:2"}}, "members: pg1, PG1 differ in case or punctuation only"),
        ({"members": None}, "members: None will not do; write every member's name"),
        ({"raft": {"listen": "*:7400"}}, "raft.listen: '*:7400' is PostgreSQL's word"),
        ({"raft": {"election_timeout": ["1s", "1s"]}}, "raft.election_timeout: 1s to 1s is no range"),
        ({"raft": {"election_timeout": ["1x", "1s"]}}, "raft.election_timeout.0: unit 'x'"),
        ({"raft": {"election_timeout": "1s"}}, "raft.election_timeout: '1s' will not do; write two durations"),
        ({"raft": 7}, "raft: 7 will not do; write listen, advertise"),
        ({"postgresql": {"listen": "localhost"}}, "postgresql.listen: ':localhost' is not host:port"),
        ({"postgresql": {"listen": "fd00::1:5432"}}, "postgresql.listen: 'fd00::1:5432' has an IPv6 host without"),
        ({"postgresql": {"data_dir": "data"}}, "postgresql.data_dir: 'data' is not an absolute path"),
        ({"postgresql": {"wal_dir": "/var/lib/appliance/data/w"}}, "postgresql.wal_dir: '/var/lib/appliance/data/w'"),
        ({"postgresql": {"parameters": {"a": [1]}}}, "postgresql.parameters.a: [1] is not a single value"),
        ({"postgresql": {"listen": "0.0.0.0:8008"}}, "postgresql.listen: port 8008 is also that of http.listen"),
        ({"http": {"socket": "/" + "x" * 107}}, "http.socket: '/xxx"),
        ({"initdb": {"wal-segsize": "17MB"}}, "initdb.wal-segsize: '17MB' is not a power of two"),
        ({"initdb": {"wal-segsize": "much"}}, "initdb.wal-segsize: 'much' is not a power of two"),
        ({"bootstrap": {"config": {"ttl": "1s"}}}, "bootstrap.config.ttl: 60 % of 1s"),
        ({"bootstrap": {"config": {"tll": "1s"}}}, "bootstrap.config.tll: unknown setting; did you mean ttl?"),
        ({"bootstrap": {"application": {"user": "app"}}}, "bootstrap.application.database: missing; write a database"),
        ({"bootstrap": {"application": {"user": "postgres", "database": "d"}}}, "bootstrap.application.user: 'postg"),
        ({"tls": {"ca": "ca.pem", "cert": "/c", "key": "/k"}}, "tls.ca: 'ca.pem' is not an absolute path"),
        ({"tags": {"custom": {"a": [1]}}}, "tags.custom.a: [1] is not a single value"),
        ({"tags": {"nofailver": True}}, "tags.nofailver: unknown setting; did you mean tags.nofailover?"),
        ({"tags": {"site": "berlin"}}, "tags.site: unknown setting; known here: tags.nofailover, tags.failover_prior"),
        ({"tags": {"custom": {"nosync": True}}}, "tags.custom.nosync: means something of itself; write tags.nosync"),
        ({"tags": {"custom": {"nostream": True}}}, "tags.custom.nostream: is a tag of Patroni's that does nothing"),
        ({"tags": {"nofailover": "true"}}, "tags.nofailover: 'true' will not do; write true or false, without quotes"),
        ({"tags": {"noloadbalance": 1}}, "tags.noloadbalance: 1 will not do; write true or false"),
        ({"tags": {"nosync": "no"}}, "tags.nosync: 'no' will not do; write true or false"),
        ({"tags": {"failover_priority": "2"}}, "tags.failover_priority: '2' will not do; write a whole number from 1"),
        ({"tags": {"failover_priority": True}}, "tags.failover_priority: True will not do; write a whole number"),
        ({"tags": {"failover_priority": 0}}, "tags.failover_priority: 0 will not do; write a whole number from 1 to"),
        ({"tags": {"sync_priority": 1001}}, "tags.sync_priority: 1001 will not do; write a whole number from 1 to"),
        ({"tags": {"zone": False}}, "tags.zone: False will not do; write a name like east"),
        ({"tags": {"zone": "a b"}}, "tags.zone: 'a b' is no name of a zone"),
        ({"tags": {"nofailover": True, "failover_priority": 2}}, "tags.failover_priority: a member that never becomes"),
        (
            {"tags": {"nosync": True, "sync_priority": 2}},
            "tags.sync_priority: no commit waits for a member with nosync",
        ),
        (
            {"tags": {"zone": "wst"}, "bootstrap": {"config": {"zones": ["east", "west"]}}},
            "tags.zone: 'wst' is none of bootstrap.config.zones; did you mean west?",
        ),
        (
            {"bootstrap": {"config": {"synchronous_node_count": 3}}},
            "bootstrap.config.synchronous_node_count: 3 is more than the other members, 0; write 1 at most",
        ),
        ({"state_dir": "state"}, "state_dir: 'state' is not an absolute path"),
        ({"http": {"socket": "/var/lib/appliance/data/s"}}, "http.socket: '/var/lib/appliance/data/s' lies in postgre"),
        ({"http": {"token_file": "/var/lib/appliance/data/t"}}, "http.token_file: '/var/lib/appliance/data/t' lies in"),
        ({"cluster": 7}, "cluster: YAML reads 7 as no text; put it in quotes"),
        ({"members": {"pg1": "h:1", 7: "h:2"}}, "members.7: YAML reads 7 as no text; put it in quotes"),
        (
            {"bootstrap": {"config": {"clock_drift": "1x"}}},
            "bootstrap.config.clock_drift: unit 'x' in '1x' is not",
        ),
        ({"log": {"level": "loud"}}, "log.level: 'loud' will not do; write debug, info, warning or error"),
        ({"watchdog": "on"}, "watchdog.mode: 'on' is no watchdog mode; write off, automatic or required"),
        ({"watchdog": {"mode": True}}, "watchdog.mode: True is no watchdog mode; write off, automatic or required"),
        ({"watchdog": {"mod": "off"}}, "watchdog.mod: unknown setting; did you mean watchdog.mode?"),
        ({"watchdog": {"device": "watchdog0"}}, "watchdog.device: 'watchdog0' is not an absolute path"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_with_key_value_and_what_would_do(changes, problem):
    found = problems(**changes)

    assert len(found) == 1, found
    assert found[0].startswith(problem)


def test_a_parameter_that_the_appliance_controls_is_refused():
    assert problems(postgresql={"parameters": {"Wal_Level": "minimal"}}) == (
        "postgresql.parameters.wal_level: set by the appliance, the same on every node; remove it here",
    )


def test_who_gives_the_node_a_certificate_does_not_give_postgresql_another():
    own = {"postgresql": {"parameters": {"SSL_cert_file": "/mine"}}}
    files = {"ca": "/t/ca.crt", "cert": "/t/node.crt", "key": "/t/node.key"}

    assert problems(tls=files, **own) == (
        "postgresql.parameters.ssl_cert_file: set by the appliance from `tls`; remove it here",
    )
    assert NodeConfig.read(MINIMAL | own).postgresql.parameters == {"SSL_cert_file": "/mine"}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"parameters": {"Port": 5}}, "parameters.port: is set by the appliance; remove it"),
        ({"parameters": {"fsync": False}}, "parameters.fsync: must be on, not 'off'; remove it"),
        ({"parameters": {"wal_level": "minimal"}}, "parameters.wal_level: standbys need replica or logical"),
        ({"parameters": {"a b": 1}}, "parameters: 'a b' is no parameter name"),
        ({"pg_hba": ["local all\nall trust"]}, "pg_hba: 'local all\\nall trust' has a line break in it"),
        ({"pg_ident": ["a\rb"]}, "pg_ident: 'a\\rb' has a line break in it"),
    ],
)
def test_what_no_cluster_could_start_with_is_refused_in_the_first_document_too(section, problem):
    (found,) = problems(bootstrap={"config": {"postgresql": section}})

    assert found.startswith(f"bootstrap.config.postgresql.{problem}")


def test_a_local_parameter_needs_a_name():
    assert problems(postgresql={"parameters": {"a b": 1}}) == ("postgresql.parameters: 'a b' is no parameter name",)


def test_a_section_whose_lines_are_all_comments_is_empty():
    document = yaml.safe_load("""
        tags:
        postgresql: {parameters: }
        bootstrap: {config: {ttl: 8s, failover: , postgresql: {parameters: }}}
    """)
    config = NodeConfig.read(MINIMAL | document)

    assert (config.tags.announced, config.postgresql.parameters) == ({}, {})
    assert config.bootstrap.config == {"ttl": "8s", "postgresql": {}}
    assert NodeConfig.read(MINIMAL | {"bootstrap": {"config": None}}).bootstrap.config == {}


def test_all_problems_are_collected():
    assert len(problems(role="king", tags={"zone": []}, http={"listen": "8008"}, extra=1)) == 4
    assert len(problems(tls={"ca": "x"}, bootstrap={"config": {"ttl": "1s"}}, postgresql={"listen": "h:8008"})) == 3


def test_missing_keys_say_what_to_write():
    with pytest.raises(ConfigProblem) as caught:
        NodeConfig.read({})

    assert [line.partition(":")[0] for line in caught.value.problems] == ["name", "cluster", "members"]
    assert "missing; write this node's name" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no settings in it; `appliance node --sample`"),
        ("a: [", "not YAML: "),
        ("members: {pg1: h:1, pg1: h:2}", "'pg1' is written twice; leave one"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, text, problem):
    path = tmp_path / "node.yml"
    path.write_text(text)
    with pytest.raises(ConfigProblem, match=r"node\.yml: ") as caught:
        NodeConfig.load(path)

    assert problem in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigProblem, match="no such file or directory"):
        NodeConfig.load(tmp_path / "node.yml")


@pytest.mark.parametrize(("count", "words"), [(1, ""), (2, "add a witness"), (3, ""), (4, "add a witness"), (9, "7")])
def test_advice_on_the_number_of_voters(count, words):
    members = {f"pg{n}": f"h{n}:7400" for n in range(1, count + 1)}

    assert words in " ".join(NodeConfig.read(MINIMAL | {"members": members}).advice())


def test_the_sample_loads_and_shows_every_key(tmp_path):
    path = tmp_path / "node.yml"
    path.write_text(SAMPLE)
    assert NodeConfig.load(path).cluster == "shop"

    shown = SAMPLE
    hidden = {key for key in known_keys(NodeConfig) if f"{key.rpartition('.')[2]}:" not in shown}
    assert hidden == {"tls", "tls.ca", "tls.cert", "tls.key", "tls.ca_key"}


def test_the_commented_part_of_the_sample_is_what_stands_without_it():
    lines = [line.removeprefix("# ") for line in SAMPLE.splitlines()[4:]]
    document = yaml.safe_load("\n".join(line for line in lines if not line.endswith("effective_cache_size: 12GB")))
    document["bootstrap"] = None
    document["raft"] = {key: value for key, value in document["raft"].items() if value is not None}
    document["http"] = {key: value for key, value in document["http"].items() if value is not None}
    document["postgresql"] = {key: value for key, value in document["postgresql"].items() if value is not None}
    document["tags"] = {}

    assert NodeConfig.read(document) == NodeConfig.read({k: document[k] for k in ("name", "cluster", "members")})


@pytest.mark.parametrize("key", [*known_keys(NodeConfig), *KNOWN_KEYS])
def test_the_documentation_explains_every_key(key):
    sections = {"raft", "http", "postgresql", "initdb", "bootstrap", "tls", "tags", "log", "watchdog"}

    assert key in sections or f"`{key}`" in DOCUMENTATION.read_text()
