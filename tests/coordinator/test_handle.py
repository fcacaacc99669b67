"""WorkerHandle: what it shows, what it waits for, and when it cannot."""

from __future__ import annotations

import asyncio
import os

import pytest

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.worker_events import (
    NetworkChanged,
    ProcessorFailed,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerStarting,
    WorkerStatus,
    WorkerStopped,
)
from chronopype_mp.core.worker_statistics import WorkerStatistics
from chronopype_mp.exceptions import PermanentFailure, RetryAfter, WorkerError
from chronopype_mp.processors import ProcessorState
from tests.clocks.bench import WALL, Bench, Network, Scribe, alive
from tests.waiting import run, turns

NO_RESTARTS = Supervision(budget=RestartBudget(max_restarts=0))


def test_before_the_clock_is_entered_there_is_a_name_and_no_process() -> None:
    handle = Bench().clock.add_processor(Scribe(), name="a")
    assert (handle.name, handle.pid, handle.incarnation, handle.restarts) == ("a", None, 0, 0)
    assert handle.status is WorkerStatus.STOPPED
    assert handle.network_status is NetworkStatus.STOPPED
    assert handle.state == ProcessorState()
    assert handle.statistics() == WorkerStatistics()
    assert repr(handle) == "<WorkerHandle 'a' STOPPED pid=None incarnation=0>"


def test_in_an_entered_clock_it_shows_the_process() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe(), name="a")
        async with bench.clock:
            assert (handle.status, handle.incarnation) == (WorkerStatus.STARTING, 1)
            await handle.wait_ready()
            assert handle.status is WorkerStatus.READY
            assert handle.pid == os.getpid()
            assert repr(handle) == f"<WorkerHandle 'a' READY pid={os.getpid()} incarnation=1>"
            bench.time.advance(2.5)
            assert handle.statistics().uptime == 2.5
            assert handle.statistics().last_heard == WALL
        assert handle.statistics().uptime == 0.0
        assert (handle.status, handle.pid, handle.incarnation) == (WorkerStatus.STOPPED, None, 1)

    run(scenario())


def test_waiting_for_a_worker_needs_an_entered_clock() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe(), name="a")

        async def refused() -> None:
            with pytest.raises(WorkerError, match=r"worker 'a': wait_ready\(\) needs") as caught:
                await handle.wait_ready()
            assert caught.value.worker == "a"
            with pytest.raises(WorkerError, match=r"worker 'a': restart\(\) needs"):
                await handle.restart()
            await handle.wait_stopped()

        await refused()
        async with bench.clock:
            await handle.wait_ready()
            await handle.wait_ready()
        await refused()

    run(scenario())


def test_waiting_can_be_bounded_and_cancelling_it_changes_nothing() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe())
        async with bench.clock:
            waiting = asyncio.create_task(handle.wait_ready())
            await asyncio.sleep(0)  # yields, so that it waits
            waiting.cancel()
            await handle.wait_ready()
            assert waiting.cancelled()
            stopping = asyncio.create_task(handle.wait_stopped())
            await turns()
            stopping.cancel()
            await turns()
            assert handle.status is WorkerStatus.READY

    run(scenario())


def test_a_worker_that_is_stopped_while_it_is_waited_for_gets_no_more_ready() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe(), name="a")
        async with bench.clock:
            waiting = asyncio.create_task(handle.wait_ready())
            await asyncio.sleep(0)  # yields, so that it waits
            bench.clock.remove_processor(handle)
            with pytest.raises(WorkerError, match="it is STOPPED and will not become READY"):
                await waiting
            await handle.wait_stopped()
            for ask in (handle.restart, handle.wait_ready):
                with pytest.raises(WorkerError, match="it was removed from its clock"):
                    await ask()

    run(scenario())


def test_a_restart_gives_a_new_incarnation_that_begins_as_it_was_added() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = Scribe("a")
        handle = bench.clock.add_processor(scribe)
        async with bench.clock, bench.running():
            await handle.wait_ready()
            await bench.tick(2)
            await handle.restart()
            assert (handle.status, handle.incarnation) == (WorkerStatus.READY, 2)
            assert handle.restarts == 1
            await bench.tick(3)
        first, second = alive("a")
        assert first is scribe
        assert first.notes == ["start", "tick", "tick", "stop", "await_cleanup"]
        assert second.notes == ["start", "tick", "tick", "tick", "stop", "await_cleanup"]
        assert second.ticks == [WALL + 3, WALL + 4, WALL + 5]
        # A restart that was asked for is no death.
        assert bench.events.of(WorkerDied) == []
        statistics = handle.statistics()
        assert (statistics.published, statistics.run, statistics.restarts) == (5, 5, 1)

    run(scenario())


def test_a_restart_of_a_worker_that_starts_waits_for_that_start() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe())
        async with bench.clock:
            await handle.restart()
            assert (handle.incarnation, handle.restarts) == (1, 0)

    run(scenario())


def test_restarts_at_the_same_time_are_one() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe())
        async with bench.clock:
            await handle.wait_ready()
            await asyncio.gather(handle.restart(), handle.restart())
            assert (handle.status, handle.incarnation) == (WorkerStatus.READY, 2)

    run(scenario())


def test_a_quarantined_worker_will_not_get_ready_until_it_is_restarted() -> None:
    async def scenario() -> None:
        bench = Bench(supervision=NO_RESTARTS)
        bad = Scribe("a", fails=("start",))
        handle = bench.clock.add_processor(bad)
        async with bench.clock:
            with pytest.raises(WorkerError, match="QUARANTINED"):
                await handle.wait_ready()
            await bench.events.wait_for(WorkerQuarantined)
            with pytest.raises(WorkerError, match="QUARANTINED"):
                await handle.restart()
            assert handle.incarnation == 2
            # The payload was made when it was added, so nothing can be mended in it.
            bench.clock.remove_processor(handle)
            bad.fails = ()
            mended = bench.clock.add_processor(bad)
            await mended.wait_ready()

    run(scenario())


def test_a_worker_may_have_a_supervision_of_its_own() -> None:
    async def scenario() -> None:
        patient = Supervision(backoff=BackoffPolicy(minimum=1.0, maximum=1.0, jitter=0.0))
        bench = Bench(supervision=NO_RESTARTS)
        doomed = bench.clock.add_processor(Scribe(fails=("start",)))
        waiting = bench.clock.add_processor(Scribe(fails=("start",)), supervision=patient)
        async with bench.clock:
            await bench.events.wait_for(WorkerQuarantined, worker=doomed.name)
            await bench.events.wait_for(WorkerBackingOff, worker=waiting.name)
            # The first restart is immediate.
            bench.time.advance(0.1)
            await bench.events.wait_for(WorkerBackingOff, worker=waiting.name, delay=1.0)
            for _ in range(8):
                bench.time.advance(0.1)
                await turns()
            assert (waiting.status, waiting.incarnation) == (WorkerStatus.BACKOFF, 2)
            for _ in range(4):
                bench.time.advance(0.1)
                await turns()
            await bench.events.wait_for(WorkerStarting, worker=waiting.name, incarnation=3)
            assert doomed.status is WorkerStatus.QUARANTINED

    run(scenario())


def test_the_handle_outlives_the_clock_and_keeps_its_figures() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe())
        async with bench.clock, bench.running():
            await handle.wait_ready()
            await bench.tick(4)
        statistics = handle.statistics()
        assert (statistics.published, statistics.run, statistics.largest_gap) == (4, 4, 1.0)
        assert handle.state.total_ticks == 4
        bench.clock.remove_processor(handle)
        assert handle.statistics() == statistics
        await handle.wait_stopped()

    run(scenario())


class Failing(Network):
    """Connects at the second start; the first one raises ``error``."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error
        self.answer = NetworkStatus.NOT_CONNECTED

    async def start_network(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.answer = NetworkStatus.CONNECTED


@pytest.mark.parametrize(
    ("error", "status", "waits"),
    [
        (PermanentFailure("401 wrong key"), NetworkStatus.ERROR, False),
        (RetryAfter(3600, "maintenance"), NetworkStatus.NOT_CONNECTED, True),
    ],
)
def test_it_shows_why_there_is_no_connection_and_can_ask_for_one(
    error: Exception, status: NetworkStatus, waits: bool
) -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Failing(error))
        assert (handle.network_reason, handle.next_attempt) == (None, None)
        async with bench.clock:
            reason = f"start_network: {type(error).__name__}: {error}"
            change = await bench.events.wait_for(NetworkChanged, after=status, reason=reason)
            assert (handle.network_reason, handle.next_attempt) == (reason, change.next_attempt)
            assert (change.next_attempt is not None) is waits
            failed = await bench.events.wait_for(ProcessorFailed)
            assert (failed.hook, failed.traceback) == ("start_network", "")
            assert (failed.next_attempt is not None) is waits
            handle.reconnect()
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)
            assert handle.network_reason == "check_network() returned CONNECTED"
            handle.reconnect()
            await bench.events.wait_for(NetworkChanged, reason="reconnect requested", count=2)
        assert handle.network_reason == "stopped"

    run(scenario())


def test_a_reconnect_needs_a_worker_that_may_connect() -> None:
    async def scenario() -> None:
        bench = Bench()
        scribe = bench.clock.add_processor(Scribe(), name="a")
        network = bench.clock.add_processor(Network(), name="b")
        with pytest.raises(WorkerError, match=r"worker 'b': reconnect\(\) needs an entered clock"):
            network.reconnect()
        async with bench.clock:
            network.reconnect()
            with pytest.raises(WorkerError, match=r"'a': reconnect\(\) needs a NetworkProcessor"):
                scribe.reconnect()
            bench.clock.remove_processor(network)
            with pytest.raises(WorkerError, match="'b'"):
                network.reconnect()

    run(scenario())


# What the owner asks for


def test_a_stopped_worker_stays_stopped_until_it_is_started_and_keeps_its_figures() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe("a"), name="a")
        async with bench.clock, bench.running():
            await handle.wait_ready()
            await bench.tick(2)
            handle.stop()
            assert handle.status is WorkerStatus.STOPPING
            handle.stop()
            await handle.wait_stopped()
            handle.stop()
            assert (handle.status, handle.pid) == (WorkerStatus.STOPPED, None)
            await bench.tick(3)
            assert bench.clock.workers == (handle,)
            for ask in (handle.wait_ready, handle.restart):
                with pytest.raises(WorkerError, match=r"it is STOPPED .*; start\(\) starts it"):
                    await ask()
            with pytest.raises(WorkerError, match="reconnect"):
                handle.reconnect()
            assert bench.events.of(WorkerDied) == []
            handle.start()
            handle.start()
            await handle.wait_ready()
            assert (handle.status, handle.incarnation) == (WorkerStatus.READY, 2)
            handle.start()
            await bench.tick(4)
        first, second = alive("a")
        assert first.notes == ["start", "tick", "tick", "stop", "await_cleanup"]
        assert second.ticks == [WALL + 6, WALL + 7, WALL + 8, WALL + 9]
        statistics = handle.statistics()
        assert (statistics.published, statistics.run, statistics.restarts) == (6, 6, 1)

    run(scenario())


def test_a_start_right_after_a_stop_follows_it_and_the_last_word_counts() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe("a"))
        async with bench.clock:
            await handle.wait_ready()
            handle.stop()
            handle.start()
            await bench.events.wait_for(WorkerStarting, incarnation=2)
            await handle.wait_ready()
            assert bench.events.of(WorkerStopped) == []
            handle.stop()
            handle.start()
            handle.stop()
            await handle.wait_stopped()
            assert handle.incarnation == 2

    run(scenario())


def test_a_start_brings_back_a_quarantined_worker() -> None:
    async def scenario() -> None:
        bench = Bench(supervision=NO_RESTARTS)
        handle = bench.clock.add_processor(Scribe("a", fails=("start",)))
        async with bench.clock:
            await bench.events.wait_for(WorkerQuarantined)
            handle.start()
            await bench.events.wait_for(WorkerStarting, incarnation=2)
            await bench.events.wait_for(WorkerQuarantined, count=2)
            handle.stop()
            assert handle.status is WorkerStatus.STOPPED

    run(scenario())


def test_a_pause_holds_until_it_is_resumed_also_over_restarts() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Scribe("a"))
        async with bench.clock, bench.running():
            await handle.wait_ready()
            handle.pause()
            handle.pause()
            assert not handle.state.is_active
            await handle.restart()
            await bench.tick(2)
            handle.stop()
            await handle.wait_stopped()
            handle.start()
            await handle.wait_ready()
            await bench.tick(3)
            handle.resume()
            handle.resume()
            await bench.until(lambda: "resume" in alive("a")[-1].notes)
            await bench.tick(1)
        assert [one.ticks for one in alive("a")] == [[], [], [WALL + 6]]
        assert alive("a")[-1].notes[:3] == ["start", "pause", "resume"]
        statistics = handle.statistics()
        assert (statistics.skipped, statistics.run) == (5, 1)

    run(scenario())


@pytest.mark.parametrize("request_name", ["stop", "start", "pause", "resume", "reconnect"])
def test_requests_need_an_entered_clock_that_has_the_worker(request_name: str) -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Network(), name="a")

        def refused(problem: str) -> None:
            with pytest.raises(WorkerError, match=problem) as caught:
                getattr(handle, request_name)()
            assert caught.value.worker == "a"

        needs_a_clock = rf"worker 'a': {request_name}\(\) needs an entered clock"
        refused(needs_a_clock)
        async with bench.clock:
            await handle.wait_ready()
            await bench.clock.shutdown()
            refused(needs_a_clock)
        refused(needs_a_clock)
        bench = Bench()
        handle = bench.clock.add_processor(Network(), name="a")
        async with bench.clock:
            bench.clock.remove_processor(handle)
            refused("worker 'a': it was removed from its clock")

    run(scenario())


def test_the_figures_of_a_connection_add_up_over_restarts() -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Failing(PermanentFailure("401 wrong key")))
        async with bench.clock:
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.ERROR)
            await bench.events.wait_for(ProcessorFailed)
            statistics = handle.statistics()
            wrong = "start_network: PermanentFailure: 401 wrong key"
            assert (statistics.network_error, statistics.network_error_at) == (wrong, WALL)
            assert (statistics.network_reason, statistics.network_since) == (wrong, WALL)
            assert (statistics.connects, statistics.next_attempt) == (0, None)
            assert statistics.check_latency.count == 1
            handle.reconnect()
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)
            assert handle.statistics().connects == 1
            await handle.restart()
            # The copy fails once, too.
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.ERROR, count=2)
            handle.reconnect()
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED, count=2)
        statistics = handle.statistics()
        assert (statistics.connects, statistics.restarts) == (2, 1)
        assert statistics.connected_seconds > 0.0
        assert statistics.network_error == wrong
        assert (statistics.network_reason, statistics.next_attempt) == ("stopped", None)

    run(scenario())
