"""Directories for sockets and other temporary files, which do not outlive their owner for long.

The owner holds a lock on its directory (flock(2)). The kernel releases the lock when the owner
ends, however it ends, so a directory that can be locked has no owner any more. Unlike a process id,
a lock means the same in every container that shares the directory. systemd-tmpfiles leaves locked
directories alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
import weakref

__all__ = ["DIRECTORY_PREFIX", "PrivateDirectory", "sweep"]

DIRECTORY_PREFIX = "chronopype_mp-"

DIRECTORY_SUFFIX = ".d"
"""Tells them from directories that somebody else has named after the package."""

OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_open: weakref.WeakSet[PrivateDirectory] = weakref.WeakSet()


class PrivateDirectory:
    """A new directory that only this user can enter, below the one for temporary files.

    Attributes:
        path: of the directory.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self) -> None:
        _watch_forks()
        self._fd: int | None = None
        self._owner = os.getpid()
        while not self._lock(tempfile.mkdtemp(DIRECTORY_SUFFIX, DIRECTORY_PREFIX)):
            pass  # another process took the directory for one without an owner
        _open.add(self)

    def _lock(self, path: str) -> bool:
        """Lock a directory. Return False if somebody has removed it meanwhile."""
        self.path = path
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, OPEN_FLAGS)
            with contextlib.suppress(OSError):  # a file system without locks is never swept either
                fcntl.flock(fd, fcntl.LOCK_EX)
            old, self._fd = self._fd, fd
            if old is not None:
                os.close(old)
            return self.exists()
        return False

    def exists(self) -> bool:
        """Whether the directory is still the one that this process made."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    def restore(self) -> None:
        """Make the directory again, empty, if it was removed.

        Raises:
            OSError: it cannot be made, or its name has been taken.
        """
        while not self.exists():
            os.mkdir(self.path, 0o700)
            self._lock(self.path)

    def remove(self) -> None:
        """Remove the directory and what it holds. Does nothing in a forked process."""
        if self._owner == os.getpid() and self._fd is not None:
            if self.exists():
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._fd)
            self._fd = None

    def let_go(self) -> None:
        """Give up the lock in a forked process, so that the owner alone holds it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_let_go_of_all)


def _let_go_of_all() -> None:
    """Leave all directories to the process that this one was forked from."""
    for directory in list(_open):
        directory.let_go()
    _open.clear()


def sweep(parent: str | None = None) -> None:
    """Remove this user's directories that have no owner any more.

    Args:
        parent: where to search; None is the directory for temporary files.
    """
    with contextlib.suppress(OSError), os.scandir(parent or tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(DIRECTORY_PREFIX) and entry.name.endswith(DIRECTORY_SUFFIX):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    fd = os.open(path, OPEN_FLAGS)
    try:
        if os.fstat(fd).st_uid == os.getuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
    finally:
        os.close(fd)
