"""Network settings that a processor changes in its worker, and that its owner changes outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronopype_mp import NetworkStatus, PermanentFailure
from chronopype_mp.events import Event, NetworkChanged, WorkerReady
from tests.system.clocks import Watched, eventually, run
from tests.system.processors import Network

CONNECTED, ERROR = NetworkStatus.CONNECTED, NetworkStatus.ERROR

SETTINGS = ("check_network_interval", "check_network_timeout", "network_error_wait_time")

either_launcher = pytest.mark.parametrize("launcher", ["forkserver", "inline"])


def values(processor: Network) -> list[float]:
    return [getattr(processor, name) for name in SETTINGS]


class Adjusting(Network):
    """Changes its settings once connected, and notes what they are then and at its start."""

    def start(self, timestamp: float) -> None:
        self.note(f"start {values(self)}")
        super().start(timestamp)

    def on_connected(self) -> None:
        for name, value in zip(SETTINGS, (0.5, 0.25, 0.125), strict=True):
            setattr(self, name, value)
        self.note(f"connected {values(self)}")


@either_launcher
def test_what_a_hook_sets_holds_for_its_incarnation_only(launcher: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        processor = Adjusting(tmp_path / "calls")
        async with watched.clock as clock:
            handle = clock.add_processor(processor)
            for incarnation in (1, 2):
                await watched.events.wait_for(
                    NetworkChanged, incarnation=incarnation, after=NetworkStatus.CONNECTED
                )
                assert values(processor) == [10.0, 5.0, 60.0]
                await handle.restart()
                await watched.events.wait_for(WorkerReady, incarnation=incarnation + 1)
        assert values(processor) == [10.0, 5.0, 60.0]
        lines = (tmp_path / "calls").read_text().splitlines()
        starts = [line for line in lines if line.startswith("start [")]
        connections = [line for line in lines if line.startswith("connected")]
        assert starts == ["start [10.0, 5.0, 60.0]"] * 3
        assert set(connections) == {"connected [0.5, 0.25, 0.125]"}

    run(scenario())


class Pausing(Adjusting):
    """Notes that it is paused, and its settings when it is resumed."""

    def pause(self) -> None:
        super().pause()
        self.note("paused")

    def resume(self) -> None:
        super().resume()
        self.note(f"resumed {values(self)}")


@either_launcher
def test_what_a_hook_sets_outlives_other_commands_of_the_owner(
    launcher: str, tmp_path: Path
) -> None:
    """Settings travel whole, with those that the owner set long ago."""

    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        processor = Pausing(tmp_path / "calls")
        async with watched.clock as clock:
            handle = clock.add_processor(processor)
            processor.check_network_interval = 7.0
            await watched.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)
            clock.pause_processor(handle)
            await eventually(lambda: "paused" in (tmp_path / "calls").read_text())
            clock.resume_processor(handle)
            await eventually(lambda: "resumed" in (tmp_path / "calls").read_text())
        lines = (tmp_path / "calls").read_text().splitlines()
        assert "start [7.0, 5.0, 60.0]" in lines
        assert "resumed [0.5, 0.25, 0.125]" in lines
        assert processor.check_network_interval == 7.0

    run(scenario())


class Noting(Network):
    """Notes its check interval at every check."""

    async def check_network(self) -> NetworkStatus:
        self.note(f"check {self.check_network_interval:g}")
        return await super().check_network()


@either_launcher
@pytest.mark.parametrize("where", ["after an event", "in a callback"])
def test_what_the_owner_sets_reaches_the_worker_and_the_next_one(
    launcher: str, where: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        processor = Noting(tmp_path / "calls")
        (tmp_path / "calls").touch()

        def set_it(event: Event) -> None:
            processor.check_network_interval = 7.0

        if where == "in a callback":
            watched.clock.events.subscribe(set_it, WorkerReady)
        async with watched.clock as clock:
            handle = clock.add_processor(processor)
            ready = await watched.events.wait_for(WorkerReady)
            if where == "after an event":
                set_it(ready)
            await eventually(lambda: "check 7" in (tmp_path / "calls").read_text())
            assert processor.check_network_interval == 7.0
            (tmp_path / "calls").write_text("")
            await handle.restart()
            await watched.events.wait_for(
                NetworkChanged, incarnation=2, after=NetworkStatus.CONNECTED
            )
        lines = (tmp_path / "calls").read_text().splitlines()
        assert {line for line in lines if line.startswith("check")} == {"check 7"}

    run(scenario())


class Denied(Network):
    """Is told that its key is wrong."""

    async def check_network(self) -> NetworkStatus:
        raise PermanentFailure("wrong key")


@either_launcher
def test_what_the_owner_sets_while_the_network_waits_ends_or_shortens_the_wait(
    launcher: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        connected, denied = Noting(tmp_path / "calls"), Denied(tmp_path / "denied")
        async with watched.clock as clock:
            clock.add_processor(connected, name="connected")
            await watched.events.wait_for(NetworkChanged, worker="connected", after=CONNECTED)
            connected.stale_after = 0.05
            await watched.events.wait_for(NetworkChanged, worker="connected", before=CONNECTED)
            clock.add_processor(denied, name="denied")
            await watched.events.wait_for(NetworkChanged, worker="denied", after=ERROR)
            denied.retry_permanent_after = 0.05
            await watched.events.wait_for(NetworkChanged, worker="denied", before=ERROR)

    run(scenario())
