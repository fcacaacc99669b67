"""The ready-made processor ``dns``, with dnsmasq."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from tests.system.backends import KINDS, Backend, Data, listening, program
from tests.system.servers import free_port
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers.dns import DnsOptions, DnsProcessor


def dnsmasq(directory: Path, port: int) -> list[str]:
    return [
        program("dnsmasq"),
        *("--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root"),
        *("--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1"),
        *(f"--port={port}", "--local=/test/", "--host-record=a.test,192.0.2.1"),
        *("--host-record=a.test,192.0.2.2", "--cname=b.test,a.test", "--mx-host=c.test,a.test,10"),
    ]


KIND = KINDS["http"]._replace(
    name="dnsmasq",
    feed="workers.dns:DnsProcessor",
    client="dns",
    programs=("dnsmasq",),
    command=dnsmasq,
    lost="ConnectionError: no answer; 127.0.0.1: Timeout: ",
    silent="ConnectionError: no answer; 127.0.0.1: Timeout: ",
    refused="",
    ends_on=signal.SIGTERM,
)


def test_dns_survives_what_may_happen_to_its_server(ordeal: Ordeal) -> None:
    def options(port: int, password: str) -> DnsOptions:
        return DnsOptions(name="a.test", servers=("127.0.0.1",), port=port, topic="a", **QUICK)

    ordeal(KIND, options, topic="a")


@pytest.fixture
def server(data: Data) -> Iterator[Backend]:
    with listening(KIND, data) as backend:
        yield backend


async def outcome(port: int, **given: Any) -> tuple[NetworkStatus, str]:
    """Return the status that a first attempt ends with, and its reason."""
    options = DnsOptions(**{"servers": ("127.0.0.1",), "port": port, **given})
    async with ProcessorTest(DnsProcessor(options)) as test:
        ends = (NetworkStatus.CONNECTED, NetworkStatus.ERROR, NetworkStatus.NOT_CONNECTED)
        await test.until(
            lambda: NetworkStatus.CONNECTING in test.transitions and test.transitions[-1] in ends
        )
        return test.transitions[-1].status, test.transitions[-1].reason


def test_an_answer_is_what_is_expected(server: Backend) -> None:
    """Over UDP and TCP, by a server that comes after one that is silent."""
    well: list[dict[str, Any]] = [
        {"name": "a.test", "expect": ("192.0.2.2", "192.0.2.1")},
        {"name": "b.test", "expect": ("192.0.2.1",), "tcp": True},
        {"name": "c.test", "record": "MX", "expect": ("10 a.test.",)},
        {"name": "a.test", "servers": ("127.0.0.2", "127.0.0.1"), "timeout": 1.0},
    ]
    for given in well:
        assert run(outcome(server.port, **given))[0] is NetworkStatus.CONNECTED, given
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"name": "a.test", "expect": ("192.0.2.3",)}, "without ['192.0.2.3']"),
        ({"name": "a.test", "record": "TXT"}, "a.test has no TXT records"),
        ({"name": "d.test"}, "d.test A: NXDOMAIN"),
    ]
    for given, problem in wrong:
        status, reason = run(outcome(server.port, **given))
        assert status is NetworkStatus.NOT_CONNECTED
        assert problem in reason


def test_a_query_that_cannot_be_made_is_tried_once() -> None:
    pytest.importorskip("dns")
    for given in ({"name": "a..test"}, {"name": "a.test", "record": "NONSENSE"}):
        status, reason = run(outcome(free_port(), **given))
        assert status is NetworkStatus.ERROR
        assert "PermanentFailure: cannot ask for" in reason


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"name": ""}, "name = '': must not be empty"),
        ({"servers": ("ns.test",)}, "'ns.test' must be an IP address"),
        ({"port": 0}, "port = 0: must be from 1 to 65535"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DnsOptions(**{"name": "a.test", **given})
    assert problem in str(caught.value)
