"""Programs as users write them: no guard, classes in the main module, notebooks.

`tests.main_module.cases` has the table of what they may define.
"""

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


REDEFINED = '''
import nbformat
from nbclient import NotebookClient

cells = [
    """
import time
from chronopype_mp import ClockConfig, ClockMode, TickProcessor
from chronopype_mp.clocks import RealtimeClock
class Cell(TickProcessor):
    def start(self, timestamp):
        print("the first", self.word(), flush=True)
    def word(self):
        return WORD
WORD = "old"
first = Cell()
""",
    """
class Cell(TickProcessor):
    def start(self, timestamp):
        print("the second", flush=True)
WORD = "new"
""",
    """
async with RealtimeClock(ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)) as clock:
    for processor in (first, Cell()):
        await clock.add_processor(processor).wait_ready()
    await clock.run_til(time.time() + 0.2)
""",
]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print("".join(o.get("text", "") for cell in notebook.cells for o in cell.outputs))
'''


def test_a_class_that_is_defined_again_in_a_later_cell_does_not_change_older_objects(
    scripts: Scripts,
) -> None:
    script = scripts.start(REDEFINED, IPYTHONDIR=str(scripts.directory))
    assert script.wait() == 0, script.output
    assert "the first new" in script.output
    assert "the second" in script.output
    for left in Path(tempfile.gettempdir()).glob("pymp-*"):
        shutil.rmtree(left)


ONE_WORKER = """
import asyncio, sys
from chronopype_mp import ClockConfig, ClockMode, TickProcessor
from chronopype_mp.clocks import RealtimeClock

async def run(processor):
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
    async with RealtimeClock(config, launcher="forkserver") as clock:
        await clock.add_processor(processor).wait_ready()
"""


@pytest.mark.parametrize("edit", ["return 'edited'", "return 'edited'  # and longer"])
def test_a_source_that_was_edited_since_the_start_is_not_used(scripts: Scripts, edit: str) -> None:
    script = scripts.start(
        ONE_WORKER
        + f"""
class Mine(TickProcessor):
    def start(self, timestamp):
        print("it is", value(), flush=True)

def value():
    return 'loaded'

text = open(__file__).read()
open(__file__, "w").write("# a line" + chr(10) + text.replace("return 'loaded'", {edit!r}))
asyncio.run(run(Mine()))
"""
    )
    assert script.wait() == 0, script.output
    assert "it is loaded" in script.output


def test_what_cannot_be_compared_with_an_edited_source_is_not_taken_from_it(
    scripts: Scripts,
) -> None:
    script = scripts.start(
        ONE_WORKER
        + """
import enum, os, time

class Side(enum.Enum):
    BUY = 1

class Mine(TickProcessor):
    def start(self, timestamp):
        print("it is", Side.BUY.value, flush=True)

text = open(__file__).read()
open(__file__, "w").write(text.replace("BUY = 1", "BUY = 2"))
os.utime(__file__, (time.time() + 60,) * 2)  # as if the program had run for a while
asyncio.run(run(Mine()))
"""
    )
    assert script.wait() == 0, script.output
    assert "it is 1" in script.output


def test_a_class_of_a_doctest_works(scripts: Scripts) -> None:
    script = scripts.start(
        ONE_WORKER
        + """
import doctest

def example():
    '''
    >>> count = 0
    >>> def bump():
    ...     global count
    ...     count += 1
    >>> class Mine(TickProcessor):
    ...     def start(self, timestamp):
    ...         bump(); bump()
    ...         print("count is", count, file=sys.stderr, flush=True)
    >>> asyncio.run(run(Mine()))
    '''

print(doctest.testmod())
"""
    )
    assert script.wait() == 0, script.output
    assert "count is 2" in script.output
    assert "failed=0, attempted=4" in script.output


def test_a_module_of_pytest_works(scripts: Scripts) -> None:
    (scripts.directory / "test_mine.py").write_text(
        ONE_WORKER
        + """
count = 0

def bump():
    global count
    count += 1

class Mine(TickProcessor):
    def start(self, timestamp):
        bump(); bump()
        print("count is", count, __name__, flush=True)

def test_it():
    class Local(Mine):
        pass
    asyncio.run(run(Mine()))
    asyncio.run(run(Local()))
"""
    )
    script = scripts.run([sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"])
    assert script.wait() == 0, script.output
    assert script.output.count("count is 2 test_mine") == 2


def test_a_pool_that_runs_an_unguarded_script_again_does_not_start_its_clock(
    scripts: Scripts,
) -> None:
    script = scripts.start(
        ONE_WORKER
        + """
import concurrent.futures, multiprocessing

def work(x):
    return x * 2

class Mine(TickProcessor):
    def start(self, timestamp):
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            try:
                print("result", pool.submit(work, 3).result(), flush=True)
            except Exception as error:
                print("failed:", type(error).__name__, flush=True)

if "unguarded" in sys.argv or __name__ == "__main__":
    asyncio.run(run(Mine()))
""",
        "unguarded",
    )
    assert script.wait() == 0, script.output
    assert "failed: BrokenProcessPool" in script.output
    assert "which would start its clock again" in script.output
    script = scripts.run([sys.executable, "script.py"])
    assert script.wait() == 0, script.output
    assert "result 6" in script.output
