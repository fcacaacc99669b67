"""Snapshots as files: one for each worker, so that they outlive the program.

They are read when a worker is added to a clock that is entered, or when its clock is entered. A
thread writes them: a slow disk delays neither the owner's event loop nor a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import zlib
from collections.abc import Callable

import msgspec

from chronopype_mp.coordinator.state_dir import folder_of, names_in, write_whole
from chronopype_mp.core.saved_state import MAX_STATE, SavedState
from chronopype_mp.exceptions import SnapshotError
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.launchers.serial_thread import SerialThread

__all__ = ["StateFiles"]

NAME = "snapshot.msgpack"

ASIDE = "snapshot.broken"

OVERHEAD = 4096
"""Bytes that a file may have besides the state."""

LAST_WRITES = 5.0
"""Seconds that the last snapshots have to be written when the clock is left."""

logger = GuardedLogger("chronopype_mp.coordinator")


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a file; the sum is of ``state.data``."""

    format: int = 1
    worker: str
    state: SavedState
    crc32: int


_decoder = msgspec.msgpack.Decoder(_File)


class StateFiles:
    """Keeps the newest snapshot of each worker in ``<directory>/<worker>/snapshot.msgpack``.

    Args:
        directory: an existing directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._thread = SerialThread("chronopype_mp snapshots")
        self._waiting: dict[str, SavedState] = {}
        self._failing: set[str] = set()

    def load(self, worker: str) -> SavedState | None:
        """Return a worker's snapshot; None if there is none.

        Raises:
            SnapshotError: the file cannot be read, or is broken and was moved aside.
        """
        path = self._path(worker)
        try:
            names_in(os.path.dirname(path))
            with open(path, "rb") as file:
                content = file.read(MAX_STATE + OVERHEAD)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = f"its snapshot {path} cannot be read: {error}"
            raise SnapshotError(worker, f"{problem}; it starts without it") from error
        try:
            found = _decoder.decode(content)
        except Exception as error:
            raise self._broken(worker, path, str(error)) from error
        if found.format != 1 or found.worker != worker:
            raise self._broken(worker, path, f"it is that of {found.worker!r}")
        if found.crc32 != zlib.crc32(found.state.data):
            raise self._broken(worker, path, "its checksum is wrong")
        return found.state

    def save(self, worker: str, state: SavedState) -> None:
        """Write a snapshot soon; one that still waits is replaced."""
        is_new = worker not in self._waiting
        self._waiting[worker] = state
        if is_new:
            self._submit(worker, self._write)

    def set_aside(self, worker: str) -> None:
        """Rename a worker's file to ``snapshot.broken``: the worker cannot use what is in it."""
        self._waiting.pop(worker, None)
        self._submit(worker, self._move)

    async def close(self) -> None:
        """Wait until everything is written, or give up after `LAST_WRITES`."""
        if not self._thread.is_open:
            return
        try:
            last = asyncio.wrap_future(self._thread.submit(lambda: None))
            done, _ = await asyncio.wait({last}, timeout=LAST_WRITES)
            if not done:
                logger.error("snapshots are still not written to %s; left", self._directory)
        finally:
            self._thread.close(0.5)

    def _path(self, worker: str, name: str = NAME) -> str:
        return os.path.join(folder_of(self._directory, worker), name)

    def _submit(self, worker: str, job: Callable[[str], None]) -> None:
        try:
            self._thread.submit(self._report, worker, job)
        except RuntimeError as error:  # the system has no more threads
            self._waiting.pop(worker, None)
            self._failed(worker, error)

    # In the thread

    def _report(self, worker: str, job: Callable[[str], None]) -> None:
        """Do a job. Say once that it fails, and once that it works again."""
        try:
            job(worker)
        except Exception as error:
            self._failed(worker, error)
        else:
            if worker in self._failing:
                self._failing.discard(worker)
                logger.warning("the snapshot of worker %r is written again", worker)

    def _failed(self, worker: str, error: Exception) -> None:
        if worker not in self._failing:
            self._failing.add(worker)
            logger.error(
                "the snapshot of worker %r cannot be written to %s: %s; the worker goes on, its "
                "next snapshot is tried again; this is said once",
                *(worker, self._path(worker), error),
            )

    def _write(self, worker: str) -> None:
        state = self._waiting.pop(worker, None)
        if state is None:
            return
        path = self._path(worker)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = _File(worker=worker, state=state, crc32=zlib.crc32(state.data))
        write_whole(path, msgspec.msgpack.encode(content), sync=True)

    def _move(self, worker: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._path(worker), self._path(worker, ASIDE))

    def _broken(self, worker: str, path: str, why: str) -> SnapshotError:
        """Move a broken file aside; return the error that says so."""
        try:
            self._move(worker)
            where = f"it was renamed to {ASIDE}"
        except OSError as error:
            where = f"it cannot be renamed: {error}"
        problem = f"its snapshot {path} is broken: {why}; {where}, and the worker starts without it"
        return SnapshotError(worker, problem)
