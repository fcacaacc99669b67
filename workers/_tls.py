"""TLS of the ready-made processors."""

from __future__ import annotations

import ssl

import msgspec

from chronopype_mp import ConfigError, PermanentFailure

__all__ = ["Tls"]


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a TLS connection is verified. Files are PEM; relative paths begin at the program's.

    Args:
        verify: False accepts any certificate of the server.
        ca_file: the certificates to trust instead of the system's.
        cert_file: the client's own certificate.
        key_file: its key, if ``cert_file`` does not have it.

    Raises:
        ConfigError: there is a key without a certificate.
    """

    verify: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise ConfigError("Tls", "key_file", self.key_file, "needs cert_file, too")

    def context(self) -> ssl.SSLContext:
        """Return the settings for a client.

        Raises:
            PermanentFailure: a file cannot be read, or is wrong.
        """
        path = self.ca_file
        try:
            context = ssl.create_default_context(cafile=path)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert_file is not None:
                path = self.key_file or self.cert_file
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # an SSLError, too
            raise PermanentFailure(f"the TLS file {path} cannot be used: {error}") from error
        return context
