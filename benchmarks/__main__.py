"""``python -m benchmarks NAME [--json FILE] [--plot FILE.png] [--quick]``."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measures import MeasurementError
from benchmarks.registry import BENCHMARKS, find
from benchmarks.report import Report, facts

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks") -> int:
    """Run one benchmark and print its report.

    Args:
        argv: the arguments; None for those of this process.
        prog: the program's name in messages.

    Returns:
        The exit status: 0 for success, 1 if something that was to be measured did not happen, 130
        after Ctrl-C.

    Raises:
        SystemExit: with status 2, after printing an error, if the arguments are invalid.
    """
    parser = _parser(prog)
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(given)
    if arguments.plot is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib; install with: pip install 'chronopype-mp[bench]'")
    machine = facts()
    logger = logging.getLogger("chronopype_mp")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # some benchmarks inject faults into workers
    try:
        result = find(arguments.name)(arguments.quick)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except MeasurementError as error:
        print(f"{prog}: {arguments.name}: {error}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        logger.setLevel(level)
    report = Report(name=arguments.name, machine=machine, argv=given, rows=result.rows)
    print(report)
    for name, reason in result.skipped.items():
        print(f"  skipped: {name} ({reason})")
    if arguments.json is not None:
        report.write(arguments.json)
    if arguments.plot is not None:
        from benchmarks.plot import draw  # matplotlib is an extra

        draw(report, arguments.plot)
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<12} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        description=f"Run a benchmark and its references in one run.\n\nbenchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "name", choices=list(BENCHMARKS), metavar="NAME", help="one of the benchmarks above"
    )
    parser.add_argument(
        "--json", type=_new_file(), metavar="FILE", help="also write the report to FILE"
    )
    parser.add_argument(
        "--plot", type=_new_file(".png"), metavar="FILE.png", help="plot the report to FILE.png"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run a small part once, without peers, to check that the benchmark works",
    )
    return parser


def _new_file(suffix: str = "") -> Callable[[str], Path]:
    """Return an argparse type for the path of a writable file."""

    def read(text: str) -> Path:
        path = Path(text)
        if path.suffix != suffix and suffix:
            raise argparse.ArgumentTypeError(f"{text!r}: must end in {suffix}")
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise argparse.ArgumentTypeError(f"{text!r}: cannot be written")
        return path

    return read


if __name__ == "__main__":
    sys.exit(main())
