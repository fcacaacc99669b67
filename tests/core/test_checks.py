"""The checks that settings make of themselves."""

from __future__ import annotations

import math

import pytest

from chronopype_mp.core.checks import at_least, finite, positive, whole
from chronopype_mp.exceptions import ConfigError


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, True, "1", None, pytest.param(10**400, id="beyond floats")],
)
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^Owner\.field") as caught:
        finite("Owner", "field", value)
    assert caught.value.value is value


def test_a_whole_number_serves_as_a_float() -> None:
    assert finite("o", "f", 2) == 2.0
    assert type(finite("o", "f", 2)) is float


def test_zero_is_not_positive() -> None:
    assert positive("o", "f", 5e-324) > 0
    for value in (0, 0.0, -1):
        with pytest.raises(ConfigError, match="above 0"):
            positive("o", "f", value)


def test_the_minimum_itself_is_enough() -> None:
    assert at_least("o", "f", 0.2, 0.2) == 0.2
    with pytest.raises(ConfigError, match=r"at least 0\.2"):
        at_least("o", "f", 0.19, 0.2)


@pytest.mark.parametrize("value", [1.0, True, "1", 0, 11])
def test_what_is_no_whole_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(ConfigError):
        whole("o", "f", value, 1, 10)


def test_the_ends_of_the_range_of_a_whole_number_belong_to_it() -> None:
    assert [whole("o", "f", n, 1, 10) for n in (1, 10)] == [1, 10]
    assert whole("o", "f", 10**30, 1) == 10**30
