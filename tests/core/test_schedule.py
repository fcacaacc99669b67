"""The schedule of ticks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.schedule import SETTLED, Schedule
from chronopype_mp.exceptions import ConfigError

TICK_SIZES = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.3, 0.25, 1.0, 7.0, 60.0, 1 / 3])
NOW = st.floats(min_value=0, max_value=4e9)


def test_ten_thousand_tenths_are_a_thousand() -> None:
    schedule = Schedule(0.1)
    assert schedule.timestamp(10_000) == 1000.0
    assert schedule.timestamp(3) == 0.3
    assert schedule.number_at(0.3) == 3


@given(TICK_SIZES, NOW)
def test_number_at_is_the_last_boundary_not_after(tick_size: float, timestamp: float) -> None:
    schedule = Schedule(tick_size)
    number = schedule.number_at(timestamp)
    assert schedule.timestamp(number) <= timestamp < schedule.timestamp(number + 1)


@given(TICK_SIZES, NOW, st.floats(min_value=-1e6, max_value=4e9))
def test_the_first_boundary_is_not_in_the_past_and_less_than_a_tick_ahead(
    tick_size: float, now: float, offset: float
) -> None:
    schedule = Schedule(tick_size, offset)
    first = schedule.first(now)
    assert schedule.deadline(first) >= now
    assert schedule.deadline(first) - now <= tick_size + 1e-5


@given(TICK_SIZES, st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_every_boundary_is_published_once_or_counted_as_missed(
    tick_size: float, pauses: list[float]
) -> None:
    schedule = Schedule(tick_size)
    now = 1000.0
    first = number = schedule.first(now)
    published, missed = 1, 0
    for pause in pauses:
        now = max(now, schedule.deadline(number)) + pause
        before = number
        number, skipped = schedule.following(number, now)
        assert schedule.timestamp(number) > schedule.timestamp(before)
        assert schedule.deadline(number) >= now or number == before + 1
        published += 1
        missed += skipped
    assert number - first + 1 == published + missed


@given(TICK_SIZES, NOW, st.floats(min_value=0.001, max_value=0.4))
def test_work_is_put_off_until_it_fits_between_two_boundaries(
    tick_size: float, now: float, work: float
) -> None:
    rounding = 1e-5
    schedule = Schedule(tick_size, offset=1000.0)
    wait = schedule.wait_for_gap(now, work)
    if work + SETTLED > tick_size:
        assert wait == 0.0
        return
    begin = now + wait
    since = begin - schedule.deadline(schedule.number_at(begin + 1000.0 + rounding))
    assert SETTLED - rounding <= since <= tick_size - work + rounding
    assert wait <= work + SETTLED + rounding


@pytest.mark.parametrize(
    ("now", "wait"), [(10.0, SETTLED), (10.5, 0.0), (10.85, 0.0), (10.95, 0.05 + SETTLED)]
)
def test_work_that_fits_is_not_put_off(now: float, wait: float) -> None:
    assert Schedule(1.0).wait_for_gap(now, 0.1) == pytest.approx(wait)


@pytest.mark.parametrize("tick_size", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_tick_size_that_is_none_is_refused(tick_size: float) -> None:
    with pytest.raises(ConfigError, match="tick_size"):
        Schedule(tick_size)
