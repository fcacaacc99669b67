"""A callback ends the program while no run is in progress: asyncio cancels all of its tasks."""

from __future__ import annotations

import os

import pytest

from tests.system.scripts import TOKEN, Scripts, processes_of, wait_until

PROGRAM = """
import asyncio, os, sys
from chronopype_mp import ClockConfig, ClockMode, TickProcessor
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.events import WorkerDied, WorkerStarting

class Orderly(TickProcessor):
    def stop(self):
        super().stop()
        print("stopped", os.getpid(), flush=True)

def leave(event):
    raise {kind}

async def main():
    clock = RealtimeClock(ClockConfig(clock_mode=ClockMode.REALTIME), launcher=sys.argv[1])
    handles = [clock.add_processor(Orderly(), name=name) for name in "ab"]
    clock.events.subscribe(lambda event: print("died", event, flush=True), WorkerDied)
    async with clock:
        for handle in handles:
            await handle.wait_ready()
        clock.events.subscribe(leave, WorkerStarting)
        clock.add_processor(Orderly(), name="c")  # has no process yet when the program ends
        await asyncio.Event().wait()

if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(5)
"""


@pytest.mark.parametrize(
    ("launcher", "kind"), [("forkserver", "SystemExit(5)"), ("spawn", "KeyboardInterrupt")]
)
def test_an_exit_from_a_callback_stops_every_worker_gracefully(
    scripts: Scripts, launcher: str, kind: str
) -> None:
    token = f"exit {os.getpid()} {kind}"
    script = scripts.start(PROGRAM.replace("{kind}", kind), launcher, **{TOKEN: token})
    assert script.wait() == 5, script.output
    assert script.output.count("stopped") == 2
    assert "died" not in script.output
    assert "left behind" not in script.output
    wait_until(lambda: not processes_of(token), 10.0)  # the forkserver ends a moment later
