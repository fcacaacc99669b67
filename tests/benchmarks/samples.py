"""Sample reports to compare and to plot."""

from __future__ import annotations

from benchmarks.report import Report, Row

__all__ = ["a_report", "a_row"]


def a_row(case: str = "100 Hz", metric: str = "p50", **values: object) -> Row:
    given = {"value": 2.0, "min": 1.0, "max": 3.0, "reference": "bare reader", "ratio": 1.0}
    return Row(case=case, metric=metric, unit="µs", **{**given, **values})  # type: ignore[arg-type]


def a_report(*rows: Row, name: str = "latency", **machine: str) -> Report:
    facts = {"CPU": "a CPU", "cores": "2", "Python": "3.11.7", "libzmq": "4.3.5", "load": "0.1"}
    return Report(name=name, machine={**facts, **machine}, argv=[name], rows=list(rows))
