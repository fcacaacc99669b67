"""Percentiles, latencies and CPU time."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks.measures import MeasurementError, cpu_time, latencies, percentiles


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles(map(float, range(1000, 0, -1))) == {"p50": 500, "p99": 990, "p99.9": 999}


@pytest.mark.parametrize(
    ("count", "names"),
    [(1, ["p50"]), (99, ["p50"]), (100, ["p50", "p99"]), (999, ["p50", "p99"])],
)
def test_percentiles_that_would_be_the_largest_value_are_left_out(
    count: int, names: list[str]
) -> None:
    assert list(percentiles([1.0] * count)) == names


def test_no_values_are_an_error_and_not_a_figure() -> None:
    with pytest.raises(MeasurementError, match="no tick arrived"):
        percentiles([])


def test_a_tick_that_did_not_arrive_is_as_late_as_the_next_that_did() -> None:
    due = [(1.0, 1.1), (2.0, 2.1), (3.0, 3.1), (4.0, 4.1)]
    arrived = [(1.0 + 1e-9, 1.2), (3.0, 3.3)]
    assert latencies(due, arrived, end=9.0) == pytest.approx([0.1, 1.2, 0.2, 4.9])


def test_the_cpu_time_of_a_process_is_that_of_its_own_clock() -> None:
    before = time.process_time()
    measured = cpu_time(os.getpid())
    assert before <= measured <= time.process_time()
