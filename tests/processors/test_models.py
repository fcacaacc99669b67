"""ProcessorState, chronopype's record of how ticks went."""

from __future__ import annotations

from array import array
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.state import TickCounters, TickRecorder
from chronopype_mp.processors import ProcessorState


def test_the_defaults_are_chronopypes() -> None:
    state = ProcessorState()
    assert state.last_timestamp is None
    assert state.is_active is False
    assert (state.retry_count, state.max_consecutive_retries) == (0, 0)
    assert (state.error_count, state.consecutive_errors) == (0, 0)
    assert len(state.execution_times) == 0
    assert (state.last_error, state.last_error_time, state.last_success_time) == (None, None, None)


def test_every_method_returns_a_new_state_and_leaves_the_old() -> None:
    state = ProcessorState()
    state.update_execution_time(0.1, 10)
    state.record_error(ValueError("no"), 1.0)
    state.update_retry_count(2)
    state.reset_retries()
    assert state == ProcessorState()
    with pytest.raises(AttributeError):
        state.retry_count = 1  # type: ignore[misc]


def test_a_success_is_dated_now_in_local_time_and_ends_the_row_of_errors() -> None:
    before = datetime.now()
    state = ProcessorState(consecutive_errors=3, error_count=3).update_execution_time(0.5, 10)
    assert state.last_success_time is not None
    assert before <= state.last_success_time <= before + timedelta(seconds=30)
    assert state.execution_times == (0.5,)
    assert (state.consecutive_errors, state.error_count, state.success_count) == (0, 3, 1)


def test_an_error_is_dated_with_the_ticks_own_time() -> None:
    state = ProcessorState().record_error(ValueError("no"), 86_400.0)
    assert state.last_error == "no"
    assert state.last_error_time == datetime.fromtimestamp(86_400.0)
    state = state.record_error(KeyError("x"), 86_401.0)
    assert (state.error_count, state.consecutive_errors) == (2, 2)
    assert state.last_error == "'x'"


def test_the_largest_retry_count_is_kept() -> None:
    state = ProcessorState().update_retry_count(3).update_retry_count(1)
    assert (state.retry_count, state.max_consecutive_retries) == (1, 3)
    state = state.reset_retries()
    assert (state.retry_count, state.max_consecutive_retries) == (0, 3)


def test_execution_times_alone_count_and_compare_as_in_chronopype() -> None:
    state = ProcessorState(execution_times=[0.1, 0.3], error_count=1)  # type: ignore[arg-type]
    assert (state.successful_ticks, state.failed_ticks, state.total_ticks) == (2, 1, 3)
    assert state.execution_times == [0.1, 0.3]
    assert state.execution_times != [0.1]
    assert state == ProcessorState(execution_times=(0.1, 0.3), error_count=1)
    assert hash(state) == hash(ProcessorState(execution_times=(0.1, 0.3), error_count=1))
    after = state.update_execution_time(execution_time=0.5, window_size=2)
    assert after.execution_times == [0.3, 0.5]
    assert after.successful_ticks == 3
    assert state.update_retry_count(retry_count=2).retry_count == 2


def test_an_endless_error_is_shortened() -> None:
    state = ProcessorState().record_error(ValueError("x" * 5_000_000), 1.0)
    assert state.last_error is not None
    assert len(state.last_error) < 10_000


@given(st.integers(min_value=1, max_value=10), st.integers(min_value=0, max_value=30))
def test_the_window_is_never_exceeded_and_the_totals_never_saturate(
    window: int, count: int
) -> None:
    state = ProcessorState()
    for number in range(count):
        state = state.update_execution_time(float(number), window)
    assert state.execution_times == tuple(map(float, range(count)))[-window:]
    assert state.total_ticks == state.successful_ticks == count


@given(
    st.integers(min_value=1, max_value=5),
    st.lists(st.tuples(st.booleans(), st.integers(min_value=0, max_value=4)), max_size=30),
)
def test_a_workers_recorder_agrees_with_chronopypes_methods(
    window: int, ticks: list[tuple[bool, int]]
) -> None:
    recorder = TickRecorder(window, lambda: 1001.5)
    state = ProcessorState()
    for timestamp, (succeeds, retries) in enumerate(ticks, 1):
        if succeeds:
            recorder.succeeded(timestamp, 100_000_000 * timestamp, retries)
            state = state.update_execution_time(100_000_000 * timestamp / 1e9, window)
            state = state.update_retry_count(retries).reset_retries()
        else:
            recorder.failed(timestamp, f"no {timestamp}", retries + 1)
            state = state.record_error(ValueError(f"no {timestamp}"), timestamp)
            state = state.update_retry_count(retries + 1)
        state = msgspec.structs.replace(state, last_timestamp=timestamp, last_success_time=None)
    recorded = msgspec.structs.replace(ProcessorState.of(recorder.counters), last_success_time=None)
    assert recorded == state


def test_a_reported_state_becomes_a_processor_state_with_all_its_fields() -> None:
    reported = TickCounters(
        last_timestamp=1.0,
        is_active=True,
        retry_count=1,
        max_consecutive_retries=2,
        recent=array("Q", [100_000_000, 300_000_000]).tobytes(),
        success_count=5,
        error_count=6,
        consecutive_errors=7,
        last_error="no",
        last_error_at=datetime(2024, 1, 2).timestamp(),
        last_success_at=datetime(2024, 1, 3).timestamp(),
    )
    state = ProcessorState.of(reported, is_active=False)
    assert state == ProcessorState(
        last_timestamp=1.0,
        is_active=False,
        retry_count=1,
        max_consecutive_retries=2,
        execution_times=(0.1, 0.3),
        success_count=5,
        error_count=6,
        consecutive_errors=7,
        last_error="no",
        last_error_time=datetime(2024, 1, 2),
        last_success_time=datetime(2024, 1, 3),
    )
    assert state.avg_execution_time == 0.2
    assert isinstance(state.reset_retries(), ProcessorState)
