"""The command ``chronopype-mp``: reads the arguments, calls the rest, returns the exit status.

A mistake of the user's is one line and status 2, never a traceback; Ctrl-C is status 130.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from chronopype_mp.console import chaos, demo
from chronopype_mp.console.demo_course import DemoError, DemoOptions

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_USAGE", "main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

LONGEST_RUN = 86_400.0
SHORTEST_TICK = 0.001


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the command's name; None for the process' own.

    Returns:
        The exit status: 0 success, 1 the verdict was bad or a benchmark failed, 2 a mistake in the
        arguments or a missing dependency, 130 after Ctrl-C.
    """
    try:
        parser, demo_parser = _parsers()
        given = _joined(sys.argv[1:] if argv is None else argv)
        if given[:1] == ["bench"]:
            return _bench(parser, given[1:])
        arguments = parser.parse_args(given)
        return _demo(demo_parser, arguments)
    except SystemExit as end:  # argparse ends so, after it has printed what it had to say
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _demo(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.tick_size > arguments.seconds:
        parser.error(
            f"--tick-size {arguments.tick_size:g}: must not be above --seconds "
            f"{arguments.seconds:g}, or no tick is due"
        )
    if arguments.chaos:
        return chaos.run()
    options = DemoOptions(
        seconds=arguments.seconds, tick_size=arguments.tick_size, plain=arguments.plain
    )
    try:
        return demo.run(options)
    except DemoError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.status


def _bench(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    """Hand over to the benchmarks: in an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "bench", package.parent):
        if (directory / "benchmarks" / "__main__.py").is_file():
            sys.path.insert(0, str(directory))
            status: int = importlib.import_module("benchmarks.__main__").main(
                argv, f"{parser.prog} bench"
            )
            return status
    print(f"{parser.prog}: the benchmarks are neither in {package} nor beside it", file=sys.stderr)
    return EXIT_FAILED


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog="chronopype-mp",
        description="A clock that ticks processors, each in a worker process of its own.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"chronopype-mp {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    demo_parser = commands.add_parser(
        "demo",
        help="run eight workers against real servers, three of them in trouble",
        description="Eight workers against real HTTP and WebSocket servers on loopback: five "
        "healthy, one that blocks its event loop, one that segfaults, one that loses its server. "
        "Ends with a verdict; the exit status is 1 if trouble spread or was not overcome.",
        allow_abbrev=False,
    )
    demo_parser.add_argument(
        "--seconds",
        type=_number(SHORTEST_TICK, LONGEST_RUN),
        default=30.0,
        metavar="N",
        help="how long to run (default %(default)g; trouble is judged from 15 on)",
    )
    demo_parser.add_argument(
        "--tick-size",
        type=_number(SHORTEST_TICK, LONGEST_RUN),
        default=0.1,
        metavar="S",
        help="seconds between two ticks (default %(default)g)",
    )
    demo_parser.add_argument(
        "--plain", action="store_true", help="a line for each event instead of a live table"
    )
    demo_parser.add_argument(
        "--chaos",
        action="store_true",
        help="instead, hurt one worker in ten ways, one after another, and show what was found",
    )
    commands.add_parser(
        "bench",
        help="measure, beside a reference in the same run: bench NAME, see bench --help",
        add_help=False,  # the benchmarks read what follows
    )
    return parser, demo_parser


def _number(least: float, most: float) -> Callable[[str], float]:
    """Return a reader of seconds for argparse, whose error it prints behind the option's name."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r}: must be a number of seconds, {least:g} to {most:g}"
            )
        return value

    return read


def _joined(argv: Sequence[str]) -> list[str]:
    """Write ``--option -inf`` as ``--option=-inf``, which argparse does not take for an option."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in ("--seconds", "--tick-size") and _is_negative(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _is_negative(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.startswith("-")


def _version() -> str:
    try:
        return importlib.metadata.version("chronopype-mp")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
