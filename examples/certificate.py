"""A self-signed certificate for servers on loopback, made at run time by the command ``openssl``.

Python's own `ssl` cannot make one. The command is where `pip` and `ssl` work on almost every Linux:
Debian's ca-certificates needs it. A package such as cryptography would be one more dependency.
"""

from __future__ import annotations

import ssl
import subprocess
import tempfile
from pathlib import Path

CERTIFICATE = """
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = fake exchange
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
subjectKeyIdentifier = hash
subjectAltName = IP:127.0.0.1
"""
"""The configuration of ``openssl req``. Clients verify the certificate with itself as authority."""


def make_certificate() -> tuple[ssl.SSLContext, str]:
    """Make a key and a self-signed certificate. No file of them is left.

    Returns:
        The server's side of TLS, and the certificate in PEM, for the clients.

    Raises:
        RuntimeError: there is no ``openssl`` command, or it failed.
    """
    with tempfile.TemporaryDirectory(prefix="exchange-") as directory:
        config, key, certificate = (Path(directory, name) for name in ("config", "key", "pem"))
        config.write_text(CERTIFICATE)
        command = ["openssl", "req", "-x509", "-config", config, "-days", "30", "-nodes"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-keyout", key, "-out", certificate]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            problem = "TLS needs the command openssl; install it, e.g. apt install openssl"
            raise RuntimeError(problem) from None
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"openssl cannot make a certificate: {error.stderr}") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context, certificate.read_text()
