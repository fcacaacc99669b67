"""The command ``chronopype-mp``: parses the arguments, runs the command, returns the exit status.

A user's mistake is shown without a traceback and exits with status 2. Ctrl-C exits with status 130,
except in ``run``, which stops the fleet gracefully.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from chronopype_mp.console import chaos, control_commands, demo, fleet_commands
from chronopype_mp.console.demo_course import DemoError, DemoOptions
from chronopype_mp.console.doctor import doctor
from chronopype_mp.console.exit_status import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from chronopype_mp.console.top_command import top

__all__ = ["main"]

PROGRAM = "chronopype-mp"

LONGEST_RUN = 86_400.0
SHORTEST_TICK = 0.001


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the command's name; None for those of this process.

    Returns:
        The exit status, as `exit_status` defines it.
    """
    try:
        status = commands.main(
            None if argv is None else list(argv), prog_name=PROGRAM, standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return status if isinstance(status, int) else EXIT_OK


def _version() -> str:
    try:
        return importlib.metadata.version(PROGRAM)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), message="%(prog)s %(version)s")
def commands() -> None:
    """Run a clock that ticks processors, each in its own worker process.

    For completion in bash: eval "$(_CHRONOPYPE_MP_COMPLETE=bash_source chronopype-mp)"
    """


def _seconds(value: object) -> float:
    """Return a number of seconds. Click puts the option's name before the error."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not SHORTEST_TICK <= number <= LONGEST_RUN:
        raise click.BadParameter(
            f"{value!r}: must be a number of seconds from {SHORTEST_TICK:g} to {LONGEST_RUN:g}"
        )
    return number


@commands.command("demo")
@click.option(
    "--seconds",
    type=_seconds,
    default=30.0,
    metavar="N",
    help="Seconds to run (default 30; runs under 15 do not judge the faults).",
)
@click.option(
    "--tick-size",
    type=_seconds,
    default=0.1,
    metavar="S",
    help="Seconds between ticks (default 0.1).",
)
@click.option("--plain", is_flag=True, help="Print a line per event instead of a live table.")
@click.option(
    "--chaos",
    "with_chaos",
    is_flag=True,
    help="Instead, inject ten faults into one worker, one by one, and show what was detected.",
)
def demo_command(seconds: float, tick_size: float, plain: bool, with_chaos: bool) -> int:
    """Run eight feeds of a troubled exchange, a strategy and two faulty workers.

    Eleven workers run against real HTTP and WebSocket servers on loopback. Eight read the feeds of
    an exchange, which bans, limits, drops and ignores six of them for a while. A strategy trades on
    their prices; it is killed once and keeps its positions. One worker blocks its event loop, and
    one segfaults. The demo ends with a verdict. The exit status is 1 if a fault spread, a worker
    did not recover or a position is wrong.
    """
    if tick_size > seconds:
        raise click.UsageError(
            f"--tick-size {tick_size:g}: must not exceed --seconds {seconds:g}, because no tick "
            "would be due"
        )
    if with_chaos:
        return chaos.run()
    try:
        return demo.run(DemoOptions(seconds=seconds, tick_size=tick_size, plain=plain))
    except DemoError as error:
        print(f"{PROGRAM} demo: {error}", file=sys.stderr)
        return error.status


@commands.command(
    "bench",
    add_help_option=False,  # the benchmarks parse the arguments
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench_command(arguments: tuple[str, ...]) -> int:
    """Run a benchmark next to a reference: bench NAME, see bench --help.

    The benchmarks are inside an installed package, or next to it in a checkout.
    """
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "bench", package.parent):
        if (directory / "benchmarks" / "__main__.py").is_file():
            sys.path.insert(0, str(directory))
            benchmarks = importlib.import_module("benchmarks.__main__")
            try:
                status: int = benchmarks.main(list(arguments), f"{PROGRAM} bench")
            except SystemExit as error:  # of argparse: --help, or a wrong argument
                return error.code if isinstance(error.code, int) else EXIT_OK
            return status
    print(f"{PROGRAM}: no benchmarks found in {package} or next to it", file=sys.stderr)
    return EXIT_FAILED


for command in (*fleet_commands.COMMANDS, *control_commands.COMMANDS, top, doctor):
    commands.add_command(command)
