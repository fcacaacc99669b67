"""A WebSocket: a stream of messages; silence is a loss."""

from __future__ import annotations

import websockets

from chronopype_mp import NetworkStatus, PermanentFailure
from tests.system.feeds.base import PATIENCE, USER, Feed


class WebSocket(Feed):
    expected_errors = (OSError, TimeoutError, websockets.WebSocketException)
    stale_after = PATIENCE
    socket: websockets.ClientConnection | None = None

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.NOT_CONNECTED if self.socket is None else NetworkStatus.CONNECTED

    async def start_network(self) -> None:
        url = f"ws://{USER}:{self.password}@127.0.0.1:{self.port}"
        try:
            self.socket = await websockets.connect(
                url, open_timeout=PATIENCE, close_timeout=PATIENCE / 2, proxy=None
            )
        except websockets.InvalidStatus as error:
            if error.response.status_code == 401:
                raise PermanentFailure(str(error)) from error
            raise

    async def run_network(self) -> None:
        assert self.socket is not None
        async for _ in self.socket:
            self.heard()

    async def stop_network(self) -> None:
        socket, self.socket = self.socket, None
        if socket is not None:
            await socket.close()
