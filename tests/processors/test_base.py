"""TickProcessor."""

from __future__ import annotations

import asyncio
import math

import pytest

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.processors import ProcessorState, TickProcessor


class Mirror:
    """Somebody who keeps a processor's state."""

    network_status = NetworkStatus.STOPPED
    last_connected_timestamp = math.nan

    def __init__(self, state: ProcessorState) -> None:
        self.state = state

    def network_setting_changed(self, name: str, value: float) -> None:
        """Of no interest here."""


class Host:
    """Somebody who hosts a processor."""

    def __init__(self, state: ProcessorState) -> None:
        self.state = state
        self.network_settings: dict[str, float] = {}


class Recorder(TickProcessor):
    def __init__(self) -> None:
        super().__init__()
        self.ticks: list[float] = []

    def tick(self, timestamp: float) -> None:
        self.ticks.append(timestamp)


def test_it_can_be_used_as_it_is() -> None:
    processor = TickProcessor()
    processor.start(10.0)
    asyncio.run(processor.async_tick(11.0))
    processor.pause()
    processor.resume()
    processor.stop()
    assert processor.state == ProcessorState(last_timestamp=10.0)


def test_start_and_stop_keep_the_own_state() -> None:
    processor = TickProcessor()
    assert processor.state == ProcessorState()
    assert processor.current_timestamp == 0.0
    processor.start(10.0)
    assert processor.state == ProcessorState(is_active=True, last_timestamp=10.0)
    assert processor.current_timestamp == 10.0
    processor.stop()
    assert not processor.state.is_active


def test_the_asynchronous_tick_calls_the_synchronous_one() -> None:
    processor = Recorder()
    asyncio.run(processor.async_tick(3.0))
    assert processor.ticks == [3.0]


def test_a_tick_assigned_to_the_instance_is_the_one_that_is_called() -> None:
    processor = Recorder()
    seen: list[float] = []
    processor.tick = seen.append  # type: ignore[method-assign, assignment]
    asyncio.run(processor.async_tick(3.0))
    assert (seen, processor.ticks) == ([3.0], [])


def test_a_subclass_that_does_not_call_init_still_works() -> None:
    class Careless(TickProcessor):
        def __init__(self) -> None:
            self.mine = 1

    one, other = Careless(), Careless()
    one.start(5.0)
    one.record_execution(execution_time=0.1)
    assert one.state.success_count == 1
    assert other.state == ProcessorState()


def test_records_go_to_the_own_state_within_the_window() -> None:
    processor = TickProcessor(stats_window_size=2)
    for seconds in (0.1, 0.2, 0.3):
        processor.record_execution(seconds)
    processor.record_error(ValueError("no"), 1.0)
    assert processor.state.execution_times == (0.2, 0.3)
    assert (processor.state.success_count, processor.state.error_count) == (3, 1)
    assert processor.state.last_error == "no"


def test_while_registered_the_state_is_the_clocks_very_object() -> None:
    processor = TickProcessor()
    processor.record_execution(0.1)
    kept = ProcessorState(last_timestamp=7.0)
    processor._mirror = Mirror(kept)
    assert processor.state is kept
    assert processor.current_timestamp == 7.0
    processor._mirror = None
    assert processor.state.execution_times == (0.1,)


def test_in_a_worker_the_hosts_state_comes_before_the_clocks() -> None:
    processor = TickProcessor()
    processor._mirror = Mirror(ProcessorState(last_timestamp=1.0))
    processor._host = Host(ProcessorState(last_timestamp=2.0))
    assert processor.current_timestamp == 2.0


@pytest.mark.parametrize("size", [0, 10_001, 1.5, True, "100"])
def test_a_window_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=r"TickProcessor\.stats_window_size"):
        TickProcessor(stats_window_size=size)


def test_the_ends_of_the_windows_range_belong_to_it() -> None:
    for size in (1, 10_000):
        TickProcessor(stats_window_size=size)


def test_a_plain_processor_alwayswants_ticks() -> None:
    assert TickProcessor().wants_ticks
