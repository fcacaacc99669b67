"""Mosquitto: a subscription, and a publication that the broker has to acknowledge as the check."""

from __future__ import annotations

import aiomqtt

from chronopype_mp import NetworkStatus, PermanentFailure
from tests.system.feeds.base import PATIENCE, USER, Feed

REFUSED = ("Bad user name or password", "Not authorized")
"""Reasons of a CONNACK."""


class Mosquitto(Feed):
    expected_errors = (OSError, TimeoutError, aiomqtt.MqttError)
    mqtt: aiomqtt.Client | None = None

    async def check_network(self) -> NetworkStatus:
        if self.mqtt is None:
            return NetworkStatus.NOT_CONNECTED
        await self.mqtt.publish("prices", b"1.0", qos=1)
        return NetworkStatus.CONNECTED

    async def start_network(self) -> None:
        mqtt = aiomqtt.Client(
            "127.0.0.1", self.port, username=USER, password=self.password, timeout=PATIENCE
        )
        try:
            await mqtt.__aenter__()
        except aiomqtt.MqttCodeError as error:
            if str(error.rc) in REFUSED:
                raise PermanentFailure(str(error)) from error
            raise
        self.mqtt = mqtt
        await mqtt.subscribe("prices", qos=1)

    async def run_network(self) -> None:
        assert self.mqtt is not None
        async for _ in self.mqtt.messages:
            pass

    async def stop_network(self) -> None:
        mqtt, self.mqtt = self.mqtt, None
        if mqtt is not None:
            await mqtt.__aexit__(None, None, None)
