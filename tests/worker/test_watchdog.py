"""The watchdog, in a process of its own: it takes faulthandler for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COMMON = """
import os, sys, threading, time
from chronopype_mp.core.boot import STACKS_HEADER
from chronopype_mp.launchers.base import STACKS_SIGNAL
from chronopype_mp.worker.watchdog import Watchdog

path = sys.argv[1]
watchdog = Watchdog(path)

def text():
    with open(path, "rb") as file:
        file.seek(STACKS_HEADER.size)
        return file.read().decode()

def from_a_thread(function):
    thread = threading.Thread(target=function, name="guard")
    thread.start()
    thread.join()
"""


def printed(script: str, tmp_path: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", COMMON + script, str(tmp_path / "stacks")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_stacks_of_any_number_of_threads_are_written_the_main_one_last_until_the_loop_turns(
    tmp_path: Path,
) -> None:
    script = """
def wait_for_ever():
    threading.Event().wait()

for number in range(150):
    threading.Thread(target=wait_for_ever, name=f"thread {number}", daemon=True).start()

def stand_still():
    from_a_thread(watchdog.write)

for _ in range(2):
    stand_still()
    stacks = text().split("\\n\\n")
    print(len(stacks), sum("in wait_for_ever" in stack for stack in stacks))
    print(stacks[-1].startswith("Thread 'MainThread'"), "in stand_still" in stacks[-1])
    watchdog.loop_turns()
    print(repr(text()))
"""
    assert printed(script, tmp_path) == ["151 150", "True True", "''"] * 2


def test_no_stacks_are_read_while_their_thread_changes_them(tmp_path: Path) -> None:
    """faulthandler's timer does that, and now and then the process dies of it."""
    script = """
end = time.monotonic() + 2.0

def write_again_and_again():
    while time.monotonic() < end:
        watchdog.write()
        watchdog.loop_turns()

def descend(depth):
    return depth and [descend(depth - 1) for _ in range(1)]

thread = threading.Thread(target=write_again_and_again)
thread.start()
while thread.is_alive():
    descend(100)
print("alive")
"""
    assert printed(script, tmp_path) == ["alive"]


def test_asked_by_the_signal_it_writes_while_the_gil_is_held_and_the_loop_does_not_undo_that(
    tmp_path: Path,
) -> None:
    script = """
import ctypes, subprocess
reader, writer = os.pipe()
subprocess.Popen(["sh", "-c", f"read x; kill -{int(STACKS_SIGNAL)} {os.getpid()}"], stdin=reader)

def hold_gil():
    os.write(writer, b"\\n")
    ctypes.PyDLL(None).usleep(30_000_000)  # which the signal ends

hold_gil()
watchdog.loop_turns()
print("in hold_gil" in text())
"""
    assert printed(script, tmp_path) == ["True"]


def test_the_file_tells_when_python_ran_last(tmp_path: Path) -> None:
    script = """
def told():
    with open(path, "rb") as file:
        return STACKS_HEADER.unpack(file.read(STACKS_HEADER.size))[0]

print(0.0 <= time.monotonic() - told() < 30.0)
watchdog.python_runs(42.5)
from_a_thread(watchdog.write)
print(told())
"""
    assert printed(script, tmp_path) == ["True", "42.5"]


def test_without_a_path_nothing_is_shared_and_everything_else_works(tmp_path: Path) -> None:
    script = """
os.chdir(os.path.dirname(path))
nameless = Watchdog("")
nameless.python_runs(42.5)
from_a_thread(nameless.write)
nameless.loop_turns()
os.kill(os.getpid(), STACKS_SIGNAL)
print(os.listdir())
"""
    assert printed(script, tmp_path) == ["['stacks']"]


def test_on_a_full_disk_the_stacks_have_no_file_and_the_worker_starts_all_the_same(
    tmp_path: Path,
) -> None:
    (tmp_path / "stacks").symlink_to("/dev/full")
    script = """
from_a_thread(watchdog.write)
watchdog.python_runs(1.0)
watchdog.loop_turns()
print("done")
"""
    assert printed(script, tmp_path) == ["done"]
