"""What a benchmark reports."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
import zmq

__all__ = ["Report", "Row", "facts", "row"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: the median of several runs, its spread, and its ratio to the reference's."""

    case: str
    metric: str
    unit: str
    value: float
    min: float
    max: float
    reference: str
    ratio: float


def row(
    case: str,
    metric: str,
    unit: str,
    values: Sequence[float],
    reference: str,
    reference_values: Sequence[float],
) -> Row:
    """Return the row of some values, as a ratio to the median of the reference's."""
    value = statistics.median(values)
    return Row(
        case=case,
        metric=metric,
        unit=unit,
        value=value,
        min=min(values),
        max=max(values),
        reference=reference,
        ratio=value / statistics.median(reference_values),
    )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of one benchmark."""

    name: str
    machine: dict[str, str]
    argv: list[str]
    rows: list[Row]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    def __str__(self) -> str:
        lines = [f"{self.name}   " + ", ".join(f"{k} {v}" for k, v in self.machine.items())]
        for r in self.rows:
            lines.append(
                f"  {r.case:<28} {r.metric:<22} median {r.value:8.2f} {r.unit} "
                f"({r.min:.2f} to {r.max:.2f})   {r.ratio:5.2f} × {r.reference}"
            )
        return "\n".join(lines)


def facts() -> dict[str, str]:
    """Return what the figures depend on."""
    return {
        "cores": str(os.cpu_count()),
        "machine": platform.machine(),
        "Python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
