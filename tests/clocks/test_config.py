"""ClockConfig: chronopype's names and defaults, and no value that makes no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.clocks.config import FLOAT_EPSILON, ClockConfig
from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.exceptions import ClockError, ConfigError


def config(**values: Any) -> ClockConfig:
    return ClockConfig(**{"clock_mode": ClockMode.REALTIME, **values})


def test_the_defaults_are_chronopypes() -> None:
    made = config()
    assert made.tick_size == 1.0
    assert made.start_time == 0.0
    assert made.end_time == 0.0
    assert made.processor_timeout == 1.0
    assert made.max_retries == 3
    assert made.concurrent_processors is False
    assert made.stats_window_size == 100
    assert FLOAT_EPSILON == 1e-10


def test_the_mode_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"ClockConfig\.clock_mode.*must be given"):
        ClockConfig()  # type: ignore[call-arg]


@pytest.mark.parametrize("mode", list(ClockMode))
def test_the_mode_may_be_given_as_its_number(mode: ClockMode) -> None:
    assert config(clock_mode=mode.value).clock_mode is mode
    assert config(clock_mode=mode).clock_mode is mode


def test_a_failure_ends_a_backtest_and_no_realtime_run_unless_told_otherwise() -> None:
    assert config().on_error == "continue"
    assert config(clock_mode=ClockMode.BACKTEST).on_error == "raise"
    assert config(on_error="raise").on_error == "raise"
    assert config(clock_mode=2, on_error="continue").on_error == "continue"


def test_whole_numbers_of_seconds_are_seconds() -> None:
    made = config(tick_size=2, start_time=5, end_time=9, processor_timeout=3)
    values = (made.tick_size, made.start_time, made.end_time, made.processor_timeout)
    assert values == (2.0, 5.0, 9.0, 3.0)
    assert all(type(value) is float for value in values)


WRONG: list[tuple[str, list[object]]] = [
    ("clock_mode", [0, 3, "REALTIME", None, True, 1.5]),
    ("tick_size", [0, 0.0, -1.0, math.nan, math.inf, "1", None, True, 10**400]),
    ("start_time", [math.nan, math.inf, -math.inf, "0", None, False]),
    ("end_time", [math.nan, math.inf, "0", None, -1.0]),
    ("processor_timeout", [0, -0.5, math.nan, math.inf, "1", None]),
    ("max_retries", [-1, 1.0, "3", None, True]),
    ("concurrent_processors", [0, 1, "yes", None]),
    ("stats_window_size", [0, 10_001, 5.0, "100", None, True]),
    ("on_error", ["ignore", "", 1, True]),
]


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG for value in values]
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{field: value})
    error = caught.value
    assert (error.owner, error.field) == ("ClockConfig", field)
    assert error.value is value
    assert str(error).startswith(f"ClockConfig.{field} = {value!r}: must ")
    assert isinstance(error, ClockError)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stats_window_size", 1),
        ("stats_window_size", 10_000),
        ("max_retries", 0),
        ("tick_size", 1e-4),
    ],
)
def test_the_limits_themselves_are_allowed(field: str, value: object) -> None:
    assert getattr(config(**{field: value}), field) == value


@given(start=st.floats(-1e9, 1e9), end=st.floats(-1e9, 1e9).filter(bool))
def test_the_end_must_not_come_before_the_start(start: float, end: float) -> None:
    if end >= start:
        assert config(start_time=start, end_time=end).end_time == end
        return
    with pytest.raises(ConfigError, match="must not be before start_time") as caught:
        config(start_time=start, end_time=end)
    assert caught.value.field == "end_time"


def test_no_end_is_no_end_whatever_the_start() -> None:
    assert config(start_time=5.0).end_time == 0.0


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("tick_sise", "tick_size"),
        ("max_retry", "max_retries"),
        ("process_timeout", "processor_timeout"),
        ("stop_time", "start_time"),
    ],
)
def test_a_typo_is_refused_with_the_name_that_was_meant(typo: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'") as caught:
        config(**{typo: 1})
    assert caught.value.field == typo


def test_a_name_like_no_other_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="known are: clock_mode, tick_size"):
        config(zzz=1)


def test_settings_are_given_by_name() -> None:
    with pytest.raises(ConfigError, match="given by name"):
        ClockConfig(ClockMode.REALTIME)  # type: ignore[misc]


def test_nothing_can_be_changed_afterwards() -> None:
    made = config()
    with pytest.raises(AttributeError):
        made.tick_size = 2.0  # type: ignore[misc]
    assert made.tick_size == 1.0


def test_a_copy_is_validated_like_a_new_one() -> None:
    made = config(tick_size=2.0, max_retries=1)
    copy = made.model_copy(update={"tick_size": 4})
    assert (copy.tick_size, copy.max_retries, made.tick_size) == (4.0, 1, 2.0)
    assert made.model_copy() == made
    with pytest.raises(ConfigError, match="tick_size"):
        made.model_copy(update={"tick_size": 0})
    with pytest.raises(ConfigError, match="did you mean"):
        made.model_copy(update={"tick_sise": 4})


def test_a_tick_size_that_no_coordinator_can_keep_is_refused_in_realtime_only() -> None:
    for tick_size in (1e-6, 0.99e-4):
        with pytest.raises(ConfigError, match=r"ClockConfig\.tick_size.*at least 0\.0001"):
            config(tick_size=tick_size)
        assert config(clock_mode=ClockMode.BACKTEST, tick_size=tick_size).tick_size == tick_size
