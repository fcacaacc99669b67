"""Workers on uvloop: the same life, the same supervision."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chronopype_mp.events import DeathReason, WorkerDied, WorkerReady
from chronopype_mp.testing import faults
from tests.system.clocks import Watched, closes, run
from tests.system.neighbours import SHORT
from tests.system.processors import Scribe, ticks_in


class TellsItsLoop(Scribe):
    """Writes what its event loop is, then as any scribe."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        Path(f"{self.path}.loop").write_text(type(asyncio.get_running_loop()).__module__)


@pytest.mark.quiet
def test_a_worker_on_uvloop_ticks_stalls_dies_and_stops_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("uvloop", reason="the extra uvloop is not installed")

    async def scenario() -> None:
        path = tmp_path / "a"
        watched = Watched(event_loop="uvloop", supervision=SHORT)
        async with watched.clock as clock:
            handle = clock.add_processor(TellsItsLoop(path), name="a")
            await handle.wait_ready()
            await watched.run_for(1.0)
            assert ticks_in(path) == watched.published
            faults.block_loop(handle, 60.0)
            death = await watched.events.wait_for(WorkerDied, worker="a")
            assert death.reason is DeathReason.LOOP_BLOCKED
            assert "_block_loop" in death.stacks
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
            await watched.run_for(0.5)
        assert closes(handle)
        assert len(watched.events.of(WorkerDied)) == 1

    run(scenario())
    assert (tmp_path / "a.loop").read_text() == "uvloop"
