"""The restart budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.exceptions import ConfigError


def test_a_budget_of_two_refuses_the_third_restart_until_the_window_has_passed() -> None:
    budget = RestartBudget(max_restarts=2, window=10.0)
    history = budget.spend((), 0.0)
    assert history is not None
    history = budget.spend(history, 5.0)
    assert history == (0.0, 5.0)
    assert budget.spend(history, 9.9) is None
    assert budget.spend(history, 10.0) == (5.0, 10.0)


def test_a_budget_of_zero_never_restarts() -> None:
    assert RestartBudget(max_restarts=0).spend((), 1.0) is None


@given(
    st.lists(st.floats(min_value=0, max_value=1000), max_size=100).map(sorted),
    st.integers(min_value=0, max_value=6),
    st.floats(min_value=0.1, max_value=200),
)
def test_no_window_ever_holds_more_restarts_than_the_budget(
    times: list[float], most: int, window: float
) -> None:
    budget = RestartBudget(max_restarts=most, window=window)
    history: tuple[float, ...] = ()
    admitted: list[float] = []
    for now in times:
        spent = budget.spend(history, now)
        if spent is not None:
            history = spent
            admitted.append(now)
        assert sum(1 for at in admitted if at > now - window) <= most


def test_several_restarts_at_once_are_allowed_or_refused_together() -> None:
    budget = RestartBudget(max_restarts=3, window=10.0)
    assert budget.spend((0.0,), 5.0, count=2) == (0.0, 5.0, 5.0)
    assert budget.spend((0.0, 1.0), 5.0, count=2) is None


def test_a_budget_of_zero_never_has_room() -> None:
    assert RestartBudget(max_restarts=0, window=10.0).room_at((), 5.0) == 15.0


@given(
    st.lists(st.integers(min_value=0, max_value=30), max_size=9).map(sorted),
    st.integers(min_value=1, max_value=4),
    st.integers(min_value=1, max_value=4),
)
def test_a_refused_restart_has_room_when_it_is_said_to_and_not_before(
    times: list[int], most: int, count: int
) -> None:
    budget = RestartBudget(max_restarts=most, window=16.0)
    count = min(count, most)
    history: tuple[float, ...] = ()
    for at in times:
        history = budget.spend(history, float(at)) or history
    if budget.spend(history, 30.0, count) is None:
        room = budget.room_at(history, 30.0, count)
        assert budget.spend(history, room - 0.5, count) is None
        assert budget.spend(history, room, count) is not None


@pytest.mark.parametrize(
    ("field", "value"), [("max_restarts", -1), ("max_restarts", 1.5), ("window", 0)]
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"RestartBudget\.{field}"):
        RestartBudget(**{field: value})  # type: ignore[arg-type]
