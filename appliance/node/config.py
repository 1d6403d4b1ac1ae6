"""The node's own file, `node.yml`: what is local to one machine. Read once, frozen, checked as a whole.

What all nodes share is the configuration document in the replicated state (appliance.cluster.config); `bootstrap`
only carries its first version.
"""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, field_validator, model_validator

from appliance.cluster.config import ConfigError, Policy, read_policy
from appliance.cluster.state import NodeRole, Scalar
from appliance.node.config_problems import ConfigProblem, problems_of
from appliance.node.config_values import (
    WILDCARDS,
    AbsolutePath,
    ElectionTimeout,
    Listen,
    ListenList,
    NodeName,
    Priority,
    Reachable,
    SegmentMb,
    SqlName,
    TagValue,
    WatchdogMode,
    Zone,
    join_address,
    split_address,
)
from appliance.postgres.unix_socket import PATH_LIMIT_BYTES, socket_file

DEFAULT_STATE_DIR = Path("/var/lib/appliance")
_PATHS: Mapping[str, Mapping[str, str]] = {
    "raft": {"dir": "raft"},
    "http": {"socket": "run/api.sock", "token_file": "api.token"},
    "postgresql": {"data_dir": "data", "socket_dir": "run"},
}
"""below state_dir unless the file says otherwise"""
_MAY_BE_EMPTY = frozenset({"failover", "postgresql", "parameters"})
_PATRONIS = frozenset({"clonefrom", "replicatefrom", "nostream", "apply_delay"})
"""tags that mean something there and nothing here: they must not pass for words of the operator's own"""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class RaftSection(_Section):
    listen: Listen = Field("0.0.0.0:7400", description="host:port")
    advertise: Reachable | None = Field(None, description="host:port that the other nodes reach")
    dir: AbsolutePath = Field(description="an absolute path")
    election_timeout: ElectionTimeout = Field((0.5, 1.0), description="two durations, like [500ms, 1s]")
    """seconds: shortest and longest silence before this replica stands for election"""


class HttpSection(_Section):
    listen: Listen = Field("0.0.0.0:8008", description="host:port")
    advertise: Reachable | None = Field(None, description="host:port that clients and the other nodes reach")
    socket: AbsolutePath = Field(description="an absolute path")
    token_file: AbsolutePath = Field(description="an absolute path")


class PostgresqlSection(_Section):
    listen: ListenList = Field("0.0.0.0:5432", description="host:port, or host,host:port")
    advertise: Reachable | None = Field(None, description="host:port that clients and standbys reach")
    data_dir: AbsolutePath = Field(description="an absolute path")
    wal_dir: AbsolutePath | None = Field(None, description="an absolute path outside the data directory")
    bin_dir: AbsolutePath | None = Field(None, description="an absolute path, like /usr/lib/postgresql/17/bin")
    socket_dir: AbsolutePath = Field(description="an absolute path")
    parameters: Mapping[str, str] = Field({}, description="PostgreSQL parameters that are local to this node")

    @field_validator("parameters", mode="before")
    @classmethod
    def _as_postgresql_writes_them(cls, value: object) -> Mapping[str, str]:
        return read_policy({"postgresql": {"parameters": value or {}}}).parameters

    @property
    def listen_hosts(self) -> tuple[str, ...]:
        hosts = self.listen.rpartition(":")[0].split(",")
        return tuple(host.strip().removeprefix("[").removesuffix("]") for host in hosts)

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def socket(self) -> Path:
        return socket_file(self.socket_dir, self.port)


class InitdbSection(_Section):
    locale: str = Field("C.UTF-8", description="a locale that `locale -a` lists")
    encoding: str = Field("UTF8", description="an encoding of PostgreSQL, like UTF8")
    wal_segsize: SegmentMb = Field(16, alias="wal-segsize", description="a power of two, like 16MB")
    """MB"""


class ApplicationSection(_Section):
    user: SqlName = Field(description="a role name, like app")
    database: SqlName = Field(description="a database name, like app")


class BootstrapSection(_Section):
    config: Mapping[str, object] = Field({}, description="settings of the configuration document")
    application: ApplicationSection | None = Field(None, description="user and database")

    @field_validator("config", mode="before")
    @classmethod
    def _empty_sections_are_none(cls, value: object) -> object:
        """What is left of a section when every line of it is a comment."""
        return _without_nothing(value) if isinstance(value, Mapping) else {} if value is None else value


def _without_nothing(settings: Mapping[str, object]) -> dict[str, object]:
    kept = {k: _without_nothing(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    return {key: value for key, value in kept.items() if value is not None or key not in _MAY_BE_EMPTY}


class TlsSection(_Section):
    """The node's certificate (CN: its name, O: the cluster's), for the Raft port and for PostgreSQL."""

    ca: AbsolutePath = Field(description="an absolute path: the certificates of the authorities that are trusted")
    cert: AbsolutePath = Field(description="an absolute path")
    key: AbsolutePath = Field(description="an absolute path, of a file of mode 0600")
    ca_key: AbsolutePath | None = Field(None, description="an absolute path: where this node may issue certificates")

    @property
    def issuing_key(self) -> Path:
        """Where the authority's key lies, if this node has it."""
        return self.ca_key or self.ca.with_name("ca.key")


class TagsSection(_Section):
    """What sets this member apart. A word that nobody reads would leave one electable that is not meant to be."""

    nofailover: StrictBool = Field(False, description="true or false, without quotes")
    failover_priority: Priority | None = Field(
        None, description="a whole number from 1 to 1000; `nofailover: true` keeps a member from becoming primary"
    )
    nosync: StrictBool = Field(False, description="true or false, without quotes")
    sync_priority: Priority | None = Field(
        None, description="a whole number from 1 to 1000; `nosync: true` keeps commits from waiting for a member"
    )
    noloadbalance: StrictBool = Field(False, description="true or false, without quotes")
    zone: Zone | None = Field(None, description="a name like east")
    custom: Mapping[str, TagValue] = Field({}, description="names with single values")

    @field_validator("custom", mode="before")
    @classmethod
    def _may_be_empty(cls, value: object) -> object:
        return {} if value is None else value

    @property
    def announced(self) -> dict[str, Scalar]:
        """What the file says, as others see it: custom ones stand beside those that mean something."""
        said = self.model_dump(exclude={"custom"}, exclude_unset=True)
        return {name: value for name, value in (said | dict(self.custom)).items() if value is not None}


class LogSection(_Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    format: Literal["json", "pretty", "auto"] = Field("auto", description="json, pretty or auto")
    """auto: pretty on a terminal"""


class WatchdogSection(_Section):
    """`watchdog: required` is short for a section with this mode."""

    mode: WatchdogMode = Field("off", description="off, automatic or required")
    device: AbsolutePath = Field(Path("/dev/watchdog"), description="an absolute path, like /dev/watchdog")

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_word(cls, given: object) -> object:
        return given if isinstance(given, Mapping) else {"mode": given}


NO_WATCHDOG = WatchdogSection.model_validate({})


class NodeConfig(_Section):
    name: NodeName = Field(description="this node's name, one of `members`")
    cluster: NodeName = Field(description="the cluster's name, the same on every node")
    role: NodeRole = Field(NodeRole.DATA, description="data, witness or learner")
    members: Mapping[NodeName, Reachable] = Field(
        description="every member's name with its raft host:port, this node's too"
    )
    state_dir: AbsolutePath = Field(DEFAULT_STATE_DIR, description="an absolute path")
    raft: RaftSection = Field(description="listen, advertise, dir, election_timeout")
    http: HttpSection = Field(description="listen, advertise, socket, token_file")
    postgresql: PostgresqlSection = Field(description="listen, advertise, data_dir and so on")
    initdb: InitdbSection = Field(description="locale, encoding, wal-segsize")
    bootstrap: BootstrapSection = Field(description="config, application")
    tls: TlsSection | None = Field(None, description="ca, cert, key, ca_key; without it nothing is encrypted")
    tags: TagsSection = Field(description="the tags that mean something, and `custom` ones")
    log: LogSection = Field(description="level, format")
    watchdog: WatchdogSection = Field(description="off, automatic or required; or mode, device")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: object) -> object:
        """An absent section is an empty one, and paths follow `state_dir`."""
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        state_dir = filled.get("state_dir", DEFAULT_STATE_DIR)
        given_base = isinstance(state_dir, str | Path) and Path(state_dir).is_absolute()
        base = Path(state_dir) if given_base else DEFAULT_STATE_DIR  # one mistake is one line
        for section in ("raft", "http", "postgresql", "initdb", "bootstrap", "log"):
            value = filled.get(section)
            paths = {key: base / below for key, below in _PATHS.get(section, {}).items()}
            if value is None or isinstance(value, Mapping):
                filled[section] = paths | dict(value or {})
        if filled.get("watchdog") is None:
            filled["watchdog"] = {}
        if filled.get("tags") is None:
            filled["tags"] = {}
        return filled

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        problems = [problem for check in _CHECKS for problem in check(self)]
        if problems:
            raise ConfigProblem(problems)
        return self

    @property
    def raft_address(self) -> str:
        """host:port where the other nodes reach this replica."""
        return self.raft.advertise or self.members[self.name]

    @property
    def http_address(self) -> str:
        """host:port where others reach the API."""
        host, port = split_address(self.http.listen)
        return self.http.advertise or self._advertised(host, port)

    @property
    def postgres_address(self) -> str:
        """host:port where clients and standbys reach PostgreSQL; empty for a witness."""
        if self.role is NodeRole.WITNESS:
            return ""
        return self.postgresql.advertise or self._advertised(self.postgresql.listen_hosts[0], self.postgresql.port)

    def _advertised(self, listen_host: str, port: int) -> str:
        host = split_address(self.members[self.name])[0] if listen_host in WILDCARDS else listen_host
        return join_address(host, port)

    @property
    def application_password_file(self) -> Path:
        """The node writes the generated password of `bootstrap.application` there, mode 0600."""
        return self.state_dir / "application.password"

    def advice(self) -> tuple[str, ...]:
        """What is allowed but hardly meant."""
        count = len(self.members) - (self.role is NodeRole.LEARNER)
        if count % 2 == 0:
            return (f"members: {count} voters survive no more losses than {count - 1}; add a witness, or remove one",)
        if count > 7:
            return (f"members: {count} voters make every decision wait for {count // 2 + 1}; at most 7 do well",)
        return ()

    @staticmethod
    def load(path: Path) -> "NodeConfig":
        """Read and check a file. Raises ConfigProblem with everything that is wrong with it."""
        try:
            document = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506  # a SafeLoader
        except OSError as error:
            raise ConfigProblem([f"{path}: {(error.strerror or str(error)).lower()}"]) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigProblem([f"{path}: not YAML: {' '.join(str(error).split())}"]) from None
        if not isinstance(document, Mapping):
            raise ConfigProblem([f"{path}: no settings in it; `appliance node --sample` prints a file to begin with"])
        return NodeConfig.read(document)

    @staticmethod
    def read(document: Mapping[str, object]) -> "NodeConfig":
        """Check a document. Raises ConfigProblem with everything that is wrong with it."""
        try:
            return NodeConfig.model_validate(document)
        except ValidationError as error:
            raise ConfigProblem(problems_of(error, NodeConfig)) from None


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key written twice: PyYAML would take the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]!r} is written twice; leave one", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _members_agree(config: NodeConfig) -> Iterator[str]:
    if config.name not in config.members:
        known = ", ".join(config.members) or "none"
        yield f"members: {config.name!r}, this node's name, is not among them ({known}); add it with its raft address"
    for address, count in Counter(config.members.values()).items():
        if count > 1:
            names = ", ".join(name for name, other in config.members.items() if other == address)
            yield f"members: {address!r} belongs to {names}; every member needs an address of its own"
    folded = Counter(_folded(name) for name in config.members)
    alike = [name for name in config.members if folded[_folded(name)] > 1]
    if alike:
        yield f"members: {', '.join(alike)} differ in case or punctuation only; choose names that differ in letters"


def _folded(name: str) -> str:
    """How a name looks as a PostgreSQL slot name."""
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def _bootstrap_reads(config: NodeConfig) -> Iterator[str]:
    try:
        policy = read_policy(config.bootstrap.config, election_max_s=config.raft.election_timeout[1])
    except ConfigError as error:
        yield from (f"bootstrap.config.{problem}" for problem in error.problems)
        return
    yield from _members_can(config, policy)
    if policy.parameters:
        yield from (f"bootstrap.config.{problem}" for problem in _objections(policy.parameters))
    for key, lines in (("pg_hba", policy.pg_hba), ("pg_ident", policy.pg_ident)):
        broken = next((line for line in lines if len(line.splitlines()) > 1), None)
        if broken is not None:
            yield f"bootstrap.config.postgresql.{key}: {broken!r} has a line break in it; write two lines"


def _members_can(config: NodeConfig, policy: Policy) -> Iterator[str]:
    """Which of them are witnesses is not known here: the cluster looks again at bootstrap."""
    others = len(config.members) - 1
    if policy.synchronous_mode == "off":
        return
    if policy.synchronous_mode_strict and others < 1:
        yield (
            "bootstrap.config.synchronous_mode_strict: there is one member, so no commit would ever be acknowledged;"
            " leave it out"
        )
    if policy.synchronous_node_count > max(1, others):
        yield (
            f"bootstrap.config.synchronous_node_count: {policy.synchronous_node_count} is more than the other members,"
            f" {others}; write {max(1, others)} at most"
        )


def _parameters_are_local(config: NodeConfig) -> Iterator[str]:
    if config.postgresql.parameters:
        from appliance.postgres.settings import CONTROLLED

        given = {name.lower(): (name, value) for name, value in config.postgresql.parameters.items()}
        for name in sorted(CONTROLLED & set(given)):
            yield f"postgresql.parameters.{name}: set by the appliance, the same on every node; remove it here"
        yield from _objections(dict(given[name] for name in sorted(set(given) - CONTROLLED)))


def _tls_is_one(config: NodeConfig) -> Iterator[str]:
    """Two certificates for one server: the appliance's would win without a word."""
    if config.tls is None:
        return
    from appliance.postgres.certificate import CONTROLLED_WITH_TLS

    for name in sorted(CONTROLLED_WITH_TLS & {name.lower() for name in config.postgresql.parameters}):
        yield f"postgresql.parameters.{name}: set by the appliance from `tls`; remove it here"


def _objections(parameters: Mapping[str, str]) -> Iterator[str]:
    """What no PostgreSQL is asked about: names that are none, and what the appliance's promises rest on."""
    from appliance.postgres.errors import SettingsError
    from appliance.postgres.settings import check_parameter

    for name, value in parameters.items():
        try:
            check_parameter(name, value)
        except SettingsError as error:
            yield str(error)


def _tags_fit(config: NodeConfig) -> Iterator[str]:
    tags = config.tags
    if tags.nofailover and tags.failover_priority is not None:
        yield "tags.failover_priority: a member that never becomes primary (nofailover) has none; leave one of them out"
    if (tags.nosync or tags.nofailover) and tags.sync_priority is not None:
        yield "tags.sync_priority: no commit waits for a member with nosync or nofailover; leave one of them out"
    for name in tags.custom:
        if name in TagsSection.model_fields:
            yield f"tags.custom.{name}: means something of itself; write tags.{name}"
        elif name in _PATRONIS:
            yield f"tags.custom.{name}: is a tag of Patroni's that does nothing here; leave it out"
    zones = config.bootstrap.config.get("zones")
    if tags.zone and isinstance(zones, list) and zones and tags.zone not in zones:
        near = difflib.get_close_matches(tags.zone, map(str, zones), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(map(str, zones))}"
        yield f"tags.zone: {tags.zone!r} is none of bootstrap.config.zones; {hint}"


def _paths_fit(config: NodeConfig) -> Iterator[str]:
    postgresql = config.postgresql
    for key, path in (
        ("http.socket", config.http.socket),
        ("postgresql.socket_dir", postgresql.socket),
    ):
        length = len(bytes(path))
        if length > PATH_LIMIT_BYTES:
            limit = PATH_LIMIT_BYTES
            yield f"{key}: {str(path)!r} has {length} bytes, a unix socket may have {limit}; choose a shorter path"
    for key, inner in (
        ("state_dir", config.state_dir),
        ("raft.dir", config.raft.dir),
        ("postgresql.wal_dir", postgresql.wal_dir),
        ("postgresql.socket_dir", postgresql.socket_dir),
        ("http.socket", config.http.socket),
        ("http.token_file", config.http.token_file),
    ):
        if inner is not None and inner.is_relative_to(postgresql.data_dir):
            yield f"{key}: {str(inner)!r} lies in postgresql.data_dir, which clones replace; choose a path outside it"


def _ports_differ(config: NodeConfig) -> Iterator[str]:
    ports = {
        "raft.listen": split_address(config.raft.listen)[1],
        "http.listen": split_address(config.http.listen)[1],
        "postgresql.listen": config.postgresql.port,
    }
    for port, count in Counter(ports.values()).items():
        if count > 1:
            keys = [key for key, other in ports.items() if other == port]
            yield f"{keys[-1]}: port {port} is also that of {keys[0]}; give each a port of its own"


_CHECKS = (
    _members_agree,
    _bootstrap_reads,
    _parameters_are_local,
    _tls_is_one,
    _tags_fit,
    _paths_fit,
    _ports_differ,
)
