"""Compares two reports of a benchmark: ``scripts/bench-compare OLD.json NEW.json``.

A figure has changed if the spreads of its repeats do not overlap: all new values are above, or
below, all old ones. The change of its ratio to the reference is printed with it. If the ratio did
not change, the machine changed and not the project.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.report import Report, Row, number

__all__ = ["changes", "main"]

UNCHANGED, CHANGED = 0, 1

EPILOG = "Exit status: 0 nothing changed beyond the spread, 1 something did, 2 invalid arguments."


def changes(old: Report, new: Report) -> list[str]:
    """Return a line for each row that changed beyond the spread, was removed or was added."""
    before, after = _by_name(old), _by_name(new)
    lines = [
        _line(before[name], row)
        for name, row in after.items()
        if name in before and not _overlap(before[name], row)
    ]
    lines += [f"{_title(row)}: removed" for name, row in before.items() if name not in after]
    lines += [f"{_title(row)}: added" for name, row in after.items() if name not in before]
    return lines


def _by_name(report: Report) -> dict[tuple[str, str], Row]:
    return {(row.case, row.metric): row for row in report.rows}


def _overlap(old: Row, new: Row) -> bool:
    return new.min <= old.max and old.min <= new.max


def _title(row: Row) -> str:
    return f"{row.case}, {row.metric}"


def _line(old: Row, new: Row) -> str:
    times = f", {new.value / old.value:.2f} × as much" if old.value else ""
    return (
        f"{_title(new)}: {number(old.value)} ({number(old.min)} to {number(old.max)}) → "
        f"{number(new.value)} ({number(new.min)} to {number(new.max)}) {new.unit}{times}; "
        f"ratio to {new.reference} {_ratio(old)} → {_ratio(new)}"
    )


def _ratio(row: Row) -> str:
    return "none" if row.ratio is None else f"{row.ratio:.2f}"


def _notes(old: Report, new: Report) -> list[str]:
    """Return what limits the value of a comparison."""
    differ = [
        f"{fact} {old.machine.get(fact, 'unknown')} → {new.machine.get(fact, 'unknown')}"
        for fact in dict.fromkeys([*old.machine, *new.machine])
        if fact != "load" and old.machine.get(fact) != new.machine.get(fact)
    ]
    notes = [f"different machines, compare only the ratios: {', '.join(differ)}"] if differ else []
    if ("--quick" in old.argv) or ("--quick" in new.argv):
        notes.append("a quick run has only one repeat and no spread")
    return notes


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two files, print what changed and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="bench-compare",
        description="Print what changed beyond the spread between two reports of a benchmark.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("old", type=_report, metavar="OLD.json")
    parser.add_argument("new", type=_report, metavar="NEW.json")
    arguments = parser.parse_args(argv)
    old, new = arguments.old, arguments.new
    if old.name != new.name:
        parser.error(f"different benchmarks: OLD is a report of {old.name}, NEW of {new.name}")
    for note in _notes(old, new):
        print(f"note: {note}")
    lines = changes(old, new)
    print(f"{new.name}: {len(lines) or 'nothing'} changed beyond the spread")
    for line in lines:
        print(f"  {line}")
    return CHANGED if lines else UNCHANGED


def _report(text: str) -> Report:
    """Read a report, for argparse."""
    try:
        return msgspec.json.decode(Path(text).read_bytes(), type=Report)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.strerror or error}") from None
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: is not a report: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
