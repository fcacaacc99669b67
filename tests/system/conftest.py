"""Real processes: each test gets a directory for temporary files, and must leave nothing behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chronopype_mp.launchers.helpers import ensure_forkserver
from chronopype_mp.launchers.process import PRELOAD
from tests.system.backends import Data
from tests.system.scripts import TOKEN, Scripts, wait_for_ends

LEAVING = 5.0
"""Seconds that processes have to disappear after a test."""

TEST_TIMEOUT = 150
"""Seconds; more than a scenario or a program may take."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/system" in str(item.path) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


@pytest.fixture(scope="session", autouse=True)
def for_the_whole_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make what outlives the single tests: pytest's directory, the servers of multiprocess.

    A worker imports the module of its processor. What test modules import, which is far more than a
    processor needs, the forkserver has preloaded.
    """
    tmp_path_factory.getbasetemp()
    ensure_forkserver([PRELOAD, "chronopype_mp.events", "pytest"])


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for all temporary files, with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="cp-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def nothing_left(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves processes, threads, file descriptors or files behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    monkeypatch.setenv("TMPDIR", str(short_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    monkeypatch.setenv(TOKEN, uuid.uuid4().hex)
    processes, threads, fds = _processes(), set(threading.enumerate()), _fds()
    yield
    new = _processes() - processes
    alive = wait_for_ends(new, LEAVING)
    assert not alive, f"processes left: {alive}"
    left = {thread for thread in threading.enumerate() if thread not in threads}
    assert not left, f"threads left: {left}"
    assert _fds() == fds, "file descriptors left"
    files = [path.name for path in short_path.iterdir()]
    assert not files, f"files left: {files}"


@pytest.fixture(scope="session")
def data() -> Iterator[Data]:
    """What servers of one kind share, such as a database cluster."""
    data = Data()
    yield data
    data.remove()


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    """Runs programs as a user would; those still running in the end are killed."""
    scripts = Scripts(tmp_path)
    yield scripts
    scripts.kill_all()


def _processes() -> set[psutil.Process]:
    """All descendants, and all that were started with this test's token, whoever adopted them."""
    found = set(psutil.Process().children(recursive=True))
    token = os.environ.get(TOKEN)
    for process in psutil.process_iter():
        try:
            if token is not None and process.environ().get(TOKEN) == token:
                found.add(process)
        except psutil.Error:
            continue
    return found - {psutil.Process()}


def _fds() -> dict[str, str]:
    """Open descriptors; sockets and pipes of the servers above stay the same ones."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one of this listing
    return found
