"""The account closes however late the ticker thread notes what it has published."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from chronopype_mp import BackoffPolicy, RestartBudget, Supervision, TickProcessor
from chronopype_mp.core.codec import TICK_TOPIC
from chronopype_mp.events import WorkerDied
from chronopype_mp.transport.zeromq import ZmqHub
from tests.system.clocks import Watched, closes, run
from tests.waiting import running

OFTEN = Supervision(
    budget=RestartBudget(max_restarts=1000), backoff=BackoffPolicy(minimum=0.01, maximum=0.01)
)


class DiesAfterTicks(TickProcessor):
    """Ends its process just after its second tick."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def tick(self, timestamp: float) -> None:
        self.count += 1
        if self.count == 2:
            asyncio.get_running_loop().call_later(0.0005, sys.exit, 1)


@pytest.mark.parametrize("launcher", ["forkserver", "spawn"])
def test_the_account_closes_when_workers_die_before_the_ticker_has_noted_their_last_tick(
    launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = ZmqHub.publish

    def publish_and_fall_asleep(hub: ZmqHub, frame: bytes) -> None:
        publish(hub, frame)
        if frame.startswith(TICK_TOPIC):
            time.sleep(0.45)  # the thread does not get the GIL for a while

    monkeypatch.setattr(ZmqHub, "publish", publish_and_fall_asleep)

    async def scenario() -> None:
        watched = Watched(
            launcher=launcher,
            tick_size=0.5,
            supervision=OFTEN,
            restart_budget=RestartBudget(max_restarts=1000, window=1.0),
        )
        clock = watched.clock
        handles = [clock.add_processor(DiesAfterTicks(), name=name) for name in "ab"]
        async with clock, running(clock):
            for handle in handles:
                await watched.events.wait_for(WorkerDied, worker=handle.name, count=2, timeout=60)
        for handle in handles:
            assert closes(handle)
            statistics = handle.statistics()
            assert statistics.run >= 4
            assert statistics.lost >= 0

    run(scenario())
