"""ClockConfig, the settings of a clock."""

from __future__ import annotations

from typing import Literal

import msgspec

from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.core.checks import at_least, finite, positive, whole
from chronopype_mp.core.outputs import OutputPolicy
from chronopype_mp.core.settings import Seconds, Settings
from chronopype_mp.exceptions import ConfigError

__all__ = ["FLOAT_EPSILON", "ClockConfig"]

FLOAT_EPSILON = 1e-10
"""Seconds; times closer together than this are equal."""

SMALLEST_REALTIME_TICK = 1e-4
"""Seconds; the smallest ``tick_size`` of a realtime clock. With 30 workers, a coordinator was
measured to publish some 100,000 ticks a second, but its ticker shares the interpreter with the
owner's code. Below this it would only skip most of the ticks and keep a core busy."""

MAX_WINDOW = 10_000
"""The largest ``stats_window_size``."""


class ClockConfig(Settings, frozen=True):
    """The settings of a clock, frozen. Names and defaults are chronopype's; times in seconds.

    Args:
        clock_mode: realtime or backtest; a `ClockMode` or its number.
        tick_size: the distance between two ticks, above 0; at least 0.0001 in realtime.
        start_time: the earliest tick; 0.0 means no limit. A realtime clock uses wall time, or the
            event loop's time if ``start_time`` is closer to that.
        end_time: the latest tick; 0.0 means no limit.
        processor_timeout: how long one attempt of a tick may take before it is cancelled.
        max_retries: how often a failed tick is retried.
        concurrent_processors: accepted for compatibility; processors in processes of their own
            always run concurrently.
        stats_window_size: execution times kept per processor, 1 to 10,000.
        outputs: what happens to outputs of processors that are not read in time; see
            `OutputPolicy`.
        on_error: ``"continue"`` reports a processor's failure and goes on (the default of a
            realtime clock); ``"raise"`` ends the run with the first failure, as chronopype does
            (the default of a backtest).

    Raises:
        ConfigError: a name is unknown, or a value is out of range; the message names both.
    """

    clock_mode: ClockMode
    tick_size: Seconds = 1.0
    start_time: Seconds = 0.0
    end_time: Seconds = 0.0
    processor_timeout: Seconds = 1.0
    max_retries: int = 3
    concurrent_processors: bool = False
    stats_window_size: int = 100
    on_error: Literal["continue", "raise"] | None = None
    outputs: OutputPolicy = OutputPolicy()

    def __post_init__(self) -> None:
        owner = type(self).__name__
        mode = _mode(owner, self.clock_mode)
        values: dict[str, object] = {
            "clock_mode": mode,
            "tick_size": positive(owner, "tick_size", self.tick_size),
            "start_time": finite(owner, "start_time", self.start_time),
            "end_time": finite(owner, "end_time", self.end_time),
            "processor_timeout": positive(owner, "processor_timeout", self.processor_timeout),
        }
        if mode is ClockMode.REALTIME:
            at_least(owner, "tick_size", self.tick_size, SMALLEST_REALTIME_TICK)
        if self.end_time and self.end_time < self.start_time:
            raise ConfigError(
                owner, "end_time", self.end_time, f"must not be before start_time {self.start_time}"
            )
        whole(owner, "max_retries", self.max_retries, 0)
        whole(owner, "stats_window_size", self.stats_window_size, 1, MAX_WINDOW)
        if not isinstance(self.concurrent_processors, bool):
            raise ConfigError(
                owner, "concurrent_processors", self.concurrent_processors, "must be True or False"
            )
        if not isinstance(self.outputs, OutputPolicy):
            raise ConfigError(owner, "outputs", self.outputs, "must be an OutputPolicy")
        if self.outputs.when_full is None:
            when_full = "drop_oldest" if mode is ClockMode.REALTIME else "wait"
            values["outputs"] = self.outputs.model_copy(update={"when_full": when_full})
        if self.on_error is None:
            values["on_error"] = "continue" if mode is ClockMode.REALTIME else "raise"
        elif self.on_error not in ("continue", "raise"):
            raise ConfigError(owner, "on_error", self.on_error, 'must be "continue" or "raise"')
        for name, value in values.items():
            msgspec.structs.force_setattr(self, name, value)


def _mode(owner: str, value: object) -> ClockMode:
    if isinstance(value, bool):
        raise ConfigError(owner, "clock_mode", value, "must be a ClockMode")
    try:
        return ClockMode(value)
    except ValueError:
        known = ", ".join(f"{mode} ({mode.value})" for mode in ClockMode)
        raise ConfigError(owner, "clock_mode", value, f"must be one of {known}") from None
