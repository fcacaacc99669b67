"""Programs that use a clock in the surroundings that a test makes for them."""

from __future__ import annotations

__all__ = ["LINKS", "PROGRAM"]

PROGRAM = '''
import asyncio, glob, json, logging, os, shutil, signal, subprocess, sys, tempfile, threading
import psutil
from chronopype_mp import ClockConfig, ClockMode, NetworkProcessor, NetworkStatus, Supervision
from chronopype_mp import TickProcessor, WorkerStatus
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.events import NetworkChanged, WorkerDied, WorkerReady
from chronopype_mp.testing import EventRecorder

QUICK = Supervision(backoff=BackoffPolicy(minimum=0.05, jitter=0.0))

class Link(NetworkProcessor):
    up = False

    @classmethod
    def logger(cls):
        return logging.getLogger("link")

    async def check_network(self):
        return NetworkStatus.CONNECTED if self.up else NetworkStatus.NOT_CONNECTED

    async def start_network(self):
        self.up = True

    async def stop_network(self):
        await asyncio.sleep(0.2)
        with open("stopped", "a") as file:
            file.write("x")

def helpers(pid=None):
    return psutil.Process(pid).children(recursive=True)

def make_clock():
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
    return RealtimeClock(config, launcher=sys.argv[1], supervision=QUICK)

def report(**values):
    print("report", json.dumps(values), flush=True)

async def restarted(events, handle, kill):
    """Kill the process, wait until the next one is READY."""
    number = handle.incarnation
    kill()
    await events.wait_for(WorkerReady, worker=handle.name, incarnation=number + 1)
'''

LINKS = (
    PROGRAM
    + """
async def main():
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    number = signal.Signals[sys.argv[2]]
    loop.add_signal_handler(number, asked.set)
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handles = [clock.add_processor(Link()) for _ in range(2)]
        for handle in handles:
            await handle.wait_ready()
        run = asyncio.create_task(clock.run())
        everything = helpers()
        if sys.argv[3] == "group":
            os.killpg(0, number)
        elif sys.argv[3] == "owner":
            os.kill(os.getpid(), number)
        elif sys.argv[3] == "unit":
            for process in [*everything, psutil.Process()]:
                process.send_signal(number)
        else:
            for process in everything:  # for long before the owner learns of it
                process.send_signal(number)
            first = [handle.pid for handle in handles]
            await restarted(events, handles[0], lambda: os.kill(first[0], signal.SIGKILL))
            events.events.clear()
            os.kill(os.getpid(), number)
        await asked.wait()
        await clock.shutdown()
        await run
    report(deaths=len(events.of(WorkerDied)))

asyncio.run(main())
"""
)
