"""The ready-made processor ``amqp``, with RabbitMQ in its own process."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from tests.system.backends import PASSWORD, USER, Data, Kind, listening, program
from tests.system.servers import free_port
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers._base import Secret, Url
from workers.amqp import AmqpOptions, AmqpProcessor

BROKER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""The program itself. The one on the PATH changes the user and the environment."""


def _rabbitmq(directory: Path, port: int) -> list[str]:
    for name, text in {
        "rabbitmq.conf": f"default_user = {USER}\ndefault_pass = {PASSWORD}\n",
        "plugins": "[].\n",
    }.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
    settings = {
        "HOME": directory,
        "RABBITMQ_CONFIG_FILE": directory / "rabbitmq.conf",
        "RABBITMQ_DIST_PORT": free_port(),
        "RABBITMQ_ENABLED_PLUGINS_FILE": directory / "plugins",
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_LOG_BASE": directory,
        "RABBITMQ_MNESIA_BASE": directory / "mnesia",
        "RABBITMQ_NODENAME": "test@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": port,
        "RUNNING_UNDER_SYSTEMD": "true",  # without a shell around it
    }
    return ["env", *(f"{name}={value}" for name, value in settings.items()), BROKER]


KIND = Kind(
    name="rabbitmq",
    feed="workers.amqp:AmqpProcessor",
    client="aio_pika",
    programs=(BROKER, "epmd"),
    command=_rabbitmq,
    lost="Connection",
    silent="check_network: TimeoutError: no answer within 1 s",
    refused="PermanentFailure: ProbableAuthenticationError: ",
    user="rabbitmq",
    ends_on=signal.SIGTERM,
)


@pytest.fixture
def _names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run Erlang's name server, which the broker would leave behind as a daemon."""
    if KIND.missing is not None:
        pytest.skip(f"{KIND.name}: {KIND.missing}")
    monkeypatch.setenv("ERL_EPMD_PORT", str(free_port()))
    with subprocess.Popen([program("epmd"), "-address", "127.0.0.1"]) as process:
        yield
        process.kill()


def options(port: int, password: str, **given: Any) -> AmqpOptions:
    return AmqpOptions(
        url=Url(f"amqp://127.0.0.1:{port}"),
        user=USER,
        password=Secret(password),
        **{**QUICK, **given},
    )


@pytest.mark.usefixtures("_names")
@pytest.mark.timeout(120)  # RabbitMQ takes seconds to start
def test_amqp_survives_what_may_happen_to_its_broker(ordeal: Ordeal) -> None:
    ordeal(KIND, lambda port, password: options(port, password, exchange="amq.topic"))


@pytest.mark.usefixtures("_names")
@pytest.mark.timeout(120)
def test_messages_are_received(data: Data) -> None:
    """From an exchange and from a queue, which keeps what is not acknowledged."""
    aio_pika = pytest.importorskip("aio_pika")

    async def scenario(port: int) -> None:
        connection = await aio_pika.connect(
            host="127.0.0.1", port=port, login=USER, password=PASSWORD
        )
        channel = await connection.channel()

        async def publish(exchange: Any, **bodies: str) -> None:
            for key, body in bodies.items():
                await exchange.publish(aio_pika.Message(body.encode()), routing_key=key)

        topics = await channel.get_exchange("amq.topic")
        given: Any = {"exchange": "amq.topic", "routing_keys": ("a", "b.*"), "payload": "json"}
        processor = AmqpProcessor(options(port, PASSWORD, **given))
        async with ProcessorTest(processor) as test:
            await test.reaches(NetworkStatus.CONNECTED)
            await publish(topics, **{"a": "1", "b.c": "[2]", "b": "unseen", "b.d": "{"})
            await test.until(lambda: (processor.payloads, processor.rejected) == (2, 1))

        processor = AmqpProcessor(options(port, PASSWORD, queue="jobs"))
        async with ProcessorTest(processor) as test:
            await test.until(lambda: NetworkStatus.CONNECTING in test.transitions)
            await test.until(lambda: "no queue 'jobs'" in test.transitions[-1].reason)
            queue = await channel.declare_queue("jobs")
            await publish(channel.default_exchange, jobs="waiting")
            await test.reaches(NetworkStatus.CONNECTED, within=5.0)
            await test.until(lambda: processor.payload_bytes == len("waiting"))
            await queue.delete(if_empty=False, if_unused=False)
            await test.reaches(NetworkStatus.NOT_CONNECTED, within=1.0)
        await connection.close()

    with listening(KIND, data) as server:
        run(scenario(server.port))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"url": Url("http://x")},
            "url = http://x: must begin with amqp:// or amqps:// and a host",
        ),
        ({"queue": "a", "exchange": "b"}, "exchange = 'b': cannot be given with a queue"),
        ({"prefetch": 0}, "prefetch = 0: must be"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AmqpOptions(**{"url": Url("amqp://x"), **given})
    assert problem in str(caught.value)
