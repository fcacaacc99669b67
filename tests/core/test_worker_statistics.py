"""The figures of several workers add up, in any order."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.histogram import BUCKETS, Histogram
from chronopype_mp.core.worker_statistics import HISTOGRAMS, SUMS, WorkerStatistics

SEEDS = st.integers(min_value=0, max_value=2**32)


def seconds(rng: random.Random) -> float:
    """Return eighths of a second, whose sums are exact: the order of adding cannot show."""
    return rng.randrange(8000) / 8


def histogram(rng: random.Random) -> Histogram:
    counts = {rng.randrange(BUCKETS): rng.randrange(1, 100) for _ in range(rng.randrange(4))}
    return Histogram(counts, seconds(rng), seconds(rng))


MAKE: dict[Any, Callable[[random.Random], object]] = {
    int: lambda rng: rng.randrange(2**40),
    float: seconds,
    float | None: lambda rng: rng.choice((None, seconds(rng))),
    Histogram: histogram,
}


def statistics(seed: int) -> WorkerStatistics:
    """Return figures at random; texts have a time, from a few, so that some are the same."""
    rng = random.Random(seed)
    values: dict[str, Any] = {}
    for text, at in (("network_error", "network_error_at"), ("network_reason", "network_since")):
        texts = ((None, None), *((word, float(when)) for word in "ab" for when in range(3)))
        values[text], values[at] = rng.choice(texts)
    for field in msgspec.structs.fields(WorkerStatistics):
        if field.name not in values:
            values[field.name] = MAKE[field.type](rng)
    return WorkerStatistics(**values)


@given(SEEDS, SEEDS, SEEDS)
def test_merging_is_associative_and_commutative(one: int, two: int, three: int) -> None:
    a, b, c = statistics(one), statistics(two), statistics(three)
    assert a.merged(b) == b.merged(a)
    assert a.merged(b).merged(c) == a.merged(b.merged(c))
    assert a.merged(WorkerStatistics()) == a


@given(st.lists(SEEDS, max_size=4))
def test_counts_of_the_whole_are_those_of_its_parts(seeds: list[int]) -> None:
    parts = [statistics(seed) for seed in seeds]
    whole = functools.reduce(WorkerStatistics.merged, parts, WorkerStatistics())
    for name in SUMS:
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
    for name in HISTOGRAMS:
        assert getattr(whole, name).count == sum(getattr(part, name).count for part in parts)


def test_of_errors_and_reasons_the_latest_is_shown_and_of_times_the_earliest() -> None:
    one = WorkerStatistics(
        network_error="refused",
        network_error_at=5.0,
        network_reason="connected",
        network_since=9.0,
        last_heard=20.0,
        next_attempt=30.0,
        lag=0.5,
    )
    other = WorkerStatistics(
        network_error="reset",
        network_error_at=6.0,
        network_reason="refused",
        network_since=8.0,
        last_heard=19.0,
        lag=0.25,
    )
    both = one.merged(other)
    assert (both.network_error, both.network_error_at) == ("reset", 6.0)
    assert (both.network_reason, both.network_since) == ("connected", 9.0)
    assert (both.last_heard, both.next_attempt, both.lag) == (19.0, 30.0, 0.5)
