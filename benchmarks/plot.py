"""Plots a report: one panel per metric, with one bar per row and its spread."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report import OURS, Report, Row, number

__all__ = ["draw"]

OUR_COLOUR = "#c44e52"
COLOURS = ("#4c72b0", "#8c8c8c", "#55a868", "#8172b3", "#ccb974", "#64b5cd")

BAR = 0.26
"""Inches."""

LOGARITHMIC_FROM = 30.0
"""Ratio of the largest to the smallest bar above which a panel is logarithmic."""


def draw(report: Report, path: Path) -> None:
    """Plot a report to a PNG file."""
    metrics = list(dict.fromkeys(row.metric for row in report.rows))
    panels = {metric: [row for row in report.rows if row.metric == metric] for metric in metrics}
    others = dict.fromkeys(row.subject for row in report.rows if row.subject != OURS)
    colours = {OURS: OUR_COLOUR} | {
        name: COLOURS[number % len(COLOURS)] for number, name in enumerate(others)
    }
    heights = [len(rows) + 3 for rows in panels.values()]
    figure = Figure(figsize=(10, BAR * sum(heights) + 0.9), layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)
    for axis, (metric, rows) in zip(axes[:, 0], panels.items(), strict=True):
        _panel(axis, metric, rows, colours)
    facts = report.machine
    figure.suptitle(
        f"{report.name}: medians, lines from least to most\n"
        f"{facts['cores']} × {facts['CPU']}, Python {facts['Python']}, libzmq {facts['libzmq']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=120)


def _panel(axis: Axes, metric: str, rows: list[Row], colours: dict[str, str]) -> None:
    places = range(len(rows), 0, -1)
    values = [row.value for row in rows]
    axis.margins(x=0.12)  # space for the figures
    axis.barh(
        places,
        values,
        height=0.8,
        color=[colours[row.subject] for row in rows],
        xerr=[[row.value - row.min for row in rows], [row.max - row.value for row in rows]],
        error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
    )
    axis.set_yticks(places, [row.case for row in rows], fontsize=8)
    axis.set_title(f"{metric}, {rows[0].unit}", fontsize=9, loc="left")
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    if min(values) > 0 and max(values) > LOGARITHMIC_FROM * min(values):
        axis.set_xscale("log")
        axis.set_xlim(left=min(row.min for row in rows) / 2)
    else:
        axis.set_xlim(left=0)
    for place, row in zip(places, rows, strict=True):
        axis.annotate(
            number(row.value),
            (max(row.max, row.value), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
