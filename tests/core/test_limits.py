"""Limits, liveness and resources: the pure rules."""

from __future__ import annotations

import random

import pytest

from chronopype_mp.core.events import DeathReason
from chronopype_mp.core.limits import Limits, LimitWatch
from chronopype_mp.core.liveness import Signs, classify
from chronopype_mp.core.resources import Resources
from chronopype_mp.exceptions import ConfigError


def watch(**limits: object) -> LimitWatch:
    return LimitWatch(Limits(**limits), 100.0, random.Random(1))  # type: ignore[arg-type]


def test_without_limits_nothing_is_too_much() -> None:
    nothing = watch()
    assert nothing.sample(1e9, 1 << 50, 1e9) is None
    assert nothing.expired(1e9) is None


def test_memory_above_its_limit_is_named_with_both_figures() -> None:
    excess = watch(max_rss=1000).sample(101.0, 1001, 0.0)
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


def test_a_lifetime_varies_within_its_jitter_and_is_not_charged() -> None:
    limits = Limits(max_lifetime=100.0, lifetime_jitter=0.2)
    ends = set()
    for seed in range(50):
        life = LimitWatch(limits, 0.0, random.Random(seed))
        assert life.expired(79.9) is None
        excess = life.expired(120.1)
        assert excess is not None
        assert not excess.charged
        ends.add(life._expires)
    assert len(ends) == 50


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_rss", 0),
        ("max_rss", 1.5),
        ("max_cpu", 0),
        ("cpu_window", -1),
        ("max_lifetime", 0.5),
        ("lifetime_jitter", 2),
    ],
)
def test_a_limit_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"Limits\.{field}"):
        Limits(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nice", -1),
        ("nice", 20),
        ("cpu_affinity", "all"),
        ("cpu_affinity", ()),
        ("cpu_affinity", (-1,)),
        ("rlimits", {"NOFILES": 3}),
        ("rlimits", {"NOFILE": -1}),
        ("rlimits", 5),
    ],
)
def test_a_resource_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"Resources\.{field}"):
        Resources(**{field: value})  # type: ignore[arg-type]


def signs(**values: object) -> Signs:
    known: dict[str, object] = {
        "process_stopped": False,
        "stacks_written": True,
        "guard_silent": 0.1,
        "guard_interval": 0.5,
        "stalled": 9.0,
    }
    return Signs(**{**known, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (signs(), DeathReason.LOOP_BLOCKED),
        (signs(stacks_written=False), DeathReason.LOOP_BLOCKED),
        (signs(process_stopped=True), DeathReason.STOPPED),
        (signs(process_stopped=True, guard_silent=60.0), DeathReason.STOPPED),
        (signs(guard_silent=60.0), DeathReason.GIL_STUCK),
        (signs(guard_silent=60.0, stacks_written=False), DeathReason.UNREACHABLE),
        (signs(stalled=0.0), DeathReason.UNREACHABLE),
    ],
)
def test_the_signs_tell_why_a_worker_is_not_heard_of(seen: Signs, reason: DeathReason) -> None:
    assert classify(seen) is reason
