"""The demo's servers: the API of ``examples/servers.py`` and the exchange, each in processes."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chronopype_mp.console.demo_course import DemoError, Feed

__all__ = ["DemoServers", "find_examples"]

NEEDED = ("aiohttp", "websockets")
"""The packages of the extra ``demo``."""


def find_examples() -> None:
    """Make the examples importable by name, here and in the workers, which inherit the path.

    Raises:
        DemoError: a package or the command ``openssl`` is missing, or the examples are.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"needs {' and '.join(missing)}; install with: pip install 'chronopype-mp[demo]'"
        )
    if shutil.which("openssl") is None:
        raise DemoError("needs the command openssl; install it, e.g. with: apt install openssl")
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
    """The API and the exchange, as an async context manager. Leaving it stops them.

    Attributes:
        http: the address of the API.
        feeds: the feeds of the exchange.
    """

    def __init__(self) -> None:
        self.http = ""
        self.feeds: tuple[Feed, ...] = ()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the servers, and return when they listen.

        Raises:
            DemoError: a server did not start.
        """
        processes: Any = importlib.import_module("server_process")
        async with contextlib.AsyncExitStack() as stack:
            try:
                api = await processes.ServerProcess.start()
                stack.push_async_callback(api.close)
                feeds = await stack.enter_async_context(processes.run_exchange())
            except (OSError, RuntimeError) as error:
                raise DemoError(f"cannot start the servers: {error}", status=1) from error
            self.http = api.http
            self.feeds = tuple(_feed(name, feed) for name, feed in feeds.items())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the servers."""
        await self._stack.aclose()


def _feed(name: str, address: Any) -> Feed:
    """Return a feed from its ``FeedAddress`` in ``examples/server_process.py``."""
    is_calm = address.trouble.name == "NONE"
    return Feed(
        name=name,
        trouble=None if is_calm else address.trouble.value,
        options={"url": address.url, "key": address.key, "ca": address.ca},
    )
