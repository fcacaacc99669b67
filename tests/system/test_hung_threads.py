"""Calls that hang use up the threads of `asyncio.to_thread`. A new process has new ones."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from pathlib import Path

from chronopype_mp import BackoffPolicy, NetworkProcessor, NetworkStatus, Supervision
from chronopype_mp.events import DeathReason, NetworkChanged, WorkerDied
from tests.system.clocks import Watched, closes, run


class Polling(NetworkProcessor):
    """Asks a server in a thread. It does not answer as long as a file is there."""

    check_network_interval = 0.1
    check_network_timeout = 0.1
    network_backoff = BackoffPolicy(minimum=0.1, maximum=0.1)

    def __init__(self, hangs: Path) -> None:
        super().__init__()
        self.hangs = hangs

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.polling")

    def ask(self) -> None:
        if self.hangs.exists():
            threading.Event().wait()

    async def check_network(self) -> NetworkStatus:
        await asyncio.to_thread(self.ask)
        return NetworkStatus.CONNECTED


def test_a_worker_whose_checks_hang_in_threads_connects_once_the_server_answers(
    tmp_path: Path,
) -> None:
    run(_scenario(tmp_path / "hangs"))


async def _scenario(hangs: Path) -> None:
    await asyncio.to_thread(hangs.touch)
    threads = min(32, (os.cpu_count() or 1) + 4)
    watched = Watched()
    async with watched.clock as clock:
        supervision = Supervision(max_check_timeouts=2 * threads, stop_grace=3.0)
        handle = clock.add_processor(Polling(hangs), name="a", supervision=supervision)
        await handle.wait_ready()
        death = await watched.events.wait_for(WorkerDied, timeout=60.0)
        assert death.reason is DeathReason.LIMIT_EXCEEDED
        assert "checks timed out in a row" in (death.detail or "")
        await asyncio.to_thread(hangs.unlink)
        connected = await watched.events.wait_for(
            NetworkChanged, after=NetworkStatus.CONNECTED, timeout=60.0
        )
        assert connected.incarnation > death.incarnation
    assert closes(handle)
