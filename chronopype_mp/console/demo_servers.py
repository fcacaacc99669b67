"""The demo's servers: ``examples/servers.py``, twice, each in a process of its own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from chronopype_mp.console.demo_course import DemoError

__all__ = ["DemoServers", "Server", "find_examples"]

NEEDED = ("aiohttp", "websockets")
"""What the extra ``demo`` installs."""


class Server(Protocol):
    """``ServerProcess`` in ``examples/servers.py``, which says more."""

    http: str
    ws: str

    async def kill(self) -> None:
        """Kill it, and return when it is gone."""
        ...

    async def close(self) -> None:
        """Let it end in order."""
        ...


def find_examples() -> None:
    """Make the examples importable by name, here and in the workers, whose path is this one's.

    Raises:
        DemoError: what they need is not installed, or they are not there.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"needs {' and '.join(missing)}; install what is missing with: "
            "pip install 'chronopype-mp[demo]'"
        )
    sys.path.insert(0, str(examples_directory(Path(__file__).resolve().parent.parent)))


def examples_directory(package: Path) -> Path:
    """Return where the examples are: in an installed package, or beside it in a checkout.

    Args:
        package: the directory of ``chronopype_mp``.

    Raises:
        DemoError: in neither place.
    """
    for directory in (package / "examples", package.parent / "examples"):
        if (directory / "servers.py").is_file():
            return directory
    raise DemoError(f"the examples are neither in {package} nor beside it", status=1)


class DemoServers:
    """Both servers: the main one, and a second that goes away and comes back on its port.

    An async context manager; leaving it ends what runs of them.
    """

    def __init__(self) -> None:
        self._module: Any = importlib.import_module("servers")
        self._running: list[Server] = []

    async def __aenter__(self) -> Self:
        """Start both, and return when they listen.

        Raises:
            DemoError: one did not come up.
        """
        try:
            self.main = await self._start()
            self.second = await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End both."""
        await self._end()

    async def kill_second(self) -> None:
        """Kill the second server with SIGKILL."""
        await self.second.kill()

    async def revive_second(self) -> None:
        """Start a new second server on the port of the old one.

        Raises:
            DemoError: it did not come up.
        """
        port = int(self.second.ws.rpartition(":")[2])
        self._running.remove(self.second)
        self.second = await self._start(port)

    async def _start(self, ws_port: int = 0) -> Server:
        try:
            server: Server = await self._module.ServerProcess.start(ws_port=ws_port)
        except (OSError, RuntimeError) as error:
            raise DemoError(f"cannot start its servers: {error}", status=1) from error
        self._running.append(server)
        return server

    async def _end(self) -> None:
        while self._running:
            await self._running.pop().close()
