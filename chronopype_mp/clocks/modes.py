"""ClockMode."""

from __future__ import annotations

import enum

__all__ = ["ClockMode"]


class ClockMode(enum.Enum):
    """What a clock's time is."""

    REALTIME = 1
    BACKTEST = 2
