"""`appliance operations`."""

from typing import Annotated

import typer

from appliance.cli.options import Output
from appliance.cli.output import Format

app = typer.Typer(help="Switchovers and failovers, under way and past.", no_args_is_help=True)


@app.command("list")
def list_operations(output: Output = Format.TABLE) -> int:
    """The last 50, newest first."""
    from appliance.cli import reads

    return reads.operations(output)


@app.command()
def show(operation: Annotated[str, typer.Argument(metavar="ID")], output: Output = Format.TABLE) -> int:
    """One operation with its phases."""
    from appliance.cli import reads

    return reads.operation(operation, output)
