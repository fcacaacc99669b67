"""ClockMode, the kinds of time."""

from __future__ import annotations

import enum

__all__ = ["ClockMode"]


class ClockMode(enum.Enum):
    """Which time a clock follows."""

    REALTIME = 1
    BACKTEST = 2
