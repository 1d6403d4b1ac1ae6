"""Whether PostgreSQL would take the configured values, asked of its own program before any member is given them."""

from pathlib import Path

from appliance.postgres.binaries import Binaries
from appliance.postgres.commands import run
from appliance.postgres.errors import PostgresError, SettingsError
from appliance.postgres.settings import Settings, check_settings

_LIMIT_S = 5.0


def check_values(binaries: Binaries, data_dir: Path, settings: Settings) -> None:
    """Raises SettingsError with PostgreSQL's words. Contradictions between values show at a start only.

    `data_dir` holds a cluster, running or not; nothing in it changes.
    """
    check_settings(settings)
    options = [part for name, value in settings.parameters.items() for part in ("-c", f"{name}={value}")]
    try:
        run([binaries.tool("postgres"), "-D", str(data_dir), *options, "-C", "server_version"], limit_s=_LIMIT_S)
    except PostgresError as error:
        raise SettingsError("; ".join(error.lines)) from error
