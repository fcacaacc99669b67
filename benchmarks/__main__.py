"""``python -m benchmarks NAME [--json FILE] [--quick]``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.report import Report, facts

NAMES = ("restart",)


def main() -> int:
    """Run one benchmark; print its report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--quick", action="store_true", help="few repeats, to see that it runs")
    arguments = parser.parse_args()
    rows = importlib.import_module(f"benchmarks.{arguments.name}").measure(arguments.quick)
    report = Report(name=arguments.name, machine=facts(), argv=sys.argv[1:], rows=rows)
    print(report)
    if arguments.json is not None:
        report.write(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
