"""Durations mean what they say, for every number and unit."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.fleet.durations import UNITS, seconds_of

UNIT_SECONDS = {"ms": (1, 1000), "s": (1, 1), "m": (60, 1), "h": (3600, 1), "d": (86_400, 1)}


@given(
    st.integers(-(10**9), 10**9), st.sampled_from(sorted(UNIT_SECONDS)), st.sampled_from(["", " "])
)
def test_a_whole_number_with_a_unit_is_exact(number: int, unit: str, gap: str) -> None:
    """The result is the float nearest to the true value."""
    times, per = UNIT_SECONDS[unit]
    assert seconds_of(f"{number}{gap}{unit}") == number * times / per


@given(st.decimals(-1000, 1000, places=3), st.sampled_from(sorted(UNITS)))
def test_a_decimal_fraction_is_as_near_as_a_float_can_be(number: object, unit: str) -> None:
    """Also below one of the unit."""
    exact = float(str(number)) * UNITS[unit]
    assert seconds_of(f"{number}{unit}") == pytest.approx(exact, rel=1e-12, abs=1e-15)


@given(st.text(max_size=8))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    """Nothing else than ValueError comes out, and no number without a unit goes in."""
    with contextlib.suppress(ValueError):
        assert math.isfinite(seconds_of(text))
        assert text[-1].isalpha()


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "5 parsecs", "5  s", "1e3s", "nan s", "inf s", "5S", "1m30s", "٥s", "5s\n"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """There is one way to write each."""
    with pytest.raises(ValueError, match="must be seconds"):
        seconds_of(text)
