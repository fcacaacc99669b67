"""Kills the owner of a clock at random moments from its first line to its last.

Five seconds after each kill no process may be left. Once the next clock was entered, no directory
may be left either.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

MARK = "CHRONOPYPE_MP_KILL_OWNER"

LEAVING = 5.0
"""Seconds that processes have to end after their owner was killed."""

SWEEP_AFTER = 10
"""Kills after which a clock is entered and left."""

OWNER = """
import asyncio, logging, sys
logging.disable()
from chronopype_mp import ClockConfig, ClockMode, TickProcessor
from chronopype_mp.clocks import RealtimeClock

async def main():
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
    async with RealtimeClock(config, launcher=sys.argv[1]) as clock:
        handles = [clock.add_processor(TickProcessor()) for _ in range(3)]
        for handle in handles:
            await handle.wait_ready()
        run = asyncio.create_task(clock.run())
        await asyncio.sleep(0.3)  # ticks; the launcher makes its spare process
        await handles[0].restart()
        await clock.shutdown()
        await run

asyncio.run(main())
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--launcher", choices=["forkserver", "spawn"], default="forkserver")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="ko-") as directory:
        environment = {**os.environ, "TMPDIR": directory, MARK: directory}
        command = [sys.executable, "-c", OWNER, options.launcher]
        begun = time.monotonic()
        subprocess.run(command, env=environment, check=True)
        lifetime = time.monotonic() - begun
        found = 0
        for number in range(1, options.kills + 1):
            moment = rng.uniform(0.0, lifetime)
            owner = subprocess.Popen(command, env=environment, start_new_session=True)
            time.sleep(moment)  # the moment is the point
            owner.kill()
            owner.wait()
            if left := processes_left(directory):
                print(f"kill {number} after {moment:.3f} s left processes: {left}")
                return 1
            found += bool(list(Path(directory).iterdir()))
            if number % SWEEP_AFTER == 0 or number == options.kills:
                subprocess.run(command, env=environment, check=True)
                # Python may leave a plain file: it tries by writing one whether TMPDIR can be used.
                if left := [str(path) for path in Path(directory).iterdir() if path.is_dir()]:
                    print(f"up to kill {number}, directories are left: {left}")
                    return 1
    print(
        f"{options.kills} kills in {lifetime:.1f} s of life: no process after {LEAVING} s, "
        f"no directory after the next clock (at {found} kills one was there until then)"
    )
    return 0


def processes_left(directory: str) -> list[str]:
    """Wait for the end of the processes of an owner; return those that are left."""
    deadline = time.monotonic() + LEAVING
    while (left := marked(directory)) and time.monotonic() < deadline:
        time.sleep(0.05)  # the end of a stranger's child sends no event
    return left


def marked(directory: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == directory:
                found.append(f"{process.pid} {process.status()} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
