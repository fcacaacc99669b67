"""The ready-made processor ``mqtt``, with a broker in its own process."""

from __future__ import annotations

from typing import Any

import pytest

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from tests.system.backends import KINDS, PASSWORD, USER, Data, listening
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers._base import Secret, Url
from workers.mqtt import MqttOptions, MqttProcessor

aiomqtt = pytest.importorskip("aiomqtt")

KIND = KINDS["mosquitto"]._replace(
    feed="workers.mqtt:MqttProcessor",
    silent="check_network: TimeoutError: no answer within 1 s",
    lost="MqttError: ",
)


def options(port: int, password: str, **given: Any) -> MqttOptions:
    return MqttOptions(
        url=Url(f"mqtt://127.0.0.1:{port}"),
        user=USER,
        password=Secret(password),
        **{**QUICK, **given},
    )


def test_mqtt_survives_what_may_happen_to_its_broker(ordeal: Ordeal) -> None:
    ordeal(KIND, lambda port, password: options(port, password, subscribe=("prices/#",)))


def test_messages_are_received(data: Data) -> None:
    """Another client with the same identifier takes the connection away."""

    async def scenario(port: int) -> None:
        login: Any = {"hostname": "127.0.0.1", "port": port, "username": USER, "password": PASSWORD}
        given: Any = {"subscribe": ("a", "b/+"), "qos": 1, "payload": "json", "client_id": "c"}
        processor = MqttProcessor(options(port, PASSWORD, **given))
        async with ProcessorTest(processor) as test, aiomqtt.Client(**login) as other:
            await test.reaches(NetworkStatus.CONNECTED)
            for topic, message in {"a": "1", "b/c": "[2]", "b": "unseen", "b/d": "{"}.items():
                await other.publish(topic, message, qos=1)
            await test.until(lambda: (processor.payloads, processor.rejected) == (2, 1))
            async with aiomqtt.Client(**login, identifier="c"):
                await test.until(lambda: test.transitions[-1] == NetworkStatus.NOT_CONNECTED)
            await test.reaches(NetworkStatus.CONNECTED, within=1.0)

    with listening(KIND, data) as server:
        run(scenario(server.port))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": Url("tcp://x")}, "url = tcp://x: must begin with mqtt:// or mqtts:// and a host"),
        ({"url": Url("mqtt://a:b@x"), "password": Secret("c")}, "the URL has a login, too"),
        ({"backoff": None, "timeout": 0}, "timeout = 0: must be"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MqttOptions(**{"url": Url("mqtt://x"), **given})
    assert problem in str(caught.value)
