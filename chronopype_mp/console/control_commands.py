"""The commands that operate a running fleet, through `FleetClient`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from chronopype_mp.console.client import FleetClient
from chronopype_mp.console.exit_status import (
    EXIT_FAILED,
    EXIT_NO_FLEET,
    EXIT_OK,
    EXIT_TIMEOUT,
    EXIT_USAGE,
)
from chronopype_mp.console.status_table import status_lines
from chronopype_mp.control.messages import Acted, ErrorKind
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.exceptions import ControlError
from chronopype_mp.fleet.changes import Changes
from chronopype_mp.fleet.directory import known_fleets
from chronopype_mp.fleet.durations import seconds_of

__all__ = ["COMMANDS", "STATUSES"]

COMPLETION_TIMEOUT = 1.0
"""Seconds; the shell waits meanwhile."""

STATUSES = {
    ErrorKind.UNKNOWN_WORKER.value: EXIT_USAGE,
    ErrorKind.NOT_SUPPORTED.value: EXIT_USAGE,
    ErrorKind.BAD_ARGUMENTS.value: EXIT_USAGE,
    ErrorKind.BAD_FILE.value: EXIT_USAGE,
    ErrorKind.NOT_RUNNING.value: EXIT_NO_FLEET,
    ErrorKind.NO_ANSWER.value: EXIT_NO_FLEET,
    ErrorKind.VERSION.value: EXIT_NO_FLEET,
    ErrorKind.TIMEOUT.value: EXIT_TIMEOUT,
}
"""The exit statuses of control errors; `EXIT_FAILED` of all others."""


class Duration(click.ParamType[float]):
    """Seconds, or a duration such as "250ms"."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = seconds_of(value)
            except ValueError as error:
                self.fail(f"{value!r} {error}", param, ctx)
        if not 0.0 < seconds <= 86_400.0:
            self.fail(f"{value!r} must be more than 0 and at most a day", param, ctx)
        return seconds


def _complete_workers(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    async def names() -> list[str]:
        async with asyncio.timeout(COMPLETION_TIMEOUT), FleetClient(ctx.params.get("fleet")) as f:
            return [row.worker for row in (await f.status()).workers]

    with contextlib.suppress(ControlError, TimeoutError, OSError):
        return [CompletionItem(n) for n in asyncio.run(names()) if n.startswith(incomplete)]
    return []


def _complete_fleets(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    names = [fleet.name for fleet in known_fleets() if fleet.is_alive]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


fleet_option = click.option(
    "--fleet",
    metavar="NAME",
    shell_complete=_complete_fleets,
    is_eager=True,
    help="The fleet; default: the only one that runs.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
all_workers = click.argument(
    "workers", nargs=-1, metavar="[WORKER]...", shell_complete=_complete_workers
)
some_workers = click.argument(
    "workers", nargs=-1, metavar="WORKER...", required=True, shell_complete=_complete_workers
)
timeout_option = click.option(
    "--timeout",
    type=Duration(),
    default="60s",
    show_default=True,
    metavar="T",
    help="How long to wait.",
)


class WaitCommand(click.Command):
    """A command with `wait_option`, whose value must be given with ``=``.

    Click itself would take the name of a worker after ``--wait`` for the value.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        (option,) = [each for each in self.params if each.name == "wait"]
        given = f"--wait={option.flag_value}" if isinstance(option, click.Option) else ""
        end = args.index("--") if "--" in args else len(args)
        args = [given if arg == "--wait" else arg for arg in args[:end]] + args[end:]
        return super().parse_args(ctx, args)


def wait_option(*states: str) -> Callable[[Any], Any]:
    """Return the option ``--wait`` of a `WaitCommand`; without a value it means the first state."""
    return click.option(
        "--wait",
        is_flag=False,
        flag_value=states[0],
        type=click.Choice(states),
        metavar=f"[={'|'.join(states)}]" if len(states) > 1 else "",
        help=f"Wait until the workers are {' or '.join(states)}.",
    )


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=repr)).decode())


def controlling(command: Callable[..., Awaitable[int]]) -> Callable[..., int]:
    """Make a command of a coroutine function, whose first argument is a client of the fleet.

    The options ``--fleet`` and ``--json`` are added. A control error is shown in one line, or as
    JSON, and has its exit status.
    """

    @fleet_option
    @json_option
    @functools.wraps(command)
    def run(fleet: str | None, as_json: bool, **arguments: Any) -> int:
        async def connected() -> int:
            async with FleetClient(fleet) as client:
                return await command(client, as_json=as_json, **arguments)

        try:
            return asyncio.run(connected())
        except ControlError as error:
            if as_json:
                _print_json({"ok": False, "kind": error.kind, "error": error.problem})
            else:
                click.echo(f"Error: {error.problem}", err=True)
            return STATUSES.get(error.kind, EXIT_FAILED)
        except BrokenPipeError:  # such as `events | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_OK

    return run


def _show(done: Sequence[Acted], as_json: bool) -> int:
    if as_json:
        _print_json({"ok": True, "workers": done})
    else:
        for each in done:
            click.echo(f"{each.worker}: {each.did}")
        if not done:
            click.echo("no workers")
    return EXIT_OK


@click.command()
@all_workers
@controlling
async def status(fleet: FleetClient, workers: tuple[str, ...], as_json: bool) -> int:
    """Show how the workers of a running fleet are; all, or those named. Names may be globs."""
    found = await fleet.status(*workers)
    if as_json:
        _print_json(found)
    else:
        for line in status_lines(found):
            click.echo(line)
    return EXIT_OK


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Wait for further events, until Ctrl-C.")
@controlling
async def events(fleet: FleetClient, follow: bool, as_json: bool) -> int:
    """Show what has happened in a running fleet: the last 5,000 events.

    With --json, each event is a line. With --follow, the events from now on are shown; those that
    were missed are counted.
    """
    async for event in fleet.events(since_start=not follow, follow=follow):
        click.echo(json.dumps(event) if as_json else event_line(event))
    return EXIT_OK


def event_line(event: dict[str, Any]) -> str:
    """Return an event in one line."""
    rest = {
        name: value
        for name, value in event.items()
        if name not in ("event", "at", "worker", "stacks", "output", "error", "traceback")
        and value not in (None, "", 0, [])
    }
    rest |= {  # on the wire they are numbers
        name: NetworkStatus(event[name]).name
        for name in ("before", "after", "network_status")
        if name in event
    }
    at = event.get("at")
    when = "" if at is None else f"{datetime.fromtimestamp(at):%H:%M:%S.%f}"[:12] + " "
    what = " ".join(f"{name}={value}" for name, value in rest.items())
    return f"{when}{event.get('worker') or '-'} {event['event']} {what}".rstrip()


@click.command()
@all_workers
@controlling
async def failures(fleet: FleetClient, workers: tuple[str, ...], as_json: bool) -> int:
    """Show the dossiers of workers that died: the last 20 of each since the fleet's start."""
    found = await fleet.failures(*workers)
    if as_json:
        _print_json(found)
        return EXIT_OK
    for dossier in found:
        click.echo(f"{datetime.fromtimestamp(dossier['at']):%Y-%m-%d %H:%M:%S} {dossier['report']}")
    if not found:
        click.echo("no worker has died")
    return EXIT_OK


@click.command(cls=WaitCommand)
@some_workers
@wait_option("ready", "connected")
@timeout_option
@controlling
async def start(
    fleet: FleetClient, workers: tuple[str, ...], wait: Any, timeout: float, as_json: bool
) -> int:
    """Start workers that are stopped or quarantined. Names may be globs."""
    return _show(await fleet.start(*workers, wait=wait, timeout=timeout), as_json)


@click.command(cls=WaitCommand)
@some_workers
@wait_option("stopped")
@timeout_option
@controlling
async def stop(
    fleet: FleetClient, workers: tuple[str, ...], wait: Any, timeout: float, as_json: bool
) -> int:
    """Stop workers gracefully, until they are started again. Names may be globs."""
    done = await fleet.stop(*workers, wait=wait is not None, timeout=timeout)
    return _show(done, as_json)


@click.command(cls=WaitCommand)
@click.argument("workers", nargs=-1, metavar="[WORKER]...", shell_complete=_complete_workers)
@click.option("--all", "all_of_them", is_flag=True, help="All workers; waits for them.")
@click.option("--rolling", is_flag=True, help="With --all: each is back before the next one.")
@wait_option("ready", "connected")
@timeout_option
@controlling
async def restart(
    fleet: FleetClient,
    workers: tuple[str, ...],
    all_of_them: bool,
    rolling: bool,
    wait: Any,
    timeout: float,
    as_json: bool,
) -> int:
    """Restart workers with the settings with which they run. Names may be globs.

    With --rolling, the timeout is for each worker.
    """
    if all_of_them == bool(workers):
        raise click.UsageError("name workers, or give --all")
    if rolling and not all_of_them:
        raise click.UsageError("--rolling needs --all")
    if all_of_them:
        return _show(await fleet.restart_all(rolling=rolling, timeout=timeout), as_json)
    return _show(await fleet.restart(*workers, wait=wait, timeout=timeout), as_json)


@click.command()
@some_workers
@controlling
async def pause(fleet: FleetClient, workers: tuple[str, ...], as_json: bool) -> int:
    """Hold back the ticks of workers; their connections stay. Names may be globs."""
    return _show(await fleet.pause(*workers), as_json)


@click.command()
@some_workers
@controlling
async def resume(fleet: FleetClient, workers: tuple[str, ...], as_json: bool) -> int:
    """Let paused workers tick again. Names may be globs."""
    return _show(await fleet.resume(*workers), as_json)


@click.command(cls=WaitCommand)
@some_workers
@wait_option("connected")
@timeout_option
@controlling
async def reconnect(
    fleet: FleetClient, workers: tuple[str, ...], wait: Any, timeout: float, as_json: bool
) -> int:
    """Have workers connect anew, now. Names may be globs."""
    return _show(await fleet.reconnect(*workers, wait=wait, timeout=timeout), as_json)


def _show_changes(changes: Changes, as_json: bool, *, would: bool = False) -> int:
    if as_json:
        _print_json({"ok": True, **msgspec.structs.asdict(changes)})
        return EXIT_OK
    for verb, names in msgspec.structs.asdict(changes).items():
        for name in names:
            click.echo(f"{name}: {f'would {verb}' if would else verb}")
    if changes == Changes():
        click.echo("nothing to change")
    return EXIT_OK


@click.command(cls=WaitCommand)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@wait_option("ready", "connected")
@timeout_option
@controlling
async def reload(
    fleet: FleetClient, dry_run: bool, wait: Any, timeout: float, as_json: bool
) -> int:
    """Have a running fleet read its files again, and change only what differs.

    A file with a mistake changes nothing. What add and remove did without --save is undone.
    """
    changes = await fleet.reload(dry_run=dry_run, wait=wait, timeout=timeout)
    return _show_changes(changes, as_json, would=dry_run)


@click.command(cls=WaitCommand)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--save", is_flag=True, help="Append FILE to the fleet's last file.")
@wait_option("ready", "connected")
@timeout_option
@controlling
async def add(
    fleet: FleetClient, file: str, save: bool, wait: Any, timeout: float, as_json: bool
) -> int:
    """Start the workers of FILE, which has [[processor]] only, in a running fleet.

    Without --save, the next reload stops them.
    """
    return _show_changes(await fleet.add(file, save=save, wait=wait, timeout=timeout), as_json)


@click.command()
@some_workers
@click.option("--save", is_flag=True, help="Delete them from the fleet's files, too.")
@timeout_option
@controlling
async def remove(
    fleet: FleetClient, workers: tuple[str, ...], save: bool, timeout: float, as_json: bool
) -> int:
    """Stop workers gracefully and forget them. Names may be globs.

    Without --save, the next reload starts them again.
    """
    return _show_changes(await fleet.remove(*workers, save=save, timeout=timeout), as_json)


@click.command("is-ready")
@all_workers
@click.option("--connected", is_flag=True, help="They must be connected as well.")
@controlling
async def is_ready(
    fleet: FleetClient, workers: tuple[str, ...], connected: bool, as_json: bool
) -> int:
    """Tell by the exit status whether workers are ready: 0 if all are, else 1."""
    ready = await fleet.is_ready(*workers, connected=connected)
    if as_json:
        _print_json({"ready": ready})
    else:
        click.echo("ready" if ready else "not ready")
    return EXIT_OK if ready else EXIT_FAILED


@click.command()
@click.argument("worker", shell_complete=_complete_workers)
@click.argument("method")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT | NAME=ARGUMENT]...")
@timeout_option
@controlling
async def call(
    fleet: FleetClient,
    worker: str,
    method: str,
    arguments: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> int:
    """Call a method of a worker that is marked with @remote, and print its result as JSON.

    An argument is read as JSON if it is JSON, else it is text. Put -- in front of negative numbers.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = json_or_text(value)
        else:
            args.append(json_or_text(argument))
    result = await fleet.call(worker, method, *args, kwargs=kwargs, timeout=timeout)
    _print_json({"ok": True, "result": result} if as_json else result)
    return EXIT_OK


def json_or_text(text: str) -> Any:
    """Return the value of a text that is JSON, or the text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


@click.command()
@click.option("--wait", is_flag=True, help="Wait until the fleet has stopped.")
@timeout_option
@controlling
async def shutdown(fleet: FleetClient, wait: bool, timeout: float, as_json: bool) -> int:
    """Stop a running fleet gracefully, as SIGTERM does."""
    await fleet.shutdown(wait=wait, timeout=timeout)
    if as_json:
        _print_json({"ok": True, "fleet": fleet.fleet.name, "pid": fleet.fleet.pid})
    else:
        click.echo(f"{fleet.fleet.name}: {'stopped' if wait else 'stopping'}")
    return EXIT_OK


@click.command()
@json_option
def fleets(as_json: bool) -> int:
    """List the fleets of this user on this machine, with those that have died."""
    known = known_fleets()
    if as_json:
        rows = [
            {"name": f.name, "pid": f.pid, "alive": f.is_alive, "directory": str(f.path)}
            for f in known
        ]
        _print_json(rows)
        return EXIT_OK
    for fleet in known:
        click.echo(f"{fleet.name}  pid {fleet.pid}  {'runs' if fleet.is_alive else 'has died'}")
    if not known:
        click.echo("no fleet runs")
    return EXIT_OK


COMMANDS = (
    status,
    events,
    failures,
    start,
    stop,
    restart,
    pause,
    resume,
    reconnect,
    reload,
    add,
    remove,
    is_ready,
    call,
    shutdown,
    fleets,
)
