"""What the processors of databases and brokers share: where the server is, and the login."""

from __future__ import annotations

import urllib.parse

from chronopype_mp import ConfigError
from workers._base import Options, Secret, Url
from workers._payloads import Form
from workers._tls import Tls

__all__ = ["ServerOptions"]


class ServerOptions(Options, frozen=True, kw_only=True):
    """Where the server is, who connects, and what is emitted.

    Args:
        url: of the server. A user and password in it are percent-encoded.
        user: instead of the one in the URL.
        password: instead of the one in the URL; it is not percent-encoded.
        tls: how the server is verified.
        topic: what messages are emitted with; None emits none.
        payload: as what messages are emitted.

    Raises:
        ConfigError: a value is out of range, or the login is in the URL and outside of it.
    """

    url: Url
    user: str = ""
    password: Secret = Secret()
    tls: Tls = Tls()
    topic: str | None = None
    payload: Form = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("user", "password"):
            value = getattr(self, name)
            if value and "@" in urllib.parse.urlsplit(self.url.reveal()).netloc:
                kind = type(self).__name__
                raise ConfigError(kind, name, value, "the URL has a login, too; remove one of them")

    def login(self) -> tuple[str | None, str | None]:
        """Return user and password; None is one that is not given."""
        split = urllib.parse.urlsplit(self.url.reveal())
        user = self.user or urllib.parse.unquote(split.username or "")
        password = self.password.reveal() or urllib.parse.unquote(split.password or "")
        return user or None, password or None

    def address(self, default_port: int) -> tuple[str, int]:
        """Return the host, and the port of the URL or the default one."""
        split = urllib.parse.urlsplit(self.url.reveal())
        return split.hostname or "", split.port or default_port

    def path(self) -> str:
        """Return the path of the URL without its first slash, decoded."""
        return urllib.parse.unquote(urllib.parse.urlsplit(self.url.reveal()).path[1:])

    def scheme(self) -> str:
        """Return the scheme of the URL."""
        return urllib.parse.urlsplit(self.url.reveal()).scheme
