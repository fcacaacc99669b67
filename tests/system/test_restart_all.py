"""A rolling restart of all workers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chronopype_mp import NetworkStatus, RestartBudget, Supervision, WorkerError, WorkerStatus
from chronopype_mp.events import Event, NetworkChanged, WorkerReady, WorkerStopping
from chronopype_mp.testing import faults
from tests.system.clocks import Watched, closes, run
from tests.system.neighbours import QUICK
from tests.system.processors import Network, Scribe, ran, ticks_in
from tests.waiting import running

POLICY = Supervision(
    backoff=QUICK,
    budget=RestartBudget(max_restarts=0),
    stop_grace=2.0,
    start_timeout=1.5,
)


class SlowNetwork(Network):
    """Takes a while to connect."""

    async def start_network(self) -> None:
        await asyncio.sleep(0.2)  # what it takes
        await super().start_network()


class NotTwice(Network):
    """Starts in its first process only."""

    def start(self, timestamp: float) -> None:
        if self.path.exists():
            raise RuntimeError("not twice")
        super().start(timestamp)


class Gauge:
    """Counts who is down, from the events, at each of them."""

    def __init__(self, watched: Watched, networks: set[str]) -> None:
        self._networks = networks
        self.down: set[str] = set()
        self.most = 0
        watched.clock.events.subscribe(self._take)

    def _take(self, event: Event) -> None:
        match event:
            case WorkerStopping(worker=worker):
                self.down.add(worker)
            case WorkerReady(worker=worker) if worker not in self._networks:
                self.down.discard(worker)
            case NetworkChanged(worker=worker, after=NetworkStatus.CONNECTED):
                self.down.discard(worker)
        self.most = max(self.most, len(self.down))


@pytest.mark.parametrize("most", [1, 2])
def test_never_more_than_max_unavailable_are_down_and_a_network_counts_until_it_is_connected(
    tmp_path: Path, most: int
) -> None:
    async def scenario() -> None:
        watched = Watched(tick_size=0.1, supervision=POLICY)
        clock = watched.clock
        networks = {f"network-{i}" for i in range(3)}
        handles = [clock.add_processor(SlowNetwork(tmp_path / w), name=w) for w in networks]
        handles += [
            clock.add_processor(Scribe(tmp_path / f"scribe-{i}"), name=f"scribe-{i}")
            for i in range(2)
        ]
        async with clock:
            for name in networks:
                await watched.events.wait_for(
                    NetworkChanged, worker=name, after=NetworkStatus.CONNECTED
                )
            for handle in handles:
                await handle.wait_ready()
            async with running(clock):
                await watched.ticks(5)
                pids = [handle.pid for handle in handles]
                gauge = Gauge(watched, networks)
                await clock.restart_all(max_unavailable=most)
                assert (gauge.most, gauge.down) == (most, set())
                assert all(handle.status is WorkerStatus.READY for handle in handles)
                assert all(handle.incarnation == 2 for handle in handles)
                assert not set(pids) & {handle.pid for handle in handles}
                assert all(
                    handle.network_status is NetworkStatus.CONNECTED
                    for handle in handles
                    if handle.name in networks
                )
                # In the order of adding, as far as that can be seen.
                order = [event.worker for event in watched.events.of(WorkerStopping)]
                if most == 1:
                    assert order == [handle.name for handle in handles]
                await watched.ticks(5)
        assert all(closes(handle) for handle in handles)
        # An orderly restart loses no tick that the worker was published.
        assert all(handle.statistics().lost == 0 for handle in handles)

    run(scenario())


def test_it_stops_rolling_when_one_does_not_come_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tick_size=0.1, supervision=POLICY)
        clock = watched.clock
        first = clock.add_processor(Scribe(tmp_path / "first"), name="first")
        bad = clock.add_processor(NotTwice(tmp_path / "bad"), name="bad")
        rest = [clock.add_processor(Scribe(tmp_path / name), name=name) for name in ("c", "d")]
        async with clock:
            await watched.events.wait_for(
                NetworkChanged, worker="bad", after=NetworkStatus.CONNECTED
            )
            for handle in (first, *rest):
                await handle.wait_ready()
            async with running(clock):
                await watched.ticks(3)
                pids = [handle.pid for handle in rest]
                with pytest.raises(WorkerError, match="'bad'"):
                    await clock.restart_all()
                assert first.incarnation == 2
                assert bad.status is WorkerStatus.QUARANTINED
                assert "not twice" in (bad.last_failure.error or "" if bad.last_failure else "")
                await watched.ticks(5)
                assert [handle.pid for handle in rest] == pids
                assert all(handle.incarnation == 1 for handle in rest)
        for handle in rest:
            ticks = ticks_in(tmp_path / handle.name)
            assert ran(ticks, watched.published[watched.published.index(ticks[0]) :])

    run(scenario())


class NeverConnects(Network):
    """Is down from the beginning."""

    async def start_network(self) -> None:
        await asyncio.Event().wait()


def test_one_that_is_down_already_goes_first_and_nobody_else_while_it_stays_down(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        watched = Watched(supervision=POLICY)
        async with watched.clock as clock:
            good = [clock.add_processor(Scribe(tmp_path / name), name=name) for name in "abc"]
            bad = clock.add_processor(NeverConnects(tmp_path / "bad"), name="bad")
            for handle in (*good, bad):
                await handle.wait_ready()
            await watched.events.wait_for(NetworkChanged, worker="bad")
            with pytest.raises(WorkerError, match=r"'bad'.*did not come back within 1 s"):
                await clock.restart_all(timeout=1.0)
            assert [handle.incarnation for handle in (*good, bad)] == [1, 1, 1, 2]
            # There is room for one more now: the good ones go, one at a time.
            with pytest.raises(WorkerError, match=r"'bad'.*did not come back within 1 s"):
                await clock.restart_all(max_unavailable=2, timeout=1.0)
            assert [handle.incarnation for handle in (*good, bad)] == [2, 2, 2, 3]

    run(scenario())


def test_nobody_goes_while_another_is_down_that_was_up_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = POLICY.model_copy(update={"budget": RestartBudget(max_restarts=1)})
        watched = Watched(supervision=policy)
        async with watched.clock as clock:
            first = clock.add_processor(SlowNetwork(tmp_path / "first"), name="first")
            others = [clock.add_processor(ConnectsOnce(tmp_path / n), name=n) for n in "ab"]
            for handle in (first, *others):
                await watched.events.wait_for(
                    NetworkChanged, worker=handle.name, after=NetworkStatus.CONNECTED
                )
            rolling = asyncio.create_task(clock.restart_all(timeout=1.5))
            await watched.events.wait_for(WorkerStopping, worker="first")
            faults.kill(others[1])  # and it will not get connected again
            with pytest.raises(WorkerError, match=r"'a'.*others are down"):
                await rolling
            assert [handle.incarnation for handle in (first, *others)] == [2, 1, 2]

    run(scenario())


class ConnectsOnce(Network):
    """Does not get connected in a second process."""

    async def start_network(self) -> None:
        if self.path.exists():
            await asyncio.Event().wait()
        await super().start_network()


def test_it_stops_rolling_when_a_network_does_not_come_back_in_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(supervision=POLICY)
        clock = watched.clock
        bad = clock.add_processor(ConnectsOnce(tmp_path / "bad"), name="bad")
        other = clock.add_processor(Scribe(tmp_path / "other"), name="other")
        async with clock:
            await watched.events.wait_for(
                NetworkChanged, worker="bad", after=NetworkStatus.CONNECTED
            )
            await other.wait_ready()
            with pytest.raises(WorkerError, match="did not come back within 1 s"):
                await clock.restart_all(timeout=1.0)
            assert (bad.status, bad.incarnation) == (WorkerStatus.READY, 2)
            assert (other.status, other.incarnation) == (WorkerStatus.READY, 1)

    run(scenario())


def test_a_network_that_was_not_connected_before_is_waited_for_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(supervision=POLICY)
        async with watched.clock as clock:
            handles = [
                clock.add_processor(SlowNetwork(tmp_path / name), name=name) for name in "abc"
            ]
            for handle in handles:
                await handle.wait_ready()
                await watched.events.wait_for(NetworkChanged, worker=handle.name)
            await clock.restart_all()
            assert [handle.incarnation for handle in handles] == [2, 2, 2]
            assert {handle.network_status for handle in handles} == {NetworkStatus.CONNECTED}

    run(scenario())
