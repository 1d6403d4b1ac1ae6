"""ALTER SYSTEM writes postgresql.auto.conf, which wins over every other file: what it says about ours is found here."""

import re
from collections.abc import Collection
from pathlib import Path

from appliance.postgres.files import read_text, write_atomically

AUTO_CONF = "postgresql.auto.conf"
COPY = "postgresql.auto.conf.before-appliance"
_LINE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_$.]*)\s*(?:=\s*|\s)(.*?)\s*")
_MARK = "# pg-appliance: the cluster's configuration decides: "


def foreign_auto_conf(data_dir: Path, names: Collection[str]) -> dict[str, str]:
    """The parameters of `names` (lower case) that ALTER SYSTEM has set, with their values as written there."""
    found = (_parameter(line) for line in _read(data_dir).splitlines())
    return {name: value for name, value in filter(None, found) if name in names}


def clean_auto_conf(data_dir: Path, names: Collection[str]) -> dict[str, str]:
    """Comment those lines out and say which they were; the first file that had such lines is kept beside it."""
    foreign = foreign_auto_conf(data_dir, names)
    if not foreign:
        return {}
    present = _read(data_dir)
    if not (data_dir / COPY).exists():
        write_atomically(data_dir / COPY, present)
    write_atomically(data_dir / AUTO_CONF, "".join(_cleaned(line, names) for line in present.splitlines(keepends=True)))
    return foreign


def _cleaned(line: str, names: Collection[str]) -> str:
    parameter = _parameter(line.rstrip("\n"))
    return f"{_MARK}{line}" if parameter and parameter[0] in names else line


def _parameter(line: str) -> tuple[str, str] | None:
    match = None if line.lstrip().startswith("#") else _LINE.fullmatch(line)
    return (match[1].lower(), _unquoted(match[2])) if match else None


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'").replace("\\\\", "\\")
    return value


def _read(data_dir: Path) -> str:
    return read_text(data_dir / AUTO_CONF) or ""
