"""The exponential backoff."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.exceptions import ConfigError


def test_the_defaults_wait_1_2_4_seconds_and_never_more_than_300() -> None:
    policy = BackoffPolicy()
    assert [policy.base_delay(n) for n in (1, 2, 3, 9, 10, 5000)] == [1, 2, 4, 256, 300, 300]


@given(st.integers(min_value=1, max_value=10_000), st.integers())
def test_jitter_stays_within_its_share(failures: int, seed: int) -> None:
    policy = BackoffPolicy()
    base = policy.base_delay(failures)
    assert 0.9 * base <= policy.delay(failures, random.Random(seed)) <= 1.1 * base


def test_a_hundred_workers_that_fail_together_spread_over_the_whole_jitter() -> None:
    delays = [BackoffPolicy().delay(1, random.Random(seed)) for seed in range(100)]
    assert max(delays) - min(delays) > 0.15


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("minimum", 0),
        ("minimum", math.nan),
        ("factor", 0.5),
        ("maximum", 0.5),
        ("maximum", math.inf),
        ("jitter", 1.5),
        ("jitter", "0.1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"BackoffPolicy\.{field}") as caught:
        BackoffPolicy(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_failures_count_from_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BackoffPolicy().base_delay(0)
