"""The coordinator's end, whichever way it comes: rows 11 and 13 of the table of faults."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from tests.system.neighbours import row
from tests.system.scripts import TOKEN, Scripts, processes_of, wait_for_ends, wait_until

PROGRAM = """
import asyncio, ctypes, logging, os, subprocess, sys, time
from pathlib import Path
from chronopype_mp import ClockConfig, ClockMode, NetworkProcessor, NetworkStatus, TickProcessor
from chronopype_mp.clocks import RealtimeClock

def start_children():
    for new_session in (False, True):
        subprocess.Popen(["sleep", "1000"], start_new_session=new_session)

class Link(NetworkProcessor):
    up = False

    @classmethod
    def logger(cls):
        return logging.getLogger("link")

    async def check_network(self):
        return NetworkStatus.CONNECTED if self.up else NetworkStatus.NOT_CONNECTED

    async def start_network(self):
        self.up = True
        start_children()

    async def stop_network(self):
        with open(f"stop-{os.getpid()}", "a") as file:
            file.write("begun ")
        await asyncio.sleep(0.3)
        with open(f"stop-{os.getpid()}", "a") as file:
            file.write("ended")

class Blocked(TickProcessor):
    def tick(self, timestamp):
        start_children()
        print("blocked", flush=True)
        time.sleep(1000)

class Spinning(TickProcessor):
    def tick(self, timestamp):
        print("spinning", flush=True)
        while True:
            pass

class Stuck(TickProcessor):
    def tick(self, timestamp):
        if sys.argv[1] == "forkserver":  # under spawn there is nobody left to end them
            start_children()
        print("stuck", flush=True)
        ctypes.PyDLL(None).usleep(ctypes.c_uint(1_000_000_000))  # keeps the GIL

async def main():
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    clock = RealtimeClock(config, launcher=sys.argv[1])
    links = [Link() for _ in range(3)]
    counting = [clock.add_processor(TickProcessor()) for _ in range(2)]
    for link in links:
        clock.add_processor(link)
    if sys.argv[2] == "sick":
        for kind in (Blocked, Spinning, Stuck):
            clock.add_processor(kind())
    try:
        async with clock:
            clock.events.subscribe(
                lambda event: all(link.network_status is NetworkStatus.CONNECTED for link in links)
                and print("all connected", flush=True)
            )
            for handle in counting:
                await handle.wait_ready()
            clock.add_subscriber_with_callback(
                clock.tick_publication,
                lambda event: event.tick_counter == 5 and print("five ticks", flush=True),
                with_event_info=False,
            )
            await clock.run()
    finally:
        for handle in counting:
            s = handle.statistics()
            print("account", s.run == s.published > 0, s.missed, s.lost, s.restarts)
"""

BARE = PROGRAM + "\nasyncio.run(main())\n"

POLITE = (
    PROGRAM
    + """
try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""
)


HEALTHY = "account True 0 0 0"
"""What a worker prints in the end that ran every tick in one process."""


def stops_in(directory: Path) -> list[str]:
    return [path.read_text() for path in directory.glob("stop-*")]


@row(11, "forkserver", "spawn")
def test_when_the_coordinator_is_killed_no_process_is_left_and_healthy_workers_stop_in_order(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    script = scripts.start(BARE, launcher, "sick")
    for text in ("all connected", "blocked", "spinning", "stuck"):
        script.wait_for(text)
    token = os.environ[TOKEN]
    assert len(processes_of(token)) >= 9
    os.kill(script.process.pid, signal.SIGKILL)
    script.wait()
    wait_until(lambda: not processes_of(token), 5.0, lambda: f"left: {processes_of(token)}")
    assert stops_in(tmp_path) == ["begun ended"] * 3


@row(13, "forkserver", "spawn")
def test_ctrl_c_stops_in_order_and_without_a_traceback(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    script = scripts.start(POLITE, launcher, "healthy")
    script.wait_for("all connected")
    script.wait_for("five ticks")
    script.signal_group(signal.SIGINT)
    assert script.wait() == 130
    assert "Traceback" not in script.output
    assert "Error" not in script.output
    assert script.output.count(HEALTHY) == 2
    assert stops_in(tmp_path) == ["begun ended"] * 3


@row(13)
def test_a_second_ctrl_c_ends_at_once(scripts: Scripts, launcher: str) -> None:
    slow = POLITE.replace("asyncio.sleep(0.3)", "asyncio.sleep(4)")
    script = scripts.start(slow, launcher, "healthy")
    script.wait_for("all connected")
    workers = [
        child
        for child in psutil.Process(script.process.pid).children(recursive=True)
        if child.ppid() != script.process.pid
    ]
    script.signal_group(signal.SIGINT)
    wait_until(lambda: bool(stops_in(scripts.directory)), 10.0)
    script.signal_group(signal.SIGINT)
    assert script.wait(2.0) == 130
    assert not wait_for_ends(workers, 2.0)
    assert "ended" not in "".join(stops_in(scripts.directory))
