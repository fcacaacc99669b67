"""The directory of a running fleet."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronopype_mp.exceptions import FleetRunningError, TransportError
from chronopype_mp.fleet import directory as module
from chronopype_mp.fleet.directory import FleetDirectory, known_fleets

HOLDER = """
import os, sys
from chronopype_mp.fleet import directory as module
from chronopype_mp.fleet.directory import FleetDirectory

directory = FleetDirectory(sys.argv[1])
directory.socket.touch()
child = os.fork() if "fork" in sys.argv else None
if child == 0:
    print(os.getpid(), flush=True)  # it has let go of the lock by now
elif child is None:
    print(0, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cp-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory) / "chronopype_mp"


def hold(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """Run a program that holds a directory; return it and the pid of its child."""
    command = [sys.executable, "-c", HOLDER, *arguments]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    return holder, int(holder.stdout.readline())


def end(holder: subprocess.Popen[str], number: int) -> None:
    holder.send_signal(number)
    holder.wait()
    for pipe in (holder.stdin, holder.stdout):
        assert pipe is not None
        pipe.close()


@pytest.mark.parametrize("name", ["main", "a/b", "..", "ä ö.%2F"])
def test_a_fleet_is_known_while_it_runs_and_leaves_nothing_behind(root: Path, name: str) -> None:
    """Whatever its name is."""
    directory = FleetDirectory(name)
    assert directory.path.parent == root
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert [known[:3] for known in known_fleets()] == [(name, os.getpid(), True)]
    directory.close()
    directory.close()
    assert not root.exists()
    assert known_fleets() == []


def test_a_second_fleet_of_the_same_name_is_refused_with_the_pid_of_the_first() -> None:
    """Another name is free."""
    holder, _ = hold("main")
    with pytest.raises(FleetRunningError, match=f"'main' runs already in process {holder.pid};"):
        FleetDirectory("main")
    FleetDirectory("other").close()
    end(holder, signal.SIGKILL)


def test_what_a_killed_coordinator_leaves_is_recognised_and_removed() -> None:
    """The lock ends with the process, although a process that it has forked lives on."""
    holder, child = hold("main", "fork")
    try:
        end(holder, signal.SIGKILL)
        (known,) = known_fleets()
        assert (known.pid, known.is_alive, known.socket.exists()) == (holder.pid, False, True)
        directory = FleetDirectory("main")
        assert directory.was_stale
        assert not directory.socket.exists()
        directory.close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_logs_stay_and_do_not_make_a_fleet_known() -> None:
    """Files of others in the directory are left alone."""
    directory = FleetDirectory("main")
    log = directory.path / "log"
    log.touch()
    directory.close()
    assert log.exists()
    assert known_fleets() == []


def test_a_look_at_the_fleets_does_not_prevent_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the lock for a moment, and the start tries again."""
    first = FleetDirectory("main")
    path = first.path
    (path / "log").touch()
    first.close()
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    monkeypatch.setattr(module, "known_fleets", list)
    monkeypatch.setattr(module, "sleep", lambda seconds: fcntl.flock(fd, fcntl.LOCK_UN))
    FleetDirectory("main").close()
    os.close(fd)


def test_the_directory_of_another_user_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who made it first could read the commands."""
    root.mkdir()
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with pytest.raises(TransportError, match=f"belongs to user {user}"):
        FleetDirectory("main")


def test_a_link_is_no_directory(root: Path, tmp_path: Path) -> None:
    """It might lead anywhere."""
    root.symlink_to(tmp_path)
    with pytest.raises(TransportError, match="is not a directory"):
        FleetDirectory("main")


def test_a_directory_that_others_can_enter_is_closed(root: Path) -> None:
    """As with a umask of 0 and an older version."""
    root.mkdir(mode=0o755)
    directory = FleetDirectory("main")
    assert root.stat().st_mode & 0o777 == 0o700
    directory.close()


def test_a_path_that_is_too_long_for_a_socket_is_refused_with_advice() -> None:
    """libzmq's own error would not say what to do."""
    with pytest.raises(TransportError, match="shorten the fleet's name"):
        FleetDirectory("x" * 99)
