"""A worker in the coordinator's own process and event loop, for tests, notebooks and debuggers."""

from __future__ import annotations

import os
from collections.abc import Callable

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Link
from chronopype_mp.worker.host import WorkerHost
from chronopype_mp.worker.payload import load

__all__ = ["work"]


async def work(
    boot: WorkerBoot,
    link: Link,
    original: TickProcessor | None,
    keep_exception: Callable[[int, BaseException], None],
) -> int:
    """Run a worker to its end in the running loop.

    Args:
        boot: what the worker is told.
        link: its end of the in-memory transport; closed at the end.
        original: the very object to host, or None to load the payload.
        keep_exception: as in `WorkerHost`.

    Returns:
        The exit status.
    """
    unused = [] if original is None else [original]

    def make() -> TickProcessor:
        if unused:
            unused[0]._is_hosted_in_place = True
            return unused.pop()
        if original is not None:  # it could not be restored
            original._is_hosted_in_place = False
        return load(boot.payload, in_owner=True)

    host = WorkerHost(boot, link, os.getpid(), make, keep_exception)
    try:
        return await host.run()
    finally:
        link.close(0)
