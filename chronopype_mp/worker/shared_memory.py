"""Leaves shared memory that a worker attached to with its owner.

Until Python 3.13, and by default ever since, whoever attaches to shared memory has it removed when
its process ends: its resource tracker does that, as if the process had created it. Here the
trackers of `multiprocessing` and `multiprocess` only hear of what this process has created.
"""

from __future__ import annotations

import _posixshmem  # type: ignore[import-not-found]
import multiprocessing.resource_tracker
import os
from typing import Any

import multiprocess.resource_tracker

__all__ = ["remove_own_shared_memory", "track_only_own_shared_memory"]


def track_only_own_shared_memory() -> None:
    """Keep shared memory that others have created from this process's resource trackers."""
    created: set[str] = set()
    shm_open = _posixshmem.shm_open

    def note_created(path: str, flags: int, mode: int = 0o777) -> int:
        fd: int = shm_open(path, flags, mode=mode)
        if flags & os.O_CREAT:
            created.add(path)
        return fd

    _posixshmem.shm_open = note_created
    _filter(multiprocessing.resource_tracker._resource_tracker, {"REGISTER", "UNREGISTER"}, created)
    # This tracker is the coordinator's, which may know of what this process removes.
    _filter(multiprocess.resource_tracker._resource_tracker, {"REGISTER"}, created)


def remove_own_shared_memory() -> None:
    """Let the resource tracker that this process has started finish, if there is one.

    It removes the shared memory that this process has not. Without that, it would be killed at the
    end of the worker like any other of its children.
    """
    tracker = multiprocessing.resource_tracker._resource_tracker
    if tracker._pid is not None:  # type: ignore[attr-defined]
        tracker._stop()  # type: ignore[attr-defined]


def _filter(tracker: Any, commands: set[str], created: set[str]) -> None:
    send = tracker._send

    def send_own(command: str, name: str, kind: str) -> None:
        if kind != "shared_memory" or command not in commands or name in created:
            send(command, name, kind)

    tracker._send = send_own
