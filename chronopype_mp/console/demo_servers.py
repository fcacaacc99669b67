"""The demo's servers: two instances of ``examples/servers.py``, each in its own process."""

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
"""The packages of the extra ``demo``."""


class Server(Protocol):
    """The interface of ``ServerProcess`` in ``examples/servers.py``."""

    http: str
    ws: str

    async def kill(self) -> None:
        """Kill the server, and return when it has ended."""
        ...

    async def close(self) -> None:
        """Stop the server gracefully."""
        ...


def find_examples() -> None:
    """Make the examples importable by name, here and in the workers, which inherit the path.

    Raises:
        DemoError: a package is missing, or the examples are.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"needs {' and '.join(missing)}; install with: pip install 'chronopype-mp[demo]'"
        )
    sys.path.insert(0, str(examples_directory(Path(__file__).resolve().parent.parent)))


def examples_directory(package: Path) -> Path:
    """Find the examples inside an installed package, or next to it in a checkout.

    Args:
        package: the directory of ``chronopype_mp``.

    Raises:
        DemoError: they are in neither place.
    """
    for directory in (package / "examples", package.parent / "examples"):
        if (directory / "servers.py").is_file():
            return directory
    raise DemoError(f"no examples found in {package} or next to it", status=1)


class DemoServers:
    """Both servers: the main one, and a second one that is killed and restarted on its port.

    This is an async context manager. Leaving it stops the running servers.
    """

    def __init__(self) -> None:
        self._module: Any = importlib.import_module("servers")
        self._running: list[Server] = []

    async def __aenter__(self) -> Self:
        """Start both servers, and return when they listen.

        Raises:
            DemoError: a server did not start.
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
        """Stop both servers."""
        await self._end()

    async def kill_second(self) -> None:
        """Kill the second server with SIGKILL."""
        await self.second.kill()

    async def revive_second(self) -> None:
        """Start a new second server on the port of the old one.

        Raises:
            DemoError: the server did not start.
        """
        port = int(self.second.ws.rpartition(":")[2])
        self._running.remove(self.second)
        self.second = await self._start(port)

    async def _start(self, ws_port: int = 0) -> Server:
        try:
            server: Server = await self._module.ServerProcess.start(ws_port=ws_port)
        except (OSError, RuntimeError) as error:
            raise DemoError(f"cannot start the servers: {error}", status=1) from error
        self._running.append(server)
        return server

    async def _end(self) -> None:
        while self._running:
            await self._running.pop().close()
