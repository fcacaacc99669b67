"""The token bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.rate import TokenBucket


def test_a_burst_is_granted_and_then_what_the_rate_allows() -> None:
    bucket = TokenBucket(10.0, now=100.0)
    assert bucket.take(25, 100.0) == 10
    assert bucket.take(1, 100.0) == 0
    assert bucket.take(25, 100.5) == 5
    assert bucket.take(25, 200.0) == 10, "no more than a second's worth is saved"


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.0, 3.0)), max_size=30))
def test_never_more_than_a_burst_and_the_rate(steps: list[tuple[int, float]]) -> None:
    bucket, now, granted = TokenBucket(10.0, 0.0), 0.0, 0
    for wanted, passed in steps:
        now += passed
        got = bucket.take(wanted, now)
        assert 0 <= got <= wanted
        granted += got
        assert granted <= 10 + 10 * now + 1e-6
