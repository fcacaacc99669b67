"""The commands about fleet files: ``check``, ``init``, ``schema``, ``list-processors``, ``run``."""

from __future__ import annotations

import importlib.resources
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from chronopype_mp.console.exit_status import EXIT_OK, EXIT_USAGE
from chronopype_mp.console.fleet_run import run_in_foreground
from chronopype_mp.exceptions import FleetError
from chronopype_mp.fleet.document import Node
from chronopype_mp.fleet.plan import FleetPlan, plan_of, read_files
from chronopype_mp.fleet.schema import json_schema
from chronopype_mp.fleet.targets import arguments_of, find, installed

__all__ = ["COMMANDS"]

files_argument = click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(dir_okay=False)
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _load(files: Sequence[str], as_json: bool) -> tuple[FleetPlan, Node] | None:
    """Read a fleet; print its problems and return None if there are any.

    Modules beside the first file can be imported, by their names as in the file.
    """
    sys.path.insert(0, os.path.dirname(os.path.abspath(files[0])))
    try:
        tree = read_files(files)
        return plan_of(tree), tree
    except FleetError as error:
        if as_json:
            _print_json({"ok": False, "problems": [p._asdict() for p in error.problems]})
        else:
            count = len(error.problems)
            click.echo(str(error), err=True)
            click.echo(f"{count} problem{'s' if count > 1 else ''}", err=True)
        return None


@click.command()
@files_argument
@json_option
def check(files: tuple[str, ...], as_json: bool) -> int:
    """Check a fleet file, with the options of all processors. No process is started.

    Several files are merged; later ones override earlier ones. The modules of the processors are
    imported. The exit status is 2 if there is a problem. All problems are shown.
    """
    loaded = _load(files, as_json)
    if loaded is None:
        return EXIT_USAGE
    plan, _ = loaded
    names = [worker.name for worker in plan.workers]
    if as_json:
        _print_json({"ok": True, "fleet": plan.settings.name, "workers": names})
    else:
        count = f"{len(names)} worker{'s' if len(names) > 1 else ''}"
        click.echo(f"fleet {plan.settings.name!r}: {count}, no problems")
    return EXIT_OK


@click.command()
@click.argument("file", default="fleet.toml", type=click.Path(dir_okay=False))
@json_option
def init(file: str, as_json: bool) -> int:
    """Write a commented fleet file to start from: fleet.toml, or FILE.

    A file that exists is left alone, and the exit status is 2.
    """
    starter = importlib.resources.files("chronopype_mp.fleet") / "starter.toml"
    try:
        with Path(file).open("x", encoding="utf-8") as opened:
            opened.write(starter.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "; give another name" if isinstance(error, FileExistsError) else ""
        raise click.UsageError(f"{file} cannot be written: {error.strerror}{hint}") from None
    if as_json:
        _print_json({"file": file})
    else:
        click.echo(f"{file} written; next: chronopype-mp check {file}")
    return EXIT_OK


@click.command()
@json_option
def schema(as_json: bool) -> int:
    """Print the JSON Schema of fleet files, for editors. It is JSON with and without --json."""
    _print_json(json_schema())
    return EXIT_OK


@click.command("list-processors")
@json_option
def list_processors(as_json: bool) -> int:
    """List the processors that installed packages offer, with their options.

    They have entry points in the group chronopype_mp.processors.
    """
    rows: list[dict[str, Any]] = []
    for name, path in installed().items():
        row: dict[str, Any] = {"name": name, "type": path, "options": None, "problem": None}
        try:
            row["options"] = arguments_of(find(name))
        except ValueError as error:
            row["problem"] = str(error)
        rows.append(row)
    if as_json:
        _print_json(rows)
        return EXIT_OK
    for row in rows:
        click.echo(f"{row['name']}  {row['type']}")
        for option in [row["problem"]] if row["problem"] else row["options"]:
            click.echo(f"    {option}")
    if not rows:
        click.echo('no package offers processors; write type = "package.module:Class"')
    return EXIT_OK


@click.command()
@files_argument
@json_option
def run(files: tuple[str, ...], as_json: bool) -> int:
    """Run a fleet in the foreground, until SIGTERM or Ctrl-C. SIGHUP reloads its files.

    Several files are merged; later ones override earlier ones. The log goes to standard error.
    With --json, each event is printed on standard output, as one line.

    The exit status is 0 if the fleet was stopped gracefully or has reached end_time, 1 if it could
    not go on, 2 if a file is wrong. A second signal kills the workers that have not stopped; the
    status is then 128 plus its number, 130 or 143.
    """
    loaded = _load(files, as_json)
    return EXIT_USAGE if loaded is None else run_in_foreground(*loaded, files, as_json)


COMMANDS = (check, init, schema, list_processors, run)
