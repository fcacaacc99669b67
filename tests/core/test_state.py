"""The figures of a processor's ticks."""

from __future__ import annotations

import math
import statistics
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.histogram import Histogram
from chronopype_mp.core.state import TickAccount, TickRecorder, TickState

SECONDS = st.floats(min_value=0, max_value=1e6)
NANOSECONDS = st.integers(min_value=0, max_value=10**15)


def state_of(recorder: TickRecorder) -> TickState:
    return TickState(**recorder.counters.values())  # type: ignore[arg-type]


def test_an_account_reaches_up_to_the_last_tick_it_knows_of() -> None:
    assert TickAccount(base=10, run=3, missed=2, skipped=1).through == 16
    assert TickAccount().through == 0


def test_a_processor_that_never_ticked_has_figures_of_zero() -> None:
    state = TickState()
    assert (state.total_ticks, state.successful_ticks, state.failed_ticks) == (0, 0, 0)
    assert state.total_execution_time == 0.0
    assert state.avg_execution_time == 0.0
    assert state.max_execution_time == 0.0
    assert state.std_dev_execution_time == 0.0
    assert state.error_rate == 0.0
    assert state.get_execution_percentile(95) == 0.0


def test_the_figures_are_those_of_the_window() -> None:
    state = TickState(execution_times=(1.0, 2.0, 3.0, 6.0), success_count=9, error_count=3)
    assert (state.total_ticks, state.successful_ticks, state.failed_ticks) == (12, 9, 3)
    assert state.total_execution_time == 12.0
    assert state.avg_execution_time == 3.0
    assert state.max_execution_time == 6.0
    assert state.std_dev_execution_time == pytest.approx(math.sqrt(14 / 3))
    assert state.error_rate == 25.0


def test_one_sample_has_no_deviation() -> None:
    assert TickState(execution_times=(5.0,)).std_dev_execution_time == 0.0


def test_a_percentile_is_interpolated_between_the_sorted_samples() -> None:
    state = TickState(execution_times=(4.0, 1.0, 3.0, 2.0))
    assert state.get_execution_percentile(0) == 1.0
    assert state.get_execution_percentile(50) == 2.5
    assert state.get_execution_percentile(95) == pytest.approx(3.85)
    assert state.get_execution_percentile(100) == 4.0
    assert TickState(execution_times=(7.0,)).get_execution_percentile(33) == 7.0


@given(st.lists(SECONDS, min_size=2, max_size=30))
def test_percentiles_agree_with_the_standard_library(times: list[float]) -> None:
    state = TickState(execution_times=tuple(times))
    expected = statistics.quantiles(times, n=100, method="inclusive")
    measured = [state.get_execution_percentile(percent) for percent in range(1, 100)]
    assert measured == pytest.approx(expected)


@pytest.mark.parametrize("percentile", [-1, 100.5, math.nan])
def test_a_percentile_out_of_range_is_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        TickState(execution_times=(1.0,)).get_execution_percentile(percentile)


def test_the_recorder_counts_successes() -> None:
    recorder = TickRecorder(100, lambda: 1001.5)
    recorder.succeeded(10.0, 500_000_000, 0)
    recorder.succeeded(11.0, 250_000_000, 2)
    state = state_of(recorder)
    assert state.last_timestamp == 11.0
    assert state.execution_times == (0.5, 0.25)
    assert state.success_count == 2
    assert state.last_success_time == datetime.fromtimestamp(1001.5)
    assert state.retry_count == 0
    assert state.max_consecutive_retries == 2
    assert state.last_error is None


def test_the_recorder_counts_a_failed_tick_once_and_its_attempts_as_retries() -> None:
    recorder = TickRecorder(100, lambda: 1001.5)
    recorder.failed(10.0, "no", attempts=4)
    state = state_of(recorder)
    assert state.last_timestamp == 10.0
    assert (state.error_count, state.consecutive_errors) == (1, 1)
    assert (state.retry_count, state.max_consecutive_retries) == (4, 4)
    assert state.last_error == "no"
    assert state.last_error_time == datetime.fromtimestamp(10.0)
    assert state.execution_times == ()


def test_a_success_ends_the_row_of_errors_but_not_their_history() -> None:
    recorder = TickRecorder(100, lambda: 1001.5)
    recorder.failed(1.0, "first", attempts=2)
    recorder.failed(2.0, "second", attempts=1)
    assert state_of(recorder).consecutive_errors == 2
    recorder.succeeded(3.0, 100_000_000, 0)
    state = state_of(recorder)
    assert (state.consecutive_errors, state.retry_count) == (0, 0)
    assert (state.error_count, state.max_consecutive_retries) == (2, 2)
    assert state.last_error == "second"


def test_a_state_taken_does_not_change_any_more() -> None:
    recorder = TickRecorder(2, lambda: 1001.5)
    recorder.succeeded(1.0, 100_000_000, 0)
    before = state_of(recorder)
    recorder.succeeded(2.0, 200_000_000, 0)
    recorder.is_active = True
    assert before.execution_times == (0.1,)
    assert not before.is_active
    with pytest.raises(AttributeError):
        before.success_count = 5  # type: ignore[misc]


@given(st.integers(min_value=1, max_value=20), st.lists(NANOSECONDS, max_size=50))
def test_the_window_holds_the_last_times_and_the_count_goes_on(
    window: int, times: list[float]
) -> None:
    """With chronopype a window of 1 is never trimmed, and the total stops at the window."""
    recorder = TickRecorder(window, lambda: 1001.5)
    for number, nanoseconds in enumerate(times):
        recorder.succeeded(float(number), nanoseconds, 0)
    state = state_of(recorder)
    assert state.execution_times == tuple(time / 1e9 for time in times[-window:])
    assert state.total_ticks == len(times)
    executions = recorder.counters.executions
    assert executions.count == len(times)
    assert executions.total == sum(times) / 1e9
    assert executions.largest == max(times, default=0) / 1e9


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 2**40)), max_size=30))
def test_lateness_is_from_the_deadline_of_a_tick_to_the_entry_of_its_hook(
    ticks: list[tuple[int, int]],
) -> None:
    recorder = TickRecorder(1, lambda: 1001.5, offset=-1024.0)
    assert recorder.begun is not None
    for number, late in ticks:
        deadline = (number + 1024) * 1_000_000_000
        recorder.begun += float(number), deadline + late
        assert recorder.counters.lateness.count > 0  # looking counts each tick once
    lateness = recorder.counters.lateness
    assert lateness.count == len(ticks)
    assert lateness.total == sum(late for _, late in ticks) / 1e9
    assert lateness.largest == max((late for _, late in ticks), default=0) / 1e9


def test_a_tick_that_comes_a_rounding_error_early_is_not_late() -> None:
    recorder = TickRecorder(1, lambda: 1001.5, offset=0.0)
    assert recorder.begun is not None
    recorder.begun += 1.0, 999_999_000
    assert recorder.counters.lateness == Histogram({0: 1})


def test_ticks_without_deadlines_are_not_late() -> None:
    assert TickRecorder(1, lambda: 1001.5).begun is None
