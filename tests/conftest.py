"""What holds for all tests: the order in which they run, who runs alone, and the settings of tools.

``./scripts/test`` runs pytest in three processes on two cores, because system tests mostly wait.
Tests marked ``quiet`` come after the others. Two of them run at a time, while no other test of this
user that starts programs runs. Tests marked ``alone`` come last and run one at a time. A time limit
does not include the wait for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import settings

# A background shell starts pytest with SIGINT and SIGQUIT ignored, nohup with SIGHUP. An ignored
# signal is inherited by every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

# Another process' turn on a shared machine says nothing about the code under test.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

LOCKS = Path(tempfile.gettempdir())
"""The directory of the files by which the pytest processes of a user take turns."""

SLOW = ("system", "main_module", "benchmarks", "workers")
"""Directories of tests that start programs."""


SLOTS = 2
"""How many quiet tests run at a time. Each of them is idle for most of its time."""


def _has(item: pytest.Item, mark: str) -> bool:
    return item.get_closest_marker(mark) is not None


def _is_slow(item: pytest.Item) -> bool:
    return item.path.parent.name in SLOW


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put quiet tests last, and short ones before them: the processes end their shares together."""
    items.sort(
        key=lambda item: (_has(item, "alone"), _has(item, "quiet"), not _is_slow(item)),
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of pytest-timeout's
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let others run beside a test, or only quiet ones, or none, in whichever process they are.

    A test shares all slots with others, a quiet one has the slot of its process to itself, and one
    that runs alone has all of them to itself.
    """
    if not _is_slow(item):
        return (yield)
    slots = list(range(SLOTS))
    if _has(item, "quiet"):
        slots = [int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % SLOTS]
    alone = _has(item, "alone") or _has(item, "quiet")
    with contextlib.ExitStack() as stack:
        # Who waits for a slot keeps the queue: others that share the slot come after it.
        queue = stack.enter_context(_lock_file("queue"))
        fcntl.flock(queue, fcntl.LOCK_EX)
        for slot in slots:
            lock = stack.enter_context(_lock_file(f"slot-{slot}"))
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        return (yield)


def _lock_file(name: str) -> TextIO:
    return (LOCKS / f"chronopype_mp-tests-{os.getuid()}.{name}").open("w")
