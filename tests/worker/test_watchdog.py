"""The watchdog, in a process of its own: it takes faulthandler for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys, time
from chronopype_mp.worker.watchdog import Watchdog

path, stall = sys.argv[1], 0.5

def written():
    return os.stat(path).st_size > 0

def stand_still():
    while not written():
        time.sleep(0.001)

watchdog = Watchdog(path, stall)
end = time.monotonic() + 2 * stall
while time.monotonic() < end:
    watchdog.turned()
    time.sleep(0.001)
print("turning", written())
for _ in range(2):
    began = time.monotonic()
    stand_still()
    print("in time", time.monotonic() - began < stall)
    print("culprit", "stand_still" in open(path).read())
    watchdog.turned()
    print("turned", written())
watchdog.close()
time.sleep(1.5 * stall)
print("closed", written())
"""


def test_stacks_are_written_when_the_loop_stands_still_and_gone_when_it_turns(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "stacks")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    once = ["in time True", "culprit True", "turned False"]
    assert done.stdout.splitlines() == ["turning False", *once, *once, "closed False"]
