"""The command ``chronopype-mp top``: the options, and what it does without a terminal."""

from __future__ import annotations

import asyncio
import sys

import click
import msgspec

from chronopype_mp.console.client import FleetClient
from chronopype_mp.console.control_commands import Duration, controlling
from chronopype_mp.console.exit_status import EXIT_OK

__all__ = ["top"]


@click.command()
@click.option(
    "--interval",
    type=Duration(),
    default="1s",
    show_default=True,
    metavar="T",
    help="How often to read the fleet's status.",
)
@controlling
async def top(fleet: FleetClient, interval: float, as_json: bool) -> int:
    """Watch a running fleet and operate its workers: the keys are at the bottom of the screen.

    It goes on when the fleet ends or does not answer, and shows it again when it is back. With
    --json, the status is printed as a line of JSON for each interval instead, until Ctrl-C.
    """
    if as_json:
        while True:
            click.echo(msgspec.json.encode(await fleet.status()))
            await asyncio.sleep(interval)
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise click.ClickException("top needs a terminal; use --json, or the command status")
    try:
        from chronopype_mp.console.top import FleetTop  # an optional dependency
    except ModuleNotFoundError as error:
        needs = f"top needs {error.name}; install it with: pip install 'chronopype-mp[top]'"
        raise click.ClickException(needs) from error
    app = FleetTop(fleet.fleet.name, interval)
    await app.run_async()
    return app.return_code or EXIT_OK
