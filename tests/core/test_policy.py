"""The policy of supervision."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.limits import Limits
from chronopype_mp.core.policy import RestartType, Supervision
from chronopype_mp.core.resources import Resources
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.exceptions import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_timeout", 0),
        ("start_timeout", math.inf),
        ("loop_stall_timeout", 0.1),
        ("loop_stall_timeout", math.nan),
        ("stop_grace", -1),
        ("restart", "sometimes"),
        ("restart", None),
        ("no_restart_exit_codes", 3),
        ("no_restart_exit_codes", (-9,)),
        ("no_restart_exit_codes", (256,)),
        ("no_restart_exit_codes", ("3",)),
        ("probation_interval", 0),
        ("start_network_timeout", -1),
        ("stop_network_timeout", math.nan),
        ("max_downtime", 0),
        ("max_check_timeouts", 0),
        ("max_check_timeouts", 2.5),
        ("limits", {"max_rss": 1}),
        ("resources", None),
        ("healthy_after", "60"),
        ("backoff", 1.0),
        ("backoff", RestartBudget()),
        ("budget", None),
        ("budget", BackoffPolicy()),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"Supervision\.{field}") as caught:
        Supervision(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize("kind", RestartType)
def test_a_restart_type_may_be_given_by_its_name(kind: RestartType) -> None:
    assert Supervision(restart=kind.value).restart is kind  # type: ignore[arg-type]


def test_exit_statuses_given_as_a_list_are_kept_as_what_cannot_change() -> None:
    policy = Supervision(no_restart_exit_codes=[1, 2])  # type: ignore[arg-type]
    assert policy.no_restart_exit_codes == (1, 2)


@given(
    st.floats(min_value=0.2, max_value=1e6),
    st.floats(min_value=0.1, max_value=1e6),
    st.floats(min_value=0.1, max_value=1e6),
)
def test_stacks_are_written_before_any_deadline_has_passed(
    stall: float, start: float, stop: float
) -> None:
    """The guard looks often enough for that, too."""
    policy = Supervision(loop_stall_timeout=stall, start_timeout=start, stop_grace=stop)
    shortest = min(stall, start, stop)
    assert policy.guard_interval <= policy.beat_interval
    assert policy.stacks_after + policy.guard_interval <= 0.81 * shortest


def test_an_unknown_restart_type_is_told_which_there_are() -> None:
    with pytest.raises(ConfigError, match="'permanent', 'transient', 'temporary'"):
        Supervision(restart="always")  # type: ignore[arg-type]


def test_the_defaults_never_give_up_on_a_worker_for_its_exit_status() -> None:
    policy = Supervision()
    assert policy.restart is RestartType.PERMANENT
    assert policy.no_restart_exit_codes == ()
    assert policy.probation_interval is None


def test_a_worker_may_be_given_no_grace_at_all() -> None:
    assert Supervision(stop_grace=0, healthy_after=0).stop_grace == 0


@given(st.floats(min_value=0.2, max_value=1e6))
def test_three_beats_in_a_row_may_be_lost_before_a_worker_counts_as_stalled(stall: float) -> None:
    interval = Supervision(loop_stall_timeout=stall).beat_interval
    assert 0 < interval <= 1.0
    assert 4 * interval <= stall


@pytest.mark.parametrize(
    ("fits", "setting"),
    [
        (True, {"restart": "temporary", "max_downtime": 5.0}),
        (True, {"limits": Limits(max_rss=1)}),
        (True, {"loop_stall_timeout": 20.0}),  # it reports every second all the same
        (True, {"start_timeout": 60.0}),
        (False, {"start_timeout": 1.0}),  # its guard looks more often
        (False, {"loop_stall_timeout": 1.0}),
        (False, {"stop_grace": 11.0}),
        (False, {"start_network_timeout": 1.0}),
        (False, {"stop_network_timeout": 1.0}),
        (False, {"resources": Resources(nice=5)}),
    ],
)
def test_a_process_goes_on_unless_what_it_was_told_has_changed(
    fits: bool, setting: dict[str, Any]
) -> None:
    """The owner alone applies the rest."""
    policy = Supervision()
    assert policy.model_copy(update=setting).fits_process_of(policy) is fits
