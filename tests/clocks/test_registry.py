"""Processors in a clock: who may be added, how they are called, what is known of them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from chronopype_mp.clocks.registry import ProcessorStats
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.worker_events import (
    NetworkChanged,
    ProcessorFailed,
    WorkerReady,
    WorkerStatus,
    WorkerStopped,
)
from chronopype_mp.exceptions import ClockError, ConfigError, TransferError
from chronopype_mp.processors import ProcessorSpec, ProcessorState, TickProcessor
from tests.clocks.bench import WALL, Bench, Network, Scribe, alive
from tests.waiting import run, turns


class Sleeper(TickProcessor):
    """Takes a while over each tick."""

    async def async_tick(self, timestamp: float) -> None:
        await asyncio.sleep(0.02)  # the execution time that the test looks at


def lame(**options: Any) -> TickProcessor:
    """Stand for a target that is a function."""
    return Scribe(**options)


# Adding and removing


def test_processors_are_listed_in_the_order_of_their_adding() -> None:
    clock = Bench().clock
    first, second = Scribe("first"), ProcessorSpec(target=Scribe)
    handles = (clock.add_processor(first), clock.add_processor(second))
    live = clock.processors
    assert live == [first, second]
    assert clock.workers == handles
    clock.remove_processor(first)
    assert live == [second]
    assert clock.processors is live
    assert clock.workers == handles[1:]


def test_what_is_no_processor_is_refused_with_a_hint() -> None:
    clock = Bench().clock
    with pytest.raises(TypeError, match=r"neither a TickProcessor nor a ProcessorSpec$"):
        clock.add_processor(42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"pass an instance: Scribe\(\)$"):
        clock.add_processor(Scribe)  # type: ignore[arg-type]
    assert clock.processors == []


def test_a_processor_is_in_one_clock_and_once() -> None:
    clock, other = Bench().clock, Bench().clock
    processor = Scribe()
    clock.add_processor(processor)
    with pytest.raises(ClockError, match="already registered to this clock"):
        clock.add_processor(processor)
    with pytest.raises(ClockError, match="already registered to another clock"):
        other.add_processor(processor)
    clock.remove_processor(processor)
    other.add_processor(processor)
    assert (clock.processors, other.processors) == ([], [processor])


def test_a_processor_that_cannot_travel_is_not_added() -> None:
    clock = Bench().clock
    processor = Scribe()
    with socket.socket() as connection:
        processor.connection = connection  # type: ignore[attr-defined]
        with pytest.raises(TransferError, match=r"Scribe\.connection cannot be sent"):
            clock.add_processor(processor)
    assert clock.processors == []
    del processor.connection  # type: ignore[attr-defined]
    clock.add_processor(processor)


def test_names_are_made_of_the_class_and_counted() -> None:
    clock = Bench().clock
    names = [
        clock.add_processor(processor).name
        for processor in (
            Scribe(),
            Scribe(),
            ProcessorSpec(target="tests.clocks.bench:Scribe"),
            ProcessorSpec(target=lame),
            TickProcessor(),
        )
    ]
    assert names == ["Scribe", "Scribe-2", "Scribe-3", "lame", "TickProcessor"]
    clock.remove_processor("Scribe-2")
    assert clock.add_processor(Scribe()).name == "Scribe-2"


def test_a_name_that_is_made_goes_out_of_the_way_of_one_that_was_given() -> None:
    clock = Bench().clock
    clock.add_processor(Scribe(), name="Scribe")
    assert clock.add_processor(Scribe()).name == "Scribe-2"


def test_a_name_can_be_given_and_is_taken_then() -> None:
    clock = Bench().clock
    assert clock.add_processor(Scribe(), name="feed of börse 1").name == "feed of börse 1"
    with pytest.raises(ClockError, match="'feed of börse 1' is taken"):
        clock.add_processor(Scribe(), name="feed of börse 1")
    assert len(clock.processors) == 1


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "x" * 101, 7, b"a"])
def test_a_name_that_no_terminal_shows_is_refused(name: object) -> None:
    clock = Bench().clock
    with pytest.raises(ConfigError) as caught:
        clock.add_processor(Scribe(), name=name)  # type: ignore[arg-type]
    assert (caught.value.field, caught.value.value) == ("name", name)
    assert clock.processors == []


def test_a_supervision_that_is_none_is_refused() -> None:
    clock = Bench().clock
    with pytest.raises(ConfigError, match="must be a Supervision"):
        clock.add_processor(Scribe(), supervision={"stop_grace": 1})  # type: ignore[arg-type]
    assert clock.processors == []


@pytest.mark.parametrize("name", ["L" * 101, "a\0b", "a\nb"])
@pytest.mark.parametrize("is_spec", [False, True])
def test_a_name_that_is_made_is_checked_like_one_that_is_given(name: str, is_spec: bool) -> None:
    def make() -> Scribe:
        return Scribe()

    make.__name__ = name
    kind = type(name.replace("\0", "\n"), (Scribe,), {})  # no class name has a NUL
    clock = Bench().clock
    with pytest.raises(ConfigError, match="printable characters"):
        clock.add_processor(ProcessorSpec(target=make) if is_spec else kind())
    assert clock.workers == ()
    clock.add_processor(kind(), name="a")


def test_object_name_and_handle_mean_the_same() -> None:
    clock = Bench().clock
    processor = Scribe()
    handle = clock.add_processor(processor, name="a")
    for one in (processor, "a", handle):
        assert clock.get_processor_state(one) is clock.get_processor_state(processor)
    clock.pause_processor("a")
    clock.resume_processor(handle)
    clock.remove_processor(handle)
    assert clock.processors == []


def test_who_is_not_in_the_clock_is_refused_with_those_who_are() -> None:
    clock = Bench().clock
    stranger = Scribe()
    with pytest.raises(ClockError, match=r"is not in this clock; its workers are: none"):
        clock.remove_processor(stranger)
    clock.add_processor(Scribe(), name="a")
    clock.add_processor(Scribe(), name="b")
    for method in (clock.remove_processor, clock.pause_processor, clock.resume_processor):
        with pytest.raises(ClockError, match=r"'c' is not in this clock.*'a', 'b'"):
            method("c")


def test_of_a_stranger_nothing_is_known() -> None:
    clock = Bench().clock
    stranger = Scribe()
    assert clock.get_processor_state(stranger) is None
    assert clock.get_processor_stats("nobody") is None
    assert clock.get_processor_performance(stranger) == (0.0, 0.0, 0.0)


# During a run


def test_a_processor_that_is_added_during_a_run_is_ticked_from_then_on() -> None:
    async def scenario() -> None:
        bench = Bench()
        late = Scribe("late")
        async with bench.clock, bench.running():
            await bench.tick(3)
            handle = bench.clock.add_processor(late)
            await handle.wait_ready()
            await bench.tick(3)
        assert late.ticks == [WALL + 4, WALL + 5, WALL + 6]
        assert handle.statistics().published == handle.statistics().run == 3

    run(scenario())


def test_pause_and_resume_let_no_tick_slip_through_and_lose_none() -> None:
    async def scenario() -> None:
        bench = Bench()
        steady, paused = Scribe("steady"), Scribe("paused")
        clock = bench.clock
        clock.add_processor(steady)
        handle = clock.add_processor(paused)
        async with clock, bench.running():
            await bench.ready()
            await bench.tick(2)
            clock.pause_processor(paused)
            clock.pause_processor(paused)
            assert clock.get_active_processors() == [steady]
            # Time that jumps may overtake a command; time that passes does not.
            await bench.until(lambda: "pause" in paused.notes)
            await bench.tick(3)
            assert bench.ticks[-1].processors == [steady]
            clock.resume_processor(paused)
            clock.resume_processor(paused)
            assert clock.get_active_processors() == [steady, paused]
            await bench.until(lambda: "resume" in paused.notes)
            await bench.tick(2)
        assert paused.ticks == [WALL + 1, WALL + 2, WALL + 6, WALL + 7]
        assert paused.notes.count("pause") == paused.notes.count("resume") == 1
        assert steady.ticks == bench.timestamps
        statistics = handle.statistics()
        assert (statistics.run, statistics.skipped, statistics.missed) == (4, 3, 0)
        # Ticks held back on purpose make no gap.
        assert statistics.largest_gap == 1.0

    run(scenario())


def test_a_worker_that_is_paused_before_it_is_ready_gets_no_tick() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        handle = bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            bench.clock.pause_processor(scribe)
            await handle.wait_ready()
            assert bench.clock.get_active_processors() == []
            await bench.until(lambda: "pause" in scribe.notes)
            await bench.tick(2)
            bench.clock.resume_processor(scribe)
            await bench.until(lambda: "resume" in scribe.notes)
            await bench.tick(1)
        assert scribe.ticks == [WALL + 3]

    run(scenario())


def test_a_pause_outlives_a_restart_but_not_the_clock() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        handle = bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            bench.clock.pause_processor(scribe)
            await handle.restart()
            await bench.tick(2)
            assert [len(one.ticks) for one in alive()] == [0, 0]
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(1)
            assert scribe.ticks == [WALL + 3]

    run(scenario())


def test_a_removed_processor_gets_no_further_tick_and_its_state_is_its_own_again() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe()
        handle = bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(2)
            bench.clock.remove_processor(scribe)
            assert bench.clock.get_processor_state(scribe) is None
            await handle.wait_stopped()
            await bench.tick(2)
            assert handle.status is WorkerStatus.STOPPED
            assert scribe.notes == ["start", "tick", "tick", "stop", "await_cleanup"]
            assert not scribe.state.is_active
            assert scribe.state.total_ticks == 0
            assert handle.state.total_ticks == 2
        assert handle.statistics().published == 2

    run(scenario())


def test_a_name_is_free_again_when_the_worker_that_had_it_has_stopped() -> None:
    async def scenario() -> None:
        bench = Bench()
        clock = bench.clock
        first = clock.add_processor(Scribe("first"), name="a")
        async with clock, bench.running():
            await bench.ready()
            clock.remove_processor("a")
            with pytest.raises(ClockError, match="taken by a worker that is not stopped"):
                clock.add_processor(Scribe(), name="a")
            await first.wait_stopped()
            scribe = Scribe("second")
            second = clock.add_processor(scribe, name="a")
            await second.wait_ready()
            await bench.tick(2)
            assert scribe.ticks == [WALL + 1, WALL + 2]
            # The handle of the first is not one of the second.
            assert (first.status, first.pid) == (WorkerStatus.STOPPED, None)
            assert second.status is WorkerStatus.READY
            assert first.statistics().run == 0

    run(scenario())


def test_a_network_processor_that_has_run_can_be_added_to_another_clock() -> None:
    async def scenario() -> None:
        bench = Bench()
        network = Network()
        bench.clock.add_processor(network)
        async with bench.clock:
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)
        bench.clock.remove_processor(network)
        other = Bench()
        other.clock.add_processor(network)
        async with other.clock:
            await other.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)
            assert network.network_status is NetworkStatus.CONNECTED
        assert network.network_status is NetworkStatus.STOPPED

    run(scenario())


# What is known of them


def test_before_the_clock_is_entered_nobody_is_active() -> None:
    clock = Bench().clock
    scribe = Scribe()
    clock.add_processor(scribe)
    assert clock.get_active_processors() == []
    assert clock.processor_states == {scribe: ProcessorState()}
    assert scribe.state is clock.get_processor_state(scribe)


def test_the_state_is_what_the_worker_reported_last_and_survives_the_clock() -> None:
    async def scenario() -> None:
        bench = Bench()
        clock = bench.clock
        good, bad = Scribe("good"), Scribe("bad", fails=("tick",))
        for processor in (good, bad):
            clock.add_processor(processor)
        async with clock, bench.running():
            await bench.ready()
            await bench.tick(3)
        for processor in (good, bad):
            assert processor.state is clock.get_processor_state(processor)
            assert processor.current_timestamp == WALL + 3
            assert not processor.state.is_active
        state = bench.state(good)
        assert (state.successful_ticks, state.failed_ticks, state.total_ticks) == (3, 0, 3)
        assert len(state.execution_times) == 3
        state = bench.state(bad)
        assert (state.successful_ticks, state.failed_ticks, state.consecutive_errors) == (0, 3, 3)
        assert state.last_error == "tick of bad"
        assert clock.processor_states == {good: good.state, bad: bad.state}

    run(scenario())


def test_the_states_are_a_copy() -> None:
    clock = Bench().clock
    scribe = Scribe()
    clock.add_processor(scribe)
    clock.processor_states.clear()
    assert clock.get_processor_state(scribe) is not None


def test_the_beats_of_a_running_worker_renew_its_state() -> None:
    async def scenario() -> None:
        bench = Bench(supervision=Supervision(loop_stall_timeout=0.2))
        scribe = ProcessorSpec(target=Scribe)
        handle = bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(2)
            async with asyncio.timeout(10):
                while handle.state.successful_ticks < 2:  # noqa: ASYNC110 – a beat is no event
                    await asyncio.sleep(0.01)  # beats come every 0.05 s
            assert bench.state(scribe).last_timestamp == WALL + 2
            assert bench.state(scribe).is_active

    run(scenario())


def test_the_figures_of_a_processor_come_from_its_execution_times() -> None:
    async def scenario() -> None:
        bench = Bench()
        clock = bench.clock
        quick, slow, idle = Scribe(), Sleeper(), Scribe("idle")
        for processor in (quick, slow, idle):
            clock.add_processor(processor)
        async with clock, bench.running():
            await bench.ready()
            clock.pause_processor(idle)
            await bench.until(lambda: "pause" in idle.notes)
            await bench.tick(1)
        assert clock.get_lagging_processors(0.015) == [slow]
        assert clock.get_lagging_processors(60.0) == []
        assert clock.get_lagging_processors(0.0) == [quick, slow]
        state = bench.state(slow)
        mean, deviation, percentile = clock.get_processor_performance(slow)
        assert mean == state.avg_execution_time >= 0.015
        assert deviation == 0.0
        assert percentile == state.execution_times[0]
        assert clock.get_processor_performance(idle) == (0.0, 0.0, 0.0)

    run(scenario())


def test_the_stats_have_chronopypes_keys_and_the_states_values() -> None:
    async def scenario() -> None:
        bench = Bench()
        bad = Scribe("bad", fails=("tick",))
        handle = bench.clock.add_processor(bad)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(2)
        stats = bench.clock.get_processor_stats(handle)
        assert stats is not None
        assert set(stats) == set(ProcessorStats.__annotations__)
        for name, value in stats.items():
            assert value == getattr(bad.state, name)
        assert (stats["failed_ticks"], stats["error_count"], stats["error_rate"]) == (2, 2, 100.0)
        assert stats["last_error"] == "tick of bad"
        assert stats["last_error_time"] is not None

    run(scenario())


def test_the_clocks_window_is_the_processors() -> None:
    async def scenario() -> None:
        bench = Bench(stats_window_size=2)
        scribe = Scribe()
        bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(4)
        assert len(scribe.state.execution_times) == 2
        assert scribe.state.total_ticks == 4

    run(scenario())


def test_the_owners_object_shows_the_network_of_its_worker() -> None:
    async def scenario() -> None:
        bench = Bench()
        network = Network()
        handle = bench.clock.add_processor(network)
        assert network.network_status is NetworkStatus.STOPPED
        async with bench.clock:
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)
            # The second incarnation is another object, so the owner's shows what is reported.
            await handle.restart()
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED, count=2)
            assert alive()[0] is network
            assert alive()[1] is not network
            assert network.network_status is handle.network_status is NetworkStatus.CONNECTED
            assert network.last_connected_timestamp == alive()[1].last_connected_timestamp
        assert network.network_status is NetworkStatus.STOPPED
        assert bench.events.of(NetworkChanged)[-1].after is NetworkStatus.STOPPED

    run(scenario())


def test_settings_of_the_owners_object_reach_the_worker_while_it_runs_and_after_a_restart() -> None:
    async def scenario() -> None:
        bench = Bench()
        network = Network()
        network.check_network_interval = 30.0
        handle = bench.clock.add_processor(network)
        async with bench.clock:
            await handle.wait_ready()
            network.check_network_timeout = 2.0
            await handle.restart()
            twin = alive()[1]
            assert (twin.check_network_interval, twin.check_network_timeout) == (30.0, 2.0)
            network.check_network_interval = 0.01
            network.network_error_wait_time = 7.0
            # Each new setting is followed by a check.
            await bench.until(lambda: twin.network_error_wait_time == 7.0)
            assert twin.check_network_interval == 0.1

    run(scenario())


def test_a_tick_of_a_processor_that_is_not_connected_is_held_back_and_counted() -> None:
    async def scenario() -> None:
        bench = Bench()
        network = Network()
        network.answer = NetworkStatus.NOT_CONNECTED
        handle = bench.clock.add_processor(network)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(2)
            network.answer = NetworkStatus.CONNECTED
            network.check_network_interval = 0.1  # also wakes the wait for the next check
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)
            await turns()
            await bench.tick(2)
        assert network.ticks == [WALL + 3, WALL + 4]
        assert (handle.statistics().run, handle.statistics().skipped) == (2, 2)

    run(scenario())


def test_a_spec_is_made_in_the_worker_for_each_incarnation() -> None:
    async def scenario() -> None:
        bench = Bench()
        spec = ProcessorSpec(target="tests.clocks.bench:Scribe", options={"name": "made"})
        handle = bench.clock.add_processor(spec)
        async with bench.clock, bench.running():
            await bench.ready()
            await bench.tick(1)
            await handle.restart()
            await bench.tick(1)
        first, second = alive("made")
        assert (first.ticks, second.ticks) == ([WALL + 1], [WALL + 2])
        assert len(bench.events.of(WorkerReady)) == 2
        assert bench.state(spec).last_timestamp == WALL + 2

    run(scenario())


@pytest.mark.parametrize("hook", ["stop", "await_cleanup", "pause", "resume"])
def test_a_hook_that_fails_is_reported_and_hinders_nothing(hook: str) -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe(fails=(hook,))
        handle = bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await bench.ready()
            bench.clock.pause_processor(scribe)
            await bench.until(lambda: "pause" in scribe.notes)
            await bench.tick(1)
            bench.clock.resume_processor(scribe)
            await bench.until(lambda: "resume" in scribe.notes)
            await bench.tick(1)
            bench.clock.remove_processor(scribe)
            await handle.wait_stopped()
        assert [event.hook for event in bench.events.of(ProcessorFailed)] == [hook]
        assert scribe.ticks == [WALL + 2]
        assert scribe.notes[-2:] == ["stop", "await_cleanup"]
        assert bench.events.of(WorkerStopped) != []

    run(scenario())


def test_a_processor_that_is_removed_after_the_clock_was_left_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe(), name="a")
        async with bench.clock:
            await handle.wait_ready()
        bench.clock.remove_processor(handle)
        coordinator = bench.clock._coordinator
        assert coordinator is not None
        assert not coordinator.has(handle._record)
        assert handle._record.payload == b""
        with pytest.raises(KeyError):
            coordinator.view("a")
        assert handle.incarnation == 1, "the handle stays valid"

    run(scenario())


def test_supervision_changes_without_a_restart() -> None:
    """What its process was told cannot change."""

    async def scenario() -> None:
        clock = Bench().clock
        handle = clock.add_processor(Scribe(), name="a")
        async with clock:
            await handle.wait_ready()
            never = Supervision(restart="temporary")  # type: ignore[arg-type]
            clock.change_supervision("a", never)
            with pytest.raises(ConfigError, match="its process cannot go on"):
                clock.change_supervision(handle, Supervision(stop_grace=1.0))
            with pytest.raises(ClockError, match="is not in this clock"):
                clock.change_supervision("b", never)
            assert (handle.incarnation, handle.restarts) == (1, 0)
            assert clock._coordinator is not None
            assert clock._coordinator._supervisor._workers["a"].policy is never

    run(scenario())
