"""What keeps aiohttp from repeating requests by itself."""

from __future__ import annotations

from typing import Any

__all__ = ["once"]


def once(aiohttp: Any) -> Any:
    """Return a middleware under which a request that was not answered is not sent again.

    Args:
        aiohttp: the library, imported in the worker.
    """

    async def middleware(request: Any, send: Any) -> Any:
        try:
            return await send(request)
        except aiohttp.ClientConnectorError:
            raise  # is not repeated
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise aiohttp.ClientConnectionError(str(error)) from None

    return middleware
