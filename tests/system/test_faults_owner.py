"""Rows 23 and 24 of the table of faults: the owner of the clock does not get to run."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from chronopype_mp.events import WorkerDied
from tests.system.clocks import run
from tests.system.neighbours import SHORT, Neighbourhood, row
from tests.system.processors import Network, Scribe, run_times_in, ticks_in
from tests.system.scripts import Scripts

ROOT = Path(__file__).parents[2]

ON_TIME = 0.09
"""Seconds within which a tick must run; less than one tick size."""


@pytest.mark.quiet
@row(23)
def test_an_owner_that_blocks_for_twice_the_deadline_delays_no_tick_and_kills_nobody(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            network = await n.add(Network(tmp_path / "network"), name="network")
            pids = victim.pid, network.pid
            await n.ticks(5)
            began = time.time()
            time.sleep(2 * SHORT.loop_stall_timeout)  # noqa: ASYNC251 – the fault under test
            ended = time.time()
            await n.run_for(SHORT.loop_stall_timeout + 1.0)
            assert not n.events.of(WorkerDied)
            assert (victim.pid, network.pid) == pids
            assert n.clock.position.skipped == 0
        for path in [tmp_path / "victim", *(tmp_path / b.name for b in n.neighbours)]:
            ticks = ticks_in(path)
            assert ticks == n.published[-len(ticks) :]
            times = run_times_in(path)
            assert sum(began < at < ended for at in times) >= 29
            late = max(at - tick for at, tick in zip(times, ticks, strict=True))
            assert late < ON_TIME

    run(scenario())


STOPPED_OWNER = """
import asyncio, json, logging, os, signal, sys, time
from pathlib import Path
from chronopype_mp import TickProcessor
from chronopype_mp.events import WorkerDied
from tests.system.neighbours import SHORT, Neighbourhood
from tests.system.processors import HELD_UP, Scribe

class Chatter(Scribe):
    "Logs more than its socket holds while nobody reads, and notes every turn of its loop."

    def start(self, timestamp):
        super().start(timestamp)
        self.chat = asyncio.get_running_loop().create_task(self.run())

    def stop(self):
        self.chat.cancel()
        super().stop()

    def tick(self, timestamp):
        pass

    async def run(self):
        while True:
            for _ in range(10):
                logging.getLogger("chatter").warning("nobody reads this")
            self.note(repr(time.time()))
            await asyncio.sleep(0.02)

async def main():
    directory = Path.cwd()
    logging.getLogger("chatter").addHandler(logging.NullHandler())
    logging.getLogger("chatter").propagate = False
    go_on = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go_on.set)
    async with Neighbourhood(directory, launcher=sys.argv[1], supervision=SHORT) as n:
        scribe = await n.add(Scribe(directory / "scribe"), name="scribe")
        chatter = await n.add(Chatter(directory / "chatter"), name="chatter")
        pids = [handle.pid for handle in n.clock.workers]
        await n.ticks(5)
        print("running", flush=True)
        await go_on.wait()
        await n.run_for(SHORT.loop_stall_timeout + 1.0)
        print("report " + json.dumps({
            "pids": pids,
            "same": pids == [handle.pid for handle in n.clock.workers],
            "deaths": [str(death) for death in n.events.of(WorkerDied)],
            "skipped": n.clock.position.skipped,
            "lost": chatter.statistics().reports_lost,
        }), flush=True)
    assert scribe.statistics().missed <= HELD_UP

asyncio.run(main())
"""


@row(24)
def test_an_owner_that_is_stopped_for_10_s_and_continued_finds_all_as_it_was(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    script = scripts.start(STOPPED_OWNER, launcher, PYTHONPATH=str(ROOT))
    script.wait_for("running")
    stopped = time.time()
    os.kill(script.process.pid, signal.SIGSTOP)
    time.sleep(10.0)  # the fault under test
    continued = time.time()
    os.kill(script.process.pid, signal.SIGCONT)
    os.kill(script.process.pid, signal.SIGUSR1)
    report = script.report()
    assert report["deaths"] == []
    assert report["same"]
    assert None not in report["pids"]
    assert 95 <= report["skipped"] <= 101
    assert report["lost"] > 0  # the sockets were full indeed
    turns = [float(turn) for turn in (tmp_path / "chatter").read_text().splitlines()]
    during = [at for at in turns if stopped < at < continued]
    assert len(during) > 100
    assert max(b - a for a, b in pairwise(during)) < 1.0
    for name in ("scribe", "neighbour-0", "neighbour-1"):
        times = run_times_in(tmp_path / name)
        assert not [at for at in times if stopped + 0.2 < at < continued]
        assert 1 <= sum(continued <= at < continued + 1.0 for at in times) <= 12
        ticks = ticks_in(tmp_path / name)
        assert all(b - a > 0.09 for a, b in pairwise(ticks))
        assert max(b - a for a, b in pairwise(ticks)) > 9.5
