"""Requests a URL at an interval, and checks the answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from chronopype_mp import ConfigError, NetworkStatus
from workers._aiohttp import once
from workers._base import (
    Options,
    ReadyMade,
    Secret,
    Url,
    check_options,
    positive,
    required,
    url_with,
)
from workers._http_status import failure_of
from workers._payloads import Form, NotDecodedError, at_path, decoded
from workers._tls import Tls

if TYPE_CHECKING:
    import aiohttp

__all__ = ["HttpOptions", "HttpProcessor"]

SUCCESS = range(200, 300)

CHUNK = 65536
"""Bytes to read at once."""


class HttpOptions(Options, frozen=True, kw_only=True):
    """What to request, and what is expected.

    Args:
        url: ``http://`` or ``https://``; a user and password in it are basic authentication.
        method: of the request.
        headers: of the request.
        body: of the request.
        follow_redirects: False: a redirect is an answer like others. True: the headers are sent to
            wherever the server redirects.
        expect_status: statuses that are well; none means 200 to 299.
        expect_body: a regular expression of which the body must have a match.
        expect_json: values by their paths in the JSON of the body, such as
            ``{"data.0.state" = "open"}``.
        max_bytes: a body that is longer is a failure.
        keep_alive: False makes a connection for every request.
        tls: for ``https://``.
        topic: what bodies are emitted with; None emits none.
        payload: as what bodies are emitted.
        json_path: the part of the JSON that is emitted; needs ``payload="json"``.
    """

    url: Url
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: dict[str, Secret] = msgspec.field(default_factory=dict)
    body: Secret = Secret()
    follow_redirects: bool = False
    expect_status: tuple[int, ...] = ()
    expect_body: str = ""
    expect_json: dict[str, Any] = msgspec.field(default_factory=dict)
    max_bytes: int = 1_000_000
    keep_alive: bool = True
    tls: Tls = Tls()
    topic: str | None = None
    payload: Form = "text"
    json_path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            url=url_with("http", "https"),
            max_bytes=positive,
            expect_body=_pattern,
            expect_status=_statuses,
        )
        if self.json_path and self.payload != "json":
            raise ConfigError("HttpOptions", "json_path", self.json_path, 'needs payload = "json"')


def _pattern(text: str) -> str | None:
    try:
        re.compile(text)
    except re.error as error:
        return f"is no regular expression: {error}"
    return None


def _statuses(values: tuple[int, ...]) -> str | None:
    return None if all(100 <= each <= 599 for each in values) else "must be from 100 to 599"


class HttpProcessor(ReadyMade):
    """Every check is one request. The connection is well while the answers are as expected.

    Args:
        options: what to request.
    """

    options: HttpOptions
    _session: aiohttp.ClientSession | None = None

    def __init__(self, options: HttpOptions) -> None:
        super().__init__(options)

    async def start_network(self) -> None:
        aiohttp: Any = required("aiohttp", "http")
        options = self.options
        is_tls = options.url.reveal().startswith("https:")
        self._error = aiohttp.ClientError
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=1,
                ssl=options.tls.context() if is_tls else True,
                force_close=not options.keep_alive,
            ),
            timeout=aiohttp.ClientTimeout(total=None),  # `answering` limits all of it
            headers={name: value.reveal() for name, value in options.headers.items()},
            middlewares=(once(aiohttp),),
        )

    async def check_network(self) -> NetworkStatus:
        if self._session is None:
            return NetworkStatus.NOT_CONNECTED
        async with self.answering(self._error):
            body, encoding = await self._request(self._session)
        self._check(body, encoding)
        options = self.options
        payload = decoded(body, options.payload, encoding)
        self.received(at_path(payload, options.json_path), len(body), options.topic)
        return NetworkStatus.CONNECTED

    async def stop_network(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(self, session: aiohttp.ClientSession) -> tuple[bytes, str]:
        """Return the body of the answer and its encoding.

        Raises:
            Exception: the status is not an expected one.
        """
        options = self.options
        async with session.request(
            options.method,
            options.url.reveal(),
            data=options.body.reveal().encode() or None,
            allow_redirects=options.follow_redirects,
        ) as response:
            if response.status not in (options.expect_status or SUCCESS):
                wanted = " or ".join(map(str, options.expect_status)) or "2xx"
                raise failure_of(response.status, response.headers, wanted)
            body = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK):
                body += chunk
                if len(body) > options.max_bytes:
                    raise ConnectionError(f"the body has more than {options.max_bytes} bytes")
            return bytes(body), response.charset or "utf-8"

    def _check(self, body: bytes, encoding: str) -> None:
        """Compare the body with what is expected.

        Raises:
            NotDecodedError: it differs. The reason has the expected value, and not the body.
        """
        options = self.options
        if options.expect_body:
            text = decoded(body, "text", encoding)
            if not re.search(options.expect_body, text):
                raise NotDecodedError(f"the body has no match of {options.expect_body!r}")
        if options.expect_json:
            value = decoded(body, "json")
            for path, expected in options.expect_json.items():
                if (found := at_path(value, path)) != expected:
                    raise NotDecodedError(f"{path} is {str(found)[:100]!r}, not {expected!r}")
