"""The directory of a running fleet: its control socket, and a lock that shows that it runs.

The directory is ``$XDG_RUNTIME_DIR/chronopype_mp/NAME``, or ``/tmp/chronopype_mp-UID/NAME`` without
that variable. The coordinator locks it (flock(2)) for as long as it lives. The kernel releases the
lock when the process ends, however it ends, so an unlocked directory belongs to a dead coordinator,
whatever process has its pid by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import urllib.parse
import weakref
from pathlib import Path
from typing import NamedTuple

from chronopype_mp.exceptions import FleetRunningError, TransportError
from chronopype_mp.timing import sleep

__all__ = ["FleetDirectory", "KnownFleet", "known_fleets"]

SOCKET = "control"
PID = "pid"

LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path in Linux, without the final NUL."""

LOCK_ATTEMPTS = 200
LOCK_PAUSE = 0.01
"""Seconds between two attempts: `known_fleets` holds a lock for some microseconds."""

OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_held: weakref.WeakSet[FleetDirectory] = weakref.WeakSet()


class KnownFleet(NamedTuple):
    """A fleet that runs on this machine, or ran and left its directory behind.

    Attributes:
        name: the fleet's name.
        pid: of its coordinator; None if that is unknown.
        is_alive: whether the coordinator lives.
        path: of its directory.
    """

    name: str
    pid: int | None
    is_alive: bool
    path: Path

    @property
    def socket(self) -> Path:
        """The path of its control socket."""
        return self.path / SOCKET


class FleetDirectory:
    """The directory of a fleet that this process runs, locked until `close`.

    A socket that a dead coordinator left behind is removed.

    Args:
        name: the fleet's name.

    Attributes:
        path: of the directory.
        was_stale: whether a dead coordinator's socket was there.

    Raises:
        FleetRunningError: a fleet of this name runs.
        TransportError: the directory cannot be made, belongs to another user, or has too long a
            path for a socket.
    """

    def __init__(self, name: str) -> None:
        self.path = _checked_path(_roots()[0], name)
        self._fd: int | None = None
        self._owner = os.getpid()
        for known in known_fleets():  # also those below another root
            if known.name == name and known.is_alive:
                raise FleetRunningError(name, known.pid)
        try:
            self._fd = self._locked(name)
            self.was_stale = self.socket.exists()
            self.socket.unlink(missing_ok=True)
            (self.path / PID).write_text(f"{os.getpid()}\n")
        except OSError as error:
            self.let_go()
            raise TransportError(str(self.path), f"cannot be used: {error.strerror}") from error
        _held.add(self)

    @property
    def socket(self) -> Path:
        """The path of the control socket."""
        return self.path / SOCKET

    def _locked(self, name: str) -> int:
        for _ in range(LOCK_ATTEMPTS):
            try:
                _make_private(self.path.parent)
                _make_private(self.path)
                fd = os.open(self.path, OPEN_FLAGS)
            except FileNotFoundError:
                continue  # another process has removed its empty directory just now
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(self.path), os.fstat(fd)):
                    return fd
            os.close(fd)
            sleep(LOCK_PAUSE)
        raise FleetRunningError(name, _pid_in(self.path))

    def close(self) -> None:
        """Remove the socket, give up the lock, and remove the directory if it is empty then."""
        if self._fd is None or self._owner != os.getpid():
            return
        for file in (self.socket, self.path / PID):
            with contextlib.suppress(OSError):
                file.unlink()
        with contextlib.suppress(OSError):  # other files, such as logs, or other fleets
            self.path.rmdir()
            self.path.parent.rmdir()
        self.let_go()

    def let_go(self) -> None:
        """Give up the lock; in a forked process, so that the coordinator alone holds it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _let_go_of_all() -> None:
    for directory in list(_held):
        directory.let_go()
    _held.clear()


os.register_at_fork(after_in_child=_let_go_of_all)


def known_fleets() -> list[KnownFleet]:
    """Return the fleets of this user, sorted by name, with those of dead coordinators."""
    found = []
    for root in _roots():
        with contextlib.suppress(OSError), os.scandir(root) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    known = _look_at(Path(entry.path))
                    if known is not None:
                        found.append(known)
    return sorted(found)


def _look_at(path: Path) -> KnownFleet | None:
    fd = os.open(path, OPEN_FLAGS)
    try:
        if os.fstat(fd).st_uid != os.getuid():
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            is_alive = False
        except BlockingIOError:
            is_alive = True
        if not is_alive and not any((path / name).exists() for name in (SOCKET, PID)):
            return None  # only logs are left
        return KnownFleet(urllib.parse.unquote(path.name), _pid_in(path), is_alive, path)
    finally:
        os.close(fd)


def _roots() -> list[Path]:
    """Return where fleets may be; new ones are made in the first."""
    roots = [Path(f"/tmp/chronopype_mp-{os.getuid()}")]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        roots.insert(0, Path(runtime, "chronopype_mp"))
    return roots


def _file_name(name: str) -> str:
    return urllib.parse.quote(name, safe=" ").replace(".", "%2E")


def _checked_path(root: Path, name: str) -> Path:
    path = root / _file_name(name)
    size = len(os.fsencode(path / SOCKET))
    if size > LONGEST_SOCKET:
        raise TransportError(
            f"ipc://{path / SOCKET}",
            f"the path has {size} bytes, but a Unix socket allows only {LONGEST_SOCKET}; shorten "
            "the fleet's name, or set XDG_RUNTIME_DIR to a directory with a shorter path",
        )
    return path


def _make_private(path: Path) -> None:
    """Make a directory that only this user can enter, if it is not there.

    Raises:
        TransportError: what is there is no directory, or belongs to somebody else.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise TransportError(str(path), "is not a directory; remove it")
    if found.st_uid != os.getuid():
        problem = f"belongs to user {found.st_uid}, not to this one; set XDG_RUNTIME_DIR"
        raise TransportError(str(path), problem)
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)


def _pid_in(path: Path) -> int | None:
    try:
        return int((path / PID).read_text())
    except (OSError, ValueError):
        return None
