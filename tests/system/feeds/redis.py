"""Redis: a subscription, pinged in the same connection; silence is a loss."""

from __future__ import annotations

from redis import asyncio as client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from chronopype_mp import NetworkStatus, PermanentFailure
from tests.system.feeds.base import PATIENCE, Feed


class Redis(Feed):
    expected_errors = (OSError, TimeoutError, client.ConnectionError, client.TimeoutError)
    stale_after = PATIENCE
    redis: client.Redis | None = None

    async def check_network(self) -> NetworkStatus:
        if self.redis is None:
            return NetworkStatus.NOT_CONNECTED
        await self.subscription.ping()  # the body reads the answer
        return NetworkStatus.CONNECTED

    async def start_network(self) -> None:
        self.redis = client.Redis(
            port=self.port,
            password=self.password,
            socket_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0, supported_errors=()),  # else it reconnects by itself
        )
        self.subscription = self.redis.pubsub()
        try:
            await self.subscription.subscribe("prices")
        except client.AuthenticationError as error:
            raise PermanentFailure(str(error)) from error

    async def run_network(self) -> None:
        while True:
            await self.subscription.get_message(timeout=None)
            self.heard()

    async def stop_network(self) -> None:
        redis, self.redis = self.redis, None
        if redis is not None:
            await self.subscription.aclose()
            await redis.aclose()
