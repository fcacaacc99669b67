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


@pytest.mark.parametrize(
    ("field", "value"), [("max_restarts", -1), ("max_restarts", 1.5), ("window", 0)]
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"RestartBudget\.{field}"):
        RestartBudget(**{field: value})  # type: ignore[arg-type]
