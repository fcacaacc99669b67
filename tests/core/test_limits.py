"""What a worker may use."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.limits import Limits, LimitWatch
from chronopype_mp.exceptions import ConfigError


def watch(**limits: object) -> LimitWatch:
    return LimitWatch(Limits(**limits), 100.0, random.Random(1))  # type: ignore[arg-type]


def test_without_limits_nothing_is_too_much() -> None:
    nothing = watch()
    assert nothing.sample(1e9, 1 << 50, 1e9) is None
    assert nothing.expired(1e9) is None


def test_memory_above_its_limit_is_named_with_both_figures() -> None:
    limits = watch(max_rss=1000)
    assert limits.sample(100.5, 1000, 0.0) is None
    excess = limits.sample(101.0, 1001, 0.0)
    assert excess is not None
    assert excess.detail == "RSS of 1,001 bytes is above max_rss = 1,000"
    assert excess.charged


def test_cpu_is_judged_over_the_window_and_not_over_a_peak() -> None:
    limits = watch(max_cpu=0.5, cpu_window=10.0)
    assert limits.sample(100.0, 0, 0.0) is None
    assert limits.sample(105.0, 0, 5.0) is None, "the window is not over"
    assert limits.sample(110.0, 0, 5.0) is None, "half of it"
    assert limits.sample(115.0, 0, 9.9) is None
    excess = limits.sample(120.0, 0, 15.0)
    assert excess is not None
    assert "CPU share of 1.00 over 10.0 s is above max_cpu = 0.5" in excess.detail
    assert excess.charged


def test_what_was_used_before_the_first_sample_does_not_count() -> None:
    limits = watch(max_cpu=0.5, cpu_window=10.0)
    assert limits.sample(100.0, 0, 60.0) is None
    assert limits.sample(110.0, 0, 64.0) is None


@given(
    share=st.floats(min_value=0.0, max_value=4.0),
    most=st.floats(min_value=0.1, max_value=4.0),
    gaps=st.lists(st.floats(min_value=0.1, max_value=30.0), min_size=40, max_size=40),
)
def test_a_steady_share_is_too_much_if_and_only_if_it_is_above_the_limit(
    share: float, most: float, gaps: list[float]
) -> None:
    """However irregularly the beats come."""
    if abs(share - most) < 1e-6:
        return
    limits = watch(max_cpu=most, cpu_window=3.0)
    now, found = 100.0, False
    for gap in gaps:
        found = found or limits.sample(now, 0, (now - 100.0) * share) is not None
        now += gap
    assert found == (share > most)


def test_a_lifetime_varies_within_its_jitter_and_is_not_charged() -> None:
    limits = Limits(max_lifetime=100.0, lifetime_jitter=0.2)
    over_at_100 = set()
    for seed in range(50):
        life = LimitWatch(limits, 0.0, random.Random(seed))
        assert life.expired(79.9) is None
        excess = life.expired(120.1)
        assert excess is not None
        assert excess.detail == "max_lifetime of 100 s is over"
        assert not excess.charged
        over_at_100.add(life.expired(100.0) is None)
    assert over_at_100 == {True, False}


def test_a_lifetime_without_jitter_is_exact() -> None:
    life = watch(max_lifetime=50.0, lifetime_jitter=0.0)
    assert life.expired(149.9) is None
    assert life.expired(150.0) is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_rss", 0),
        ("max_rss", 1.5),
        ("max_cpu", 0),
        ("cpu_window", -1),
        ("max_lifetime", 0.5),
        ("lifetime_jitter", 2),
        ("lifetime_jitter", -0.1),
    ],
)
def test_a_limit_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"Limits\.{field}"):
        Limits(**{field: value})  # type: ignore[arg-type]
