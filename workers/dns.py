"""Asks DNS servers for records at an interval, and checks the answer."""

from __future__ import annotations

import importlib
import ipaddress
from typing import TYPE_CHECKING, Any

from chronopype_mp import NetworkStatus, PermanentFailure
from workers._base import Options, ReadyMade, check_options, required

if TYPE_CHECKING:
    import dns.message

__all__ = ["DnsOptions", "DnsProcessor"]

MODULES = ("asyncquery", "exception", "message", "name", "rcode", "rdatatype", "resolver")


class DnsOptions(Options, frozen=True, kw_only=True):
    """What to ask, whom, and what is expected.

    Args:
        name: the domain name.
        record: the type of the records, such as ``"A"`` or ``"MX"``.
        servers: addresses of DNS servers, asked in this order until one answers; none means those
            of the system.
        port: of the servers.
        tcp: whether to ask over TCP at once, and not only if the answer is too long for UDP.
        expect: records that the answer must have, as text.
        topic: what the records are emitted with, as a list of texts; None emits none.
    """

    name: str
    record: str = "A"
    servers: tuple[str, ...] = ()
    port: int = 53
    tcp: bool = False
    expect: tuple[str, ...] = ()
    topic: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            name=lambda name: None if name else "must not be empty",
            servers=_addresses,
            port=lambda port: None if 0 < port < 65536 else "must be from 1 to 65535",
        )


def _addresses(servers: tuple[str, ...]) -> str | None:
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            return f"{server!r} must be an IP address"
    return None


class DnsProcessor(ReadyMade):
    """Every check is one query. The connection is well while the answers are as expected.

    Args:
        options: what to ask.
    """

    options: DnsOptions
    _query: dns.message.Message | None = None

    def __init__(self, options: DnsOptions) -> None:
        super().__init__(options)

    async def start_network(self) -> None:
        self._dns: Any = required("dns", "dns")
        for module in MODULES:
            importlib.import_module(f"dns.{module}")
        options = self.options
        try:
            self._query = self._dns.message.make_query(options.name, options.record)
        except (self._dns.exception.DNSException, ValueError) as error:
            raise PermanentFailure(
                f"cannot ask for {options.record} of {options.name!r}: {self.shown(error)}"
            ) from error
        self._servers = options.servers
        if not self._servers:
            with self.expecting(self._dns.exception.DNSException):
                self._servers = tuple(map(str, self._dns.resolver.Resolver().nameservers))

    async def check_network(self) -> NetworkStatus:
        if self._query is None:
            return NetworkStatus.NOT_CONNECTED
        response = await self._response(self._query)
        rcode = response.rcode()
        name, record = self.options.name, self.options.record
        if rcode != self._dns.rcode.NOERROR:
            raise ConnectionError(f"{name} {record}: {self._dns.rcode.to_text(rcode)}")
        with self.expecting(self._dns.exception.DNSException):
            answer = response.resolve_chaining().answer  # follows CNAMEs
        records = sorted(each.to_text() for each in answer or ())
        if not records:
            raise ConnectionError(f"{name} has no {record} records")
        if missing := set(self.options.expect) - set(records):
            raise ConnectionError(f"{name} {record} is {records}, without {sorted(missing)}")
        self.received(records, len(response.to_wire()), self.options.topic)
        return NetworkStatus.CONNECTED

    async def stop_network(self) -> None:
        self._query = None

    async def _response(self, query: dns.message.Message) -> dns.message.QueryMessage:
        """Ask one server after another, each once and within its part of ``timeout``.

        Raises:
            ConnectionError: none has answered.
        """
        ask = self._dns.asyncquery
        errors = (self._dns.exception.DNSException, OSError, EOFError)
        limit = self.options.timeout / len(self._servers)
        failures = []
        for server in self._servers:
            arguments = {"timeout": limit, "port": self.options.port}
            try:
                response: dns.message.QueryMessage
                if self.options.tcp:
                    response = await ask.tcp(query, server, **arguments)
                else:
                    response, _ = await ask.udp_with_fallback(query, server, **arguments)
            except errors as error:
                failures.append(f"{server}: {self.shown(error)}")
            else:
                return response
        raise ConnectionError(f"no answer; {'; '.join(failures)}")
