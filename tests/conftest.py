"""What holds for all tests: the order in which they run, who runs alone, and the settings of tools.

``./scripts/test`` runs pytest in three processes on two cores, because system tests mostly wait.
Tests marked ``quiet`` come last and run one at a time, while no other test of this user that starts
programs runs. A time limit does not include the wait for that.
"""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

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

SLOW = ("system", "main_module", "benchmarks")
"""Directories of tests that start programs."""


def _is_quiet(item: pytest.Item) -> bool:
    return item.get_closest_marker("quiet") is not None


def _is_slow(item: pytest.Item) -> bool:
    return item.path.parent.name in SLOW


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put quiet tests last, and short ones before them: the processes end their shares together."""
    items.sort(key=lambda item: (_is_quiet(item), not _is_slow(item)))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of pytest-timeout's
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a quiet test alone, in whichever process the others are; run the others side by side."""
    if not _is_slow(item):
        return (yield)
    name = f"chronopype_mp-tests-{os.getuid()}"
    with (LOCKS / f"{name}.queue").open("w") as queue, (LOCKS / f"{name}.lock").open("w") as lock:
        # Who waits for the lock keeps the queue: others that share the lock come after it.
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if _is_quiet(item) else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        return (yield)
