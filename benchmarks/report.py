"""The report of a benchmark."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import zmq

__all__ = ["OURS", "Report", "Result", "Row", "Sample", "facts", "row", "rows"]

OURS = "chronopype_mp"

Sample = dict[str, float]
"""The figures of one run, by metric."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: the median of several runs and its spread.

    ``ratio`` is our median divided by the median of ``reference``. It is None if only the
    reference's median is 0. A row of the reference's own figures has the same ratio, and its case
    ends with the reference's name.
    """

    case: str
    metric: str
    unit: str
    value: float
    min: float
    max: float
    reference: str
    ratio: float | None

    @property
    def subject(self) -> str:
        """What was measured: `OURS`, or the name of the reference or peer."""
        return self.reference if self.case.endswith(f": {self.reference}") else OURS


class Result(msgspec.Struct, frozen=True):
    """The rows of a benchmark, and what was skipped, with the reason by name."""

    rows: list[Row]
    skipped: dict[str, str] = {}


def row(
    case: str,
    metric: str,
    unit: str,
    values: Sequence[float],
    reference: str,
    reference_values: Sequence[float],
) -> Row:
    """Return a row for our values, with the ratio to the reference's median."""
    return Row(
        case=case,
        metric=metric,
        unit=unit,
        value=statistics.median(values),
        min=min(values),
        max=max(values),
        reference=reference,
        ratio=_ratio(values, reference_values),
    )


def rows(
    case: str,
    units: Mapping[str, str],
    ours: Sequence[Sample],
    others: Mapping[str, Sequence[Sample]],
) -> list[Row]:
    """Return the rows of one case. For each metric our row comes first, then the others.

    Args:
        case: the name of the case.
        units: the unit of each metric, in the order of the report. A metric that is missing in a
            sample is left out.
        ours: our samples, one per repeat.
        others: the samples of references and peers, by name. The first one that has a metric is our
            reference for it.
    """
    found = []
    for metric, unit in units.items():
        values = _values(ours, metric)
        if not values:
            continue
        rivals = {name: v for name, each in others.items() if (v := _values(each, metric))}
        reference, reference_values = next(iter(rivals.items()), (OURS, values))
        found.append(row(case, metric, unit, values, reference, reference_values))
        for name, theirs in rivals.items():
            own = row(f"{case}: {name}", metric, unit, theirs, name, theirs)
            found.append(msgspec.structs.replace(own, ratio=_ratio(values, theirs)))
    return found


def _values(samples: Sequence[Sample], metric: str) -> list[float]:
    """Return a metric of all samples, or an empty list if a sample does not have it."""
    if any(metric not in sample for sample in samples):
        return []
    return [sample[metric] for sample in samples]


def _ratio(values: Sequence[float], reference_values: Sequence[float]) -> float | None:
    value, reference = statistics.median(values), statistics.median(reference_values)
    if reference:
        return value / reference
    return None if value else 1.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one benchmark run."""

    name: str
    machine: dict[str, str]
    argv: list[str]
    rows: list[Row]

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    def __str__(self) -> str:
        lines = [f"{self.name}   " + ", ".join(f"{k} {v}" for k, v in self.machine.items())]
        cases = max((len(r.case) for r in self.rows), default=0)
        metrics = max((len(r.metric) for r in self.rows), default=0)
        for r in self.rows:
            ratio = "no ratio" if r.ratio is None else f"{r.ratio:.2f} ×"
            against = f"{ratio} {r.reference}" if r.subject == OURS else f"(ours is {ratio} this)"
            spread = f"({number(r.min)} to {number(r.max)})"
            lines.append(
                f"  {r.case:<{cases}}  {r.metric:<{metrics}}  median {number(r.value):>8} "
                f"{r.unit:<9} {spread:<22} {against}"
            )
        return "\n".join(lines)


def number(value: float) -> str:
    """Format a figure with about four digits."""
    return f"{value:,.{2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0}f}"


def facts() -> dict[str, str]:
    """Return the facts about this machine that the figures depend on."""
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "machine": platform.machine(),
        "Python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"
