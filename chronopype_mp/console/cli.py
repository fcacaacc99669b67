"""The command ``chronopype-mp``: parses the arguments, runs the command, returns the exit status.

A usage error prints one line and exits with status 2, without a traceback. Ctrl-C exits with
status 130.
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
        argv: the arguments after the command's name; None for those of this process.

    Returns:
        The exit status: 0 for success, 1 for a bad verdict or a failed benchmark, 2 for invalid
        arguments or a missing dependency, 130 after Ctrl-C.
    """
    try:
        parser, demo_parser = _parsers()
        given = _joined(sys.argv[1:] if argv is None else argv)
        if given[:1] == ["bench"]:
            return _bench(parser, given[1:])
        arguments = parser.parse_args(given)
        return _demo(demo_parser, arguments)
    except SystemExit as end:  # argparse has already printed its message
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _demo(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.tick_size > arguments.seconds:
        parser.error(
            f"--tick-size {arguments.tick_size:g}: must not exceed --seconds "
            f"{arguments.seconds:g}, because no tick would be due"
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
    """Run the benchmarks. They are inside an installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "bench", package.parent):
        if (directory / "benchmarks" / "__main__.py").is_file():
            sys.path.insert(0, str(directory))
            status: int = importlib.import_module("benchmarks.__main__").main(
                argv, f"{parser.prog} bench"
            )
            return status
    print(f"{parser.prog}: no benchmarks found in {package} or next to it", file=sys.stderr)
    return EXIT_FAILED


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog="chronopype-mp",
        description="A clock that ticks processors, each in its own worker process.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"chronopype-mp {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    demo_parser = commands.add_parser(
        "demo",
        help="run eight feeds of a troubled exchange and two faulty workers",
        description="Run ten workers against real HTTP and WebSocket servers on loopback. Eight "
        "read the feeds of an exchange, which bans, limits, drops and ignores six of them for a "
        "while. One worker blocks its event loop, and one segfaults. The demo ends with a verdict. "
        "The exit status is 1 if a fault spread or a worker did not recover.",
        allow_abbrev=False,
    )
    demo_parser.add_argument(
        "--seconds",
        type=_number(SHORTEST_TICK, LONGEST_RUN),
        default=30.0,
        metavar="N",
        help="seconds to run (default %(default)g; runs under 15 do not judge the faults)",
    )
    demo_parser.add_argument(
        "--tick-size",
        type=_number(SHORTEST_TICK, LONGEST_RUN),
        default=0.1,
        metavar="S",
        help="seconds between ticks (default %(default)g)",
    )
    demo_parser.add_argument(
        "--plain", action="store_true", help="print a line per event instead of a live table"
    )
    demo_parser.add_argument(
        "--chaos",
        action="store_true",
        help="instead, inject ten faults into one worker, one by one, and show what was detected",
    )
    commands.add_parser(
        "bench",
        help="run a benchmark next to a reference: bench NAME, see bench --help",
        add_help=False,  # the benchmarks parse the remaining arguments
    )
    return parser, demo_parser


def _number(least: float, most: float) -> Callable[[str], float]:
    """Return an argparse type for seconds. argparse puts the option's name before its error."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r}: must be a number of seconds from {least:g} to {most:g}"
            )
        return value

    return read


def _joined(argv: Sequence[str]) -> list[str]:
    """Rewrite ``--option -inf`` as ``--option=-inf``. argparse takes ``-inf`` for an option."""
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
