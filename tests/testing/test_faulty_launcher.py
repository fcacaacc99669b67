"""FaultyLauncher makes a share of a launcher's calls raise, hang or answer late."""

from __future__ import annotations

import asyncio
import collections
from typing import Any

import pytest

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.launchers import Gap, Look, ProcessEnd, WorkerProcess
from chronopype_mp.processors import TickProcessor
from chronopype_mp.testing import FaultyLauncher
from chronopype_mp.transport.base import Hub
from chronopype_mp.transport.memory import MemoryHub
from tests.waiting import run

CALLS = 300
KINDS = ("raises", "hangs", "answers late")
NO_BOOT: Any = None
"""Nothing reads it here."""


class Counts:
    """A launcher that counts calls, and the process that it starts."""

    pid = 1
    pipes = None
    inline = False

    def __init__(self) -> None:
        self.calls: collections.Counter[str] = collections.Counter()

    def open_hub(self, queued: int) -> Hub:
        return MemoryHub(queued)

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> WorkerProcess:
        self.calls["start"] += 1
        return self

    def close(self) -> None:
        self.calls["close"] += 1

    async def wait(self) -> ProcessEnd:
        self.calls["wait"] += 1
        return ProcessEnd(exitcode=0)

    async def look(self) -> Look:
        self.calls["look"] += 1
        return Look(gone=True)

    def kill(self, stacks_within: float = 0.0) -> None:
        self.calls["kill"] += 1

    def terminate(self) -> None:
        self.calls["terminate"] += 1

    def clean_up(self) -> None:
        self.calls["clean_up"] += 1

    def exception(self, serial: int) -> BaseException | None:
        self.calls["exception"] += 1
        return None


async def start(launcher: FaultyLauncher) -> WorkerProcess:
    return await launcher.start(NO_BOOT, launcher.open_hub(1), None, lambda seconds: 0.0)


async def call_all(launcher: FaultyLauncher, process: WorkerProcess) -> None:
    """Call every method `CALLS` times; give up a coroutine once it does nothing but hang."""

    async def bounded(work: asyncio.Future[object]) -> None:
        await asyncio.wait({work}, timeout=0.002)
        work.cancel()
        await asyncio.wait({work})

    for _ in range(CALLS):
        for work in (start(launcher), process.wait(), process.look()):
            await bounded(asyncio.ensure_future(work))
        for act in (
            process.kill,
            process.terminate,
            process.clean_up,
            lambda: process.exception(1),
        ):
            try:
                act()
            except (OSError, RuntimeError, asyncio.CancelledError):
                continue


def test_every_method_fails_in_each_way_that_it_can() -> None:
    async def scenario() -> FaultyLauncher:
        launcher = FaultyLauncher(Counts(), share=0.0, slowest=0.0)
        process = await start(launcher)
        launcher.share = 0.5
        await call_all(launcher, process)
        return launcher

    expected = {f"{method}() raises" for method in ("clean_up", "exception")}
    for method in ("start", "wait", "look", "kill", "terminate"):
        expected |= {f"{method}() {kind}" for kind in KINDS}
    assert set(run(scenario()).injected) == expected


def test_with_a_share_of_0_every_call_reaches_the_launcher() -> None:
    async def scenario() -> tuple[FaultyLauncher, Counts]:
        inner = Counts()
        launcher = FaultyLauncher(inner, share=0.0)
        process = await start(launcher)
        await call_all(launcher, process)
        return launcher, inner

    launcher, inner = run(scenario())
    assert not launcher.injected
    assert set(inner.calls.values()) == {CALLS, CALLS + 1}  # one start more


def test_the_seed_fixes_the_sequence_of_faults() -> None:
    async def scenario(seed: int) -> dict[str, int]:
        launcher = FaultyLauncher(Counts(), seed, share=0.0, slowest=0.0)
        process = await start(launcher)
        launcher.share = 0.3
        for _ in range(CALLS):
            try:
                process.kill()
            except (OSError, RuntimeError, asyncio.CancelledError):
                continue
        return dict(launcher.injected)

    assert run(scenario(1)) == run(scenario(1)) != run(scenario(2))


def test_a_process_whose_start_fails_afterwards_is_killed_reaped_and_cleaned_up() -> None:
    async def scenario() -> tuple[FaultyLauncher, Counts]:
        inner = Counts()
        launcher = FaultyLauncher(inner, share=1.0, slowest=0.0)
        for _ in range(CALLS):
            starting = asyncio.ensure_future(start(launcher))
            await asyncio.wait({starting}, timeout=0.002)
            starting.cancel()
            await asyncio.wait({starting})
            if not starting.cancelled() and starting.exception() is None:
                inner.calls["answered"] += 1
        return launcher, inner

    launcher, inner = run(scenario())
    undone = inner.calls["start"] - inner.calls["answered"]
    assert undone > 0
    assert inner.calls["kill"] == inner.calls["wait"] == inner.calls["clean_up"] == undone
    assert launcher.injected.total() == CALLS


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"share": -0.1}, "share"), ({"share": 1.1}, "share"), ({"slowest": -1.0}, "slowest")],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        FaultyLauncher(Counts(), **arguments)
