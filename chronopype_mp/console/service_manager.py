"""Reports to the service manager: `sd_notify(3)` and `sd_watchdog_enabled(3)` of systemd."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import MutableMapping

from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import monotonic_ns

__all__ = ["ServiceManager"]

logger = GuardedLogger("chronopype_mp.fleet")

PINGS = 2
"""Pings in each interval of the watchdog, as systemd recommends."""


class ServiceManager:
    """Says when the fleet is ready, reloads and stops, and that its event loop turns.

    Without a service manager it does nothing. A report that cannot be sent is logged.

    Args:
        environment: that of the process. The variables of the service manager are removed, so that
            workers do not inherit them.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        self._interval: float | None = None
        if interval and pid in ("", str(os.getpid())):
            if interval.isdecimal() and int(interval) > 0:
                self._interval = int(interval) / 1e6
            else:
                logger.warning("WATCHDOG_USEC=%r is no number above 0 and is ignored", interval)
        self._is_ready = False
        self._is_stopping = False

    def ready(self) -> None:
        """Report that the fleet has started."""
        if not self._is_stopping:
            self._is_ready = True
            self._send("READY=1")

    def reloading(self) -> None:
        """Report that a reload begins; not before `ready`."""
        if self._is_ready and not self._is_stopping:
            self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Report that a reload has ended, well or not."""
        if self._is_ready:
            self.ready()

    def stopping(self) -> None:
        """Report that the fleet stops; once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send("STOPPING=1")

    async def keep_alive(self) -> None:
        """Ping the watchdog from this event loop until cancelled, if it wants pings."""
        while self._interval is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._interval / PINGS)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # "@" stands for the zero byte of an abstract address.
        address = self._address.encode(errors="surrogateescape")
        address = b"\0" + address[1:] if address.startswith(b"@") else address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            logger.warning(
                "the service manager does not get %s at NOTIFY_SOCKET=%r: %s",
                *(lines[0], self._address, error),
            )
