"""HTTP: a response that does not end. The client's own timeout ends silence."""

from __future__ import annotations

import aiohttp

from chronopype_mp import NetworkStatus, PermanentFailure
from tests.system.feeds.base import PATIENCE, Feed


class Http(Feed):
    expected_errors = (OSError, TimeoutError, aiohttp.ClientError)
    session: aiohttp.ClientSession | None = None
    response: aiohttp.ClientResponse | None = None

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.NOT_CONNECTED if self.response is None else NetworkStatus.CONNECTED

    async def start_network(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=PATIENCE)
        self.session = aiohttp.ClientSession(timeout=timeout)
        headers = {"Authorization": f"Bearer {self.password}"}
        response = await self.session.get(f"http://127.0.0.1:{self.port}/", headers=headers)
        if response.status == 401:
            raise PermanentFailure(f"{response.status} {response.reason}")
        response.raise_for_status()
        self.response = response

    async def run_network(self) -> None:
        assert self.response is not None
        async for _ in self.response.content:
            pass

    async def stop_network(self) -> None:
        session, self.session, self.response = self.session, None, None
        if session is not None:
            await session.close()
