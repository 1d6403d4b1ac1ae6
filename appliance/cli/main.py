"""The command `appliance`: how every ending becomes an exit code. What it understands: appliance/cli/commands/.

Imports late: `--help` reads nothing but typer and those files.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer
from typer.exceptions import TyperException

from appliance.cli.commands import certs, cluster, demo, members, operations, raft
from appliance.cli.commands import config as configuration
from appliance.cli.exits import Code, CommandError
from appliance.cli.options import hoisted
from appliance.cli.output import OutputError, say

app = typer.Typer(
    name="appliance",
    help="Three PostgreSQL hosts in, one highly available PostgreSQL out.",
    epilog="--config, --api and --token may stand anywhere. Without them: the node on this host, else your demo.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cluster.app)
app.add_typer(operations.app, name="operations")
app.add_typer(members.app, name="members")
app.add_typer(configuration.app, name="config")
app.add_typer(certs.app, name="certs")
app.add_typer(raft.app, name="raft")
app.add_typer(demo.app, name="demo")


@app.callback()
def anywhere(
    config: Annotated[str, typer.Option(metavar="FILE", help="A node's file, or a demo's directory.")] = "",
    api: Annotated[str, typer.Option(metavar="URL", help="A node's API; several with commas between.")] = "",
    token: Annotated[str, typer.Option(help="Bearer token for --api ($APPLIANCE_TOKEN does not show in ps).")] = "",
) -> None:
    given = {"APPLIANCE_CONFIG": config, "APPLIANCE_API": api, "APPLIANCE_TOKEN": token}
    os.environ.update({name: value for name, value in given.items() if value})
    if config and not api:
        # What is typed beats what the environment says.
        os.environ.pop("APPLIANCE_API", None)


def main() -> None:
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed by who started us; what is opened next must not take its place.
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115  # open as long as the process
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """One command line; every ending is a code and, if bad, one line on stderr that says what and what would do."""
    try:
        return int(app(hoisted(arguments), prog_name="appliance", standalone_mode=False) or 0)
    except CommandError as error:
        say(sys.stderr, f"appliance: {error}", *error.lines)
        return error.code
    except TyperException as error:
        return _usage(error)
    except (typer.Abort, KeyboardInterrupt):
        return Code.INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return Code.FAILED
    except OutputError as error:
        _drop_output()
        with suppress(OutputError):
            say(sys.stderr, f"appliance: {error}")
        return Code.FAILED
    except OSError as error:
        # Files that one may not read, a full disk: no defect of ours, so no traceback.
        if error.strerror is None:
            raise
        said = error.strerror.lower()
        say(sys.stderr, f"appliance: {error.filename}: {said}" if error.filename else f"appliance: {said}")
        return Code.NOT_ALLOWED if isinstance(error, PermissionError) else Code.FAILED


def _drop_output() -> None:
    """The reader went away, or its disk is full: nothing more to say, and nothing to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: TyperException) -> int:
    message = error.format_message().replace("Value error, ", "")
    if message.lower().startswith("usage:"):
        # A group without a command: its help.
        say(sys.stderr, message)
    else:
        first = message[:1].lower() + message[1:].rstrip(".")
        say(sys.stderr, f"appliance: {first}; see `appliance --help`")
    return Code.USAGE


if __name__ == "__main__":
    main()
