"""Processors come, pause and go while a run is going."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chronopype_mp import ClockError
from tests.system.clocks import Watched, closes, run
from tests.system.processors import Network, Scribe, ticks_in
from tests.system.scripts import wait_until


@pytest.mark.quiet
@pytest.mark.parametrize("launcher", ["forkserver", "spawn", "inline"])
def test_add_pause_resume_and_remove_take_effect_at_once(tmp_path: Path, launcher: str) -> None:
    run(_membership(tmp_path / "ticks", launcher))


async def _membership(path: Path, launcher: str) -> None:
    watched = Watched(tick_size=0.05, launcher=launcher)
    async with watched.clock as clock:
        running = asyncio.create_task(clock.run())
        await watched.ticks(2)
        scribe = Scribe(path)
        handle = clock.add_processor(scribe, name="a")
        await handle.wait_ready()
        await watched.ticks(4)

        clock.pause_processor(scribe)
        paused_at = clock.current_timestamp
        assert scribe not in clock.get_active_processors()
        await watched.ticks(6)
        resumed_at = clock.current_timestamp
        clock.resume_processor(scribe)
        await watched.ticks(6)

        clock.remove_processor(scribe)
        removed_at = clock.current_timestamp
        assert clock.processors == []
        await handle.wait_stopped()
        await watched.ticks(4)
        with pytest.raises(ClockError, match="not in this clock"):
            clock.pause_processor(scribe)
        await clock.shutdown()
        await running
    ticks = ticks_in(path)
    tick = watched.tick_size
    # A call and the next tick may cross on their way; no later tick may.
    assert len([t for t in ticks if t <= paused_at]) >= 3
    assert not [t for t in ticks if paused_at + tick + 1e-6 < t <= resumed_at]
    assert len([t for t in ticks if t > resumed_at + tick + 1e-6]) >= 4
    assert not [t for t in ticks if t > removed_at + tick + 1e-6]
    assert handle.statistics().skipped >= 4
    assert closes(handle)


def test_a_setting_changed_on_the_owners_object_reaches_the_running_worker(tmp_path: Path) -> None:
    run(_setting(tmp_path / "notes"))


class CountsChecks(Network):
    """Notes its interval at every check."""

    async def check_network(self):  # type: ignore[no-untyped-def]
        self.note(f"check {self.check_network_interval}")
        return await super().check_network()


async def _setting(path: Path) -> None:
    watched = Watched()
    async with watched.clock as clock:
        processor = CountsChecks(path)
        processor.check_network_interval = 30.0
        handle = clock.add_processor(processor)
        await handle.wait_ready()
        await asyncio.to_thread(
            wait_until, lambda: path.exists() and "check 30.0" in path.read_text(), 10.0
        )
        processor.check_network_interval = 0.1
        await asyncio.to_thread(wait_until, lambda: "check 0.1" in path.read_text(), 10.0)
