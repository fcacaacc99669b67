"""The histogram: every duration is counted, percentiles are right to within its resolution."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.histogram import BUCKETS, Durations, Histogram, bucket_of
from chronopype_mp.core.state import TickRecorder

TIMES = st.lists(st.integers(min_value=0, max_value=3_600_000_000_000), min_size=1, max_size=200)


def histogram_of(times: list[int]) -> Histogram:
    recorder = TickRecorder(1, lambda: 1001.5)
    for nanoseconds in times:
        recorder.succeeded(0.0, nanoseconds, 0)
    return recorder.counters.executions


def test_none_has_figures_of_zero() -> None:
    empty = Histogram()
    assert (empty.count, empty.mean, empty.percentile(50)) == (0, 0.0, 0.0)


@given(TIMES, st.floats(min_value=0, max_value=100))
def test_a_percentile_is_right_to_within_seven_percent(times: list[int], percentile: float) -> None:
    exact = sorted(times)[max(1, math.ceil(len(times) * percentile / 100)) - 1] / 1e9
    assert histogram_of(times).percentile(percentile) == pytest.approx(exact, rel=0.07, abs=1e-9)


@given(TIMES, TIMES)
def test_merging_is_counting_all_in_one(one: list[int], other: list[int]) -> None:
    merged = histogram_of(one).merged(histogram_of(other))
    both = histogram_of(one + other)
    assert (merged.counts, merged.largest) == (both.counts, both.largest)
    assert merged.mean == pytest.approx(both.mean)
    assert merged.count == len(one) + len(other)


@given(TIMES)
def test_durations_counted_one_by_one_are_the_same_histogram(times: list[int]) -> None:
    durations = Durations()
    for nanoseconds in times:
        durations.add(nanoseconds)
    histogram = durations.histogram
    assert histogram == histogram_of(times)
    durations.add(5)
    assert histogram.count == len(times), "one that was taken does not change any more"


def test_the_longest_is_exact_and_no_percentile_exceeds_it() -> None:
    histogram = histogram_of([1_000_000_001, 5])
    assert histogram.largest == histogram.percentile(100) == 1.000000001


def test_what_takes_longer_than_the_last_bucket_is_counted_there() -> None:
    histogram = histogram_of([10**18])
    assert histogram.counts == {BUCKETS - 1: 1}
    assert histogram.largest == 1e9


@given(st.integers(min_value=0, max_value=10**15))
def test_buckets_rise_with_the_duration(nanoseconds: int) -> None:
    assert bucket_of(nanoseconds + 1) - bucket_of(nanoseconds) in (0, 1)


@pytest.mark.parametrize("percentile", [-1, 100.5, math.nan])
def test_a_percentile_out_of_range_is_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        Histogram().percentile(percentile)
