"""Subscribes to topics of an MQTT broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from chronopype_mp import NetworkStatus, PermanentFailure
from workers._base import ReadyMade, check_options, required, url_with
from workers._server import ServerOptions

if TYPE_CHECKING:
    import aiomqtt

__all__ = ["MqttOptions", "MqttProcessor"]

PORTS = {"mqtt": 1883, "mqtts": 8883}

QUEUED = 10_000
"""Messages that wait while outputs are full. More are dropped, which is logged."""

REFUSED = ("Bad user name or password", "Not authorized")
"""Reasons for which a broker refuses a connection."""

SUBSCRIPTION_REFUSED = 128
"""The least reason code of a subscription that says no."""

CHECKED = "chronopype-mp/check"
"""The topic that a check unsubscribes from: a question that every broker answers."""


class MqttOptions(ServerOptions, frozen=True, kw_only=True):
    """What is received from which broker.

    Args:
        url: ``mqtt://`` or ``mqtts://``.
        subscribe: topics, also with wildcards, such as ``"sensors/+/temperature"``.
        qos: the quality of service of the subscriptions.
        client_id: by default, a random one.
    """

    subscribe: tuple[str, ...] = ()
    qos: Literal[0, 1, 2] = 0
    client_id: str | None = None

    def __post_init__(self) -> None:
        check_options(self, url=url_with("mqtt", "mqtts"))
        super().__post_init__()


class MqttProcessor(ReadyMade):
    """Keeps one connection. A check is a question that the broker has to answer.

    Args:
        options: what is received.
    """

    options: MqttOptions
    _client: aiomqtt.Client | None = None

    def __init__(self, options: MqttOptions) -> None:
        super().__init__(options)

    async def start_network(self) -> None:
        library: Any = required("aiomqtt", "mqtt")
        options = self.options
        host, port = options.address(PORTS[options.scheme()])
        user, password = options.login()
        self._error = library.MqttError
        self._client = library.Client(
            host,
            port,
            username=user,
            password=password,
            identifier=options.client_id,
            timeout=options.timeout,
            max_queued_incoming_messages=QUEUED,
            tls_context=options.tls.context() if options.scheme() == "mqtts" else None,
        )
        # Without `answering`: the client connects in a thread, which must not be left behind.
        with self.expecting(library.MqttError):
            try:
                await self._client.__aenter__()
            except library.MqttCodeError as error:
                if str(error.rc) in REFUSED:
                    raise PermanentFailure(self.shown(error)) from None
                raise
        for topic in options.subscribe:
            await self._subscribe(self._client, topic)

    async def check_network(self) -> NetworkStatus:
        if self._client is None:
            return NetworkStatus.NOT_CONNECTED
        async with self.answering(self._error):
            await self._client.unsubscribe(CHECKED, timeout=float("inf"))
        return NetworkStatus.CONNECTED

    async def run_network(self) -> None:
        assert self._client is not None
        options = self.options
        with self.expecting(self._error):
            async for message in self._client.messages:
                data = message.payload
                assert isinstance(data, bytes)
                self.received_bytes(data, options.payload, options.topic)
                await self.drain_outputs()

    async def stop_network(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with self.expecting(self._error):
                await client.__aexit__(None, None, None)

    async def _subscribe(self, client: aiomqtt.Client, topic: str) -> None:
        async with self.answering(self._error):
            reasons: Any = await client.subscribe(topic, qos=self.options.qos, timeout=float("inf"))
        for reason in reasons:
            if getattr(reason, "value", reason) >= SUBSCRIPTION_REFUSED:
                raise PermanentFailure(
                    f"the broker refuses the subscription of {topic!r}: {reason}"
                )
