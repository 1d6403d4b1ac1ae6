"""The clients' tables, a schema for each segment of a run, and every statement that is sent to them.

Each operation is one statement and so one transaction: what came of it is what came of its commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.checks import ACCOUNTS, BALANCE, Contents
from tests.harness.node import Node

_WHO = "current_setting('cluster_name')"
_TIMELINE = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer"
NAMES = ("inserts", "transfers", "bank", "lists")


@dataclass(frozen=True, slots=True)
class Tables:
    schema: str

    def make(self) -> str:
        return f"""
            CREATE SCHEMA {self.schema};
            CREATE TABLE {self.schema}.inserts (id bigint PRIMARY KEY);
            CREATE TABLE {self.schema}.transfers (
                id bigint PRIMARY KEY, source integer NOT NULL, target integer NOT NULL, amount bigint NOT NULL);
            CREATE TABLE {self.schema}.bank (
                account integer PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
            CREATE TABLE {self.schema}.lists (key text PRIMARY KEY, items bigint[] NOT NULL);
            INSERT INTO {self.schema}.bank SELECT generate_series(0, {ACCOUNTS - 1}), {BALANCE};
        """

    def drop(self) -> str:
        return f"DROP SCHEMA {self.schema} CASCADE"

    def insert(self, id_: int) -> str:
        return f"INSERT INTO {self.schema}.inserts VALUES ({id_}) RETURNING {_WHO}, {_TIMELINE}"

    def transfer(self, id_: int, moved: tuple[int, int, int]) -> str:
        source, target, amount = moved
        return f"""
            WITH noted AS (INSERT INTO {self.schema}.transfers VALUES ({id_}, {source}, {target}, {amount})),
            moved AS (
                UPDATE {self.schema}.bank
                SET balance = balance + CASE account WHEN {source} THEN -{amount} ELSE {amount} END
                WHERE account IN ({source}, {target}))
            SELECT {_WHO}, {_TIMELINE}
        """

    def append(self, id_: int, key: str) -> str:
        return f"""
            INSERT INTO {self.schema}.lists VALUES ('{key}', ARRAY[{id_}])
            ON CONFLICT (key) DO UPDATE SET items = lists.items || excluded.items
            RETURNING {_WHO}, {_TIMELINE}, items
        """

    def read(self, key: str) -> str:
        """In one snapshot; of a standby too."""
        return f"""
            SELECT {_WHO}, 0, coalesce((SELECT items FROM {self.schema}.lists WHERE key = '{key}'), ARRAY[]::bigint[]),
                (SELECT sum(balance)::bigint FROM {self.schema}.bank)
        """

    def contents(self, node: Node) -> Contents:
        transfers = node.sql(f"SELECT id, source, target, amount FROM {self.schema}.transfers")
        return Contents(
            inserts=frozenset(id_ for (id_,) in node.sql(f"SELECT id FROM {self.schema}.inserts")),
            transfers={id_: (source, target, amount) for id_, source, target, amount in transfers},
            balances=dict(node.sql(f"SELECT account, balance FROM {self.schema}.bank")),
            lists={key: tuple(items) for key, items in node.sql(f"SELECT key, items FROM {self.schema}.lists")},
        )

    def same(self, nodes: Sequence[Node]) -> bool:
        """Whether all of them hold the same rows."""
        return len({self._digest(node) for node in nodes}) == 1

    def _digest(self, node: Node) -> tuple[str | None, ...]:
        digests = (
            f"(SELECT md5(string_agg(t::text, ' ' ORDER BY t::text COLLATE \"C\")) FROM {self.schema}.{name} t)"
            for name in NAMES
        )
        return node.sql(f"SELECT {', '.join(digests)}")[0]
