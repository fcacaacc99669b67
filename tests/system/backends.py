"""Real servers of several kinds, which tests kill, stop and start anew.

Each is a private process on a port of loopback, with its data in a temporary directory. What a kind
needs may be missing: `Kind.missing` says what.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tests.system.feeds.base import USER
from tests.system.scripts import wait_for_ends, wait_until
from tests.system.servers import accepts, free_port

__all__ = ["KINDS", "PASSWORD", "Backend", "Data", "Kind", "listening", "program", "python"]

PASSWORD = "hunter2-right"
"""A text that nothing else has, so that it is found where it must not be."""

BOUND = 30.0
"""Seconds that a server has to end, or to begin to listen; far more than any of them needs."""

PLACES = (
    "/usr/sbin",
    "/usr/local/sbin",
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin"))),
)
"""Where Debian has programs that are not on every user's PATH."""

WEBSOCKET = """
import asyncio, sys
from websockets.asyncio.server import basic_auth, serve

async def feed(connection):
    while True:
        await connection.send("1.0")
        await asyncio.sleep(0.1)

async def main():
    check = basic_auth(credentials=(sys.argv[2], sys.argv[3]))
    async with serve(feed, "127.0.0.1", int(sys.argv[1]), process_request=check):
        await asyncio.Future()

asyncio.run(main())
"""

HTTP = """
import asyncio, sys
from aiohttp import web

async def prices(request):
    if request.headers.get("Authorization") != f"Bearer {sys.argv[3]}":
        raise web.HTTPUnauthorized
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"1.0\\n")
        await asyncio.sleep(0.1)

app = web.Application()
app.router.add_get("/", prices)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, shutdown_timeout=0.1)
"""


class Kind(NamedTuple):
    """A kind of server, and the processor that is its client.

    Attributes:
        name: what to call it.
        feed: the processor's import path.
        client: the module that the processor needs.
        programs: what must be installed.
        command: given the data directory and the port, what to run; writes what that reads.
        prepare: given the data directory, makes what servers started in it share.
        lost: a part of the reason for a loss if the server is killed.
        silent: the same if it is stopped.
        refused: the same if the password is wrong.
        connections: that an attempt costs at most.
        user: whom root runs it as; None: as root.
        ends_on: the signal on which it ends and clears what it has made in the system.
    """

    name: str
    feed: str
    client: str
    programs: tuple[str, ...]
    command: Callable[[Path, int], list[str]]
    lost: str
    silent: str
    refused: str
    prepare: Callable[[Path], None] = lambda directory: None
    connections: int = 1
    user: str | None = None
    ends_on: signal.Signals = signal.SIGINT

    @property
    def missing(self) -> str | None:
        """What is not installed here."""
        for program in self.programs:
            if _which(program) is None:
                return f"the program {program} is not installed"
        if importlib.util.find_spec(self.client) is None:
            return f"the package {self.client} is not installed (extra servers)"
        return None


class Data:
    """The data directories, one for each kind, made when first needed."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="cp-servers-"))
        self._root.chmod(0o711)  # a server of another user gets through

    def of(self, kind: Kind) -> Path:
        directory = self._root / kind.name
        if not directory.exists():
            directory.mkdir(mode=0o700)
            if identity := _identity(kind):
                shutil.chown(directory, identity["user"], identity["group"])
            kind.prepare(directory)
        return directory

    def remove(self) -> None:
        shutil.rmtree(self._root)


class Backend:
    """A server of a kind; it keeps its port when it is started anew."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self._directory = directory
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it may not listen yet."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self.kind.command(self._directory, self.port),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **_identity(self.kind),
            )

    def wait_until_it_listens(self) -> None:
        def there() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"ended:\n{self._log.read_text()}"
            return accepts(self.port)

        wait_until(there, BOUND, lambda: f"does not listen:\n{self._log.read_text()}")

    def kill(self) -> None:
        """Kill it and its processes, and wait for their ends."""
        self._wait(self._signal(signal.SIGKILL))

    def stop(self) -> None:
        """Stop its processes with SIGSTOP: connections stay and are silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Have it end by itself, so that it clears what it has made in the system."""
        if self._process is None or self._process.poll() is not None:
            return
        processes = self._signal(signal.SIGCONT)
        self._process.send_signal(self.kind.ends_on)
        self._wait(processes)

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        """Signal the server and its descendants, which may be in other process groups."""
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        root.send_signal(number)  # first, so that it has no more children
        processes = [root, *root.children(recursive=True)]
        for process in processes[1:]:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        return processes

    def _wait(self, processes: list[psutil.Process]) -> None:
        assert self._process is not None
        try:
            self._process.wait(BOUND)
        finally:
            alive = wait_for_ends(processes, BOUND)
            for process in alive:
                process.kill()
        assert not alive, f"did not end: {alive}"


@contextlib.contextmanager
def listening(kind: Kind, data: Data) -> Iterator[Backend]:
    """Run a server of a kind. Skip the test if something that it needs is not installed."""
    if kind.missing is not None:
        pytest.skip(f"{kind.name}: {kind.missing}")
    backend = Backend(kind, data.of(kind))
    try:
        backend.start()
        backend.wait_until_it_listens()
        yield backend
    finally:
        backend.end()


def _identity(kind: Kind) -> dict[str, Any]:
    """Return arguments of `subprocess.Popen` by which root runs a server as its user."""
    if kind.user is None or os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam(kind.user)
    except KeyError:
        found = pwd.getpwnam("nobody")
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))


def program(name: str) -> str:
    """Return the path of a program that is installed."""
    found = _which(name)
    assert found is not None
    return found


def _do(command: list[str], directory: Path, **identity: Any) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, **identity)
    assert done.returncode == 0, done.stdout + done.stderr


def python(source: str) -> Callable[[Path, int], list[str]]:
    """Return the command of a server that is a Python program; it gets port, user and password."""
    return lambda directory, port: [sys.executable, "-c", source, str(port), USER, PASSWORD]


def _redis(directory: Path, port: int) -> list[str]:
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    return [*command, "--save", "", "--requirepass", PASSWORD]


def _prepare_mosquitto(directory: Path) -> None:
    command = [program("mosquitto_passwd"), "-b", "-c", "passwords", USER, PASSWORD]
    _do(command, directory)


def _mosquitto(directory: Path, port: int) -> list[str]:
    settings = directory / "settings"
    settings.write_text(
        f"listener {port} 127.0.0.1\n"
        "allow_anonymous false\n"
        f"password_file {directory}/passwords\n"
        "user root\n"  # otherwise it becomes a user who cannot read these files
    )
    return [program("mosquitto"), "-c", str(settings)]


def _prepare_postgres(directory: Path) -> None:
    secret = directory / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    command = [program("initdb"), "-D", "data", "--username", USER, "--pwfile", "password"]
    command += ["--auth", "scram-sha-256", "--locale", "C", "--no-sync"]
    _do(command, directory, **_identity(KINDS["postgres"]))


def _postgres(directory: Path, port: int) -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "autovacuum": "off",
        "max_wal_senders": "0",
        "shared_buffers": "1MB",
    }
    options = [text for item in settings.items() for text in ("-c", "=".join(item))]
    return [program("postgres"), "-D", "data", "-p", str(port), *options]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            name="redis",
            feed="tests.system.feeds.redis:Redis",
            client="redis",
            programs=("redis-server",),
            command=_redis,
            lost="run_network: ConnectionError: ",
            silent="silent for 1 s",
            refused="invalid username-password pair",
        ),
        Kind(
            name="mosquitto",
            feed="tests.system.feeds.mosquitto:Mosquitto",
            client="aiomqtt",
            programs=("mosquitto", "mosquitto_passwd"),
            command=_mosquitto,
            prepare=_prepare_mosquitto,
            lost="run_network: MqttError: ",
            silent="check_network: HookTimeout: ",
            refused="Not authorized",
        ),
        Kind(
            name="postgres",
            feed="tests.system.feeds.postgres:Postgres",
            client="asyncpg",
            programs=("initdb", "postgres"),
            command=_postgres,
            prepare=_prepare_postgres,
            user="postgres",
            lost="the server has closed the connection",
            silent="check_network: HookTimeout: ",
            refused="password authentication failed",
        ),
        Kind(
            name="websocket",
            feed="tests.system.feeds.websocket:WebSocket",
            client="websockets",
            programs=(),
            command=python(WEBSOCKET),
            lost="run_network: ConnectionClosedError: ",
            silent="silent for 1 s",
            refused="HTTP 401",
        ),
        Kind(
            name="http",
            feed="tests.system.feeds.http:Http",
            client="aiohttp",
            programs=(),
            command=python(HTTP),
            lost="run_network: ClientPayloadError: ",
            silent="run_network: SocketTimeoutError: ",
            refused="401 Unauthorized",
            connections=2,  # aiohttp repeats a GET that was not answered
        ),
    )
}
"""All kinds, by name."""
