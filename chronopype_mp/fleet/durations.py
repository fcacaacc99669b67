"""Durations as a fleet file writes them: a number of seconds, or text such as "250ms"."""

from __future__ import annotations

import re

__all__ = ["seconds_of"]

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

DURATION = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?) ?([a-z]+)")


def seconds_of(text: str) -> float:
    """Return the seconds of a duration.

    Args:
        text: a number with a unit: ``ms``, ``s``, ``m``, ``h`` or ``d``.

    Raises:
        ValueError: it is not a duration.
    """
    match = DURATION.fullmatch(text)
    if match is None or match[2] not in UNITS:
        raise ValueError('must be seconds, or a duration such as "250ms", "5s", "2m" or "1h"')
    number, unit = float(match[1]), match[2]
    return number / 1000.0 if unit == "ms" else number * UNITS[unit]  # 250 / 1000 is exactly 0.25
