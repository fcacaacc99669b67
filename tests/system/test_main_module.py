"""Programs as users write them: no guard, classes in the main module, notebooks."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.system.scripts import Scripts

UNGUARDED = """
import asyncio, enum, os, pathlib, sys, time
sys.path.insert(0, pathlib.Path("/tmp"))
print("main module runs in", os.getpid(), flush=True)
from chronopype_mp import ClockConfig, ClockMode, ProcessorSpec, TickProcessor
from chronopype_mp.clocks import RealtimeClock

FACTOR = 3

class Color(enum.Enum):
    RED = 1
    BLUE = 2

    def other(self):
        return Color.BLUE if self is Color.RED else Color.RED

def helper(x):
    return x * FACTOR

class Base(TickProcessor):
    def value(self):
        return helper(14)

class Mine(Base):
    def __init__(self):
        super().__init__()
        self.seen = 0
        self.color = Color.RED

    def tick(self, timestamp):
        self.seen += 1
        if self.seen == 1:
            print("value", self.value(), __name__, self.color.other(), flush=True)

lambda_made = ProcessorSpec(target=lambda: Mine())

async def main():
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
    async with RealtimeClock(config, launcher=sys.argv[1]) as clock:
        handles = [clock.add_processor(Mine()), clock.add_processor(lambda_made)]
        for handle in handles:
            await handle.wait_ready()
        await clock.run_til(time.time() + 0.5)
    print("runs", [handle.statistics().run >= 8 for handle in handles], flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("launcher", ["forkserver", "spawn", "inline"])
def test_an_unguarded_script_runs_its_main_module_once(scripts: Scripts, launcher: str) -> None:
    script = scripts.start(UNGUARDED, launcher)
    assert script.wait() == 0, script.output
    assert script.output.count("main module runs in") == 1
    assert script.output.count("value 42 __main__ Color.BLUE") == 2
    assert "runs [True, True]" in script.output


def test_a_script_from_standard_input_and_one_run_as_a_module_work(scripts: Scripts) -> None:
    for command in (["-c", UNGUARDED], ["-m", "as_module"]):
        (scripts.directory / "as_module.py").write_text(UNGUARDED)
        script = scripts.run([sys.executable, *command, "forkserver"])
        assert script.wait() == 0, script.output
        assert script.output.count("main module runs in") == 1
        assert "runs [True, True]" in script.output


NOTEBOOK = '''
import sys
import nbformat
from nbclient import NotebookClient

cells = [
    """
import time
from chronopype_mp import ClockConfig, ClockMode, TickProcessor
from chronopype_mp.clocks import RealtimeClock
GREETING = "hello from"
class Cell(TickProcessor):
    def tick(self, timestamp):
        self.greet = GREETING
    async def async_tick(self, timestamp):
        self.tick(timestamp)
        print(self.greet, "the worker", flush=True)
""",
    """
async with RealtimeClock(
    ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05), launcher=%r
) as clock:
    handle = clock.add_processor(Cell())
    await handle.wait_ready()
    await clock.run_til(time.time() + 0.5)
print("ran", handle.statistics().run >= 8, handle.restarts)
""" % sys.argv[1],
]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print("".join(o.get("text", "") for cell in notebook.cells for o in cell.outputs))
'''


@pytest.mark.parametrize("launcher", ["forkserver", "spawn"])
def test_a_class_from_a_notebook_works_in_a_worker(scripts: Scripts, launcher: str) -> None:
    script = scripts.start(NOTEBOOK, launcher, IPYTHONDIR=str(scripts.directory))
    assert script.wait() == 0, script.output
    assert "[Cell] hello from the worker" in script.output
    assert "ran True 0" in script.output
    # Jupyter kills the kernel with its children; what multiprocess made for itself stays.
    for left in Path(tempfile.gettempdir()).glob("pymp-*"):
        shutil.rmtree(left)
