"""Validation of single settings. A ConfigError names the owner, the field and the value."""

from __future__ import annotations

import math

from chronopype_mp.exceptions import ConfigError

__all__ = ["at_least", "finite", "positive", "whole"]


def finite(owner: str, field: str, value: object) -> float:
    """Return ``value`` as a float.

    Raises:
        ConfigError: it is not a number, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(owner, field, value, "must be a number")
    try:
        number = float(value)
    except OverflowError:  # an int that is too large for a float
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(owner, field, value, "must be finite")
    return number


def positive(owner: str, field: str, value: object) -> float:
    """Return ``value`` as a float above 0; raises like `finite`."""
    number = finite(owner, field, value)
    if number <= 0:
        raise ConfigError(owner, field, value, "must be above 0")
    return number


def at_least(owner: str, field: str, value: object, minimum: float) -> float:
    """Return ``value`` as a float of at least ``minimum``; raises like `finite`."""
    number = finite(owner, field, value)
    if number < minimum:
        raise ConfigError(owner, field, value, f"must be at least {minimum:g}")
    return number


def whole(owner: str, field: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return ``value`` as an int of at least ``minimum`` and at most ``maximum``.

    Raises:
        ConfigError: it is not a whole number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(owner, field, value, "must be a whole number")
    if value < minimum:
        raise ConfigError(owner, field, value, f"must be at least {minimum}")
    if maximum is not None and value > maximum:
        raise ConfigError(owner, field, value, f"must be at most {maximum}")
    return value
