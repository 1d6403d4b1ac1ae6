"""Whether PostgreSQL would take the configured values, asked of its own program before any member is given them."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from appliance.postgres.binaries import Binaries
from appliance.postgres.commands import run
from appliance.postgres.errors import PostgresError, SettingsError
from appliance.postgres.last_words import plain
from appliance.postgres.settings import Settings, check_settings

_LIMIT_S = 5.0


def check_values(binaries: Binaries, data_dir: Path, settings: Settings) -> None:
    """Raises SettingsError with PostgreSQL's words. Contradictions between values show at a start only.

    `data_dir` holds a cluster, running or not; nothing in it changes.
    """
    check_settings(settings)
    objection = _objection(binaries, data_dir, settings.parameters)
    if objection:
        raise SettingsError(f"PostgreSQL refuses its settings: {objection}")


def refused_values(binaries: Binaries, parameters: Mapping[str, str]) -> Mapping[str, str]:
    """By name, why PostgreSQL would not take a value; needs no data directory.

    Raises PostgresError when it cannot be asked.
    """
    with TemporaryDirectory(prefix="appliance-") as directory:
        empty = Path(directory)
        (empty / "postgresql.conf").touch()
        if not _objection(binaries, empty, parameters):
            return {}
        # It stops at the first one that it does not take.
        objections = {name: _objection(binaries, empty, {name: value}) for name, value in parameters.items()}
    return {name: said + _nearest(binaries, name, said) for name, said in objections.items() if said}


def _objection(binaries: Binaries, data_dir: Path, parameters: Mapping[str, str]) -> str:
    options = [part for name, value in parameters.items() for part in ("-c", f"{name}={value}")]
    try:
        # In the first place -C is allowed to root too.
        run([binaries.tool("postgres"), "-C", "server_version", "-D", str(data_dir), *options], limit_s=_LIMIT_S)
    except PostgresError as error:
        if error.exit_code is None:
            raise
        return plain(error.lines) or f"no reason was given, exit {error.exit_code}"
    return ""


def _nearest(binaries: Binaries, name: str, said: str) -> str:
    if "unrecognized configuration parameter" not in said:
        return ""
    described = run([binaries.tool("postgres"), "--describe-config"], limit_s=_LIMIT_S).splitlines()
    near = difflib.get_close_matches(name.lower(), [line.partition("\t")[0] for line in described], n=1)
    return f"; did you mean {near[0]}?" if near else ""
