"""What the ready-made processors share."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chronopype_mp import (
    ClockConfig,
    ClockMode,
    ConfigError,
    NetworkStatus,
    PermanentFailure,
    RealtimeClock,
)
from chronopype_mp.testing import ProcessorTest
from tests.system.clocks import eventually
from tests.waiting import run, running
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


def test_a_secret_is_not_shown() -> None:
    """Not by repr, str or formatting, nor after it has travelled; `reveal` returns it."""
    given = Secret("hunter2")
    for secret in (given, Secret(given), pickle.loads(pickle.dumps(given))):
        shown = f"{secret!r} {secret!s} {secret} {secret:>20} {[secret]} %s" % secret
        assert "hunter2" not in shown
        assert secret.reveal() == "hunter2"
        assert type(secret.reveal()) is str


class Feeds(Options, frozen=True, kw_only=True):
    depth: float = 1.0
    key: Secret = Secret()
    url: Url = Url("http://localhost")
    messages: tuple[Secret, ...] = ()
    headers: dict[str, Secret] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, depth=positive, url=url_with("http", "https"))


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "1", None])
def test_an_option_is_checked_when_the_struct_is_made(timeout: object) -> None:
    """The error names the struct, the field and the value."""
    assert Feeds(timeout=0.5).timeout == 0.5
    for name in ("timeout", "check_interval", "depth"):
        with pytest.raises(ConfigError, match=rf"Feeds.{name}.*finite number of more than 0") as e:
            Feeds(**{name: timeout})
        assert e.value.value is timeout


def test_the_wait_after_a_refusal_may_be_none() -> None:
    """Then there is one attempt."""
    assert Options().retry_refused_after is None
    with pytest.raises(ConfigError, match=r"Options.retry_refused_after = 0: must be"):
        Options(retry_refused_after=0)


def test_a_url_is_shown_without_its_secrets() -> None:
    """User, password, query and fragment; `reveal` returns all of it."""
    text = "wss://bob:p%40ss@host:1/path?key=abcd#top"
    for url in (Url(text), pickle.loads(pickle.dumps(Url(text)))):
        assert f"{url} {url!r} %s" % url == " ".join(["wss://host:1/path"] * 3)
        assert url.reveal() == text
    assert repr(Url("http://[")) == "<secret>"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://host", "must begin with http:// or https:// and a host"),
        ("http:///path", "must begin with http:// or https:// and a host"),
        ("host", "must begin with http:// or https:// and a host"),
        ("http://host:99999", "is not a URL: Port out of range"),
        ("http://[", "is not a URL: Invalid IPv6 URL"),
    ],
)
def test_a_wrong_url_is_named(url: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Feeds(url=Url(url))
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"key": "abc"}, "Secret"),
        ({"url": "http://abc"}, "Url"),
        ({"headers": {"a": Secret("x"), "b": "abc"}}, "Secret"),
        ({"messages": ("abc",)}, "Secret"),
    ],
)
def test_a_plain_string_is_no_secret(given: dict[str, Any], kind: str) -> None:
    """It would be shown; a fleet file's is made one."""
    with pytest.raises(ConfigError, match=f"must be a {kind}; from workers import {kind}"):
        Feeds(**given)


class LibraryError(Exception):
    """What a client raises."""


def test_errors_of_a_client_are_shown_without_secrets() -> None:
    """Wherever in the options they are, and as they stand in a URL."""
    options = Feeds(
        key=Secret("first"),
        url=Url("http://bob:p%40ss@host/?token=third&n=1"),
        headers={"Authorization": Secret("fourth")},
    )
    processor = Received(options)
    with pytest.raises(ConnectionError) as caught, processor.expecting(LibraryError):
        raise LibraryError("first p@ss p%40ss third fourth n=1 1 host")
    assert str(caught.value) == (
        "LibraryError: <secret> <secret> <secret> <secret> <secret> n=1 1 host"
    )
    with pytest.raises(KeyError), processor.expecting(LibraryError):
        raise KeyError


def test_an_answer_that_does_not_come_ends_with_the_time_limit() -> None:
    """A TimeoutError of the client itself keeps its text."""

    async def scenario() -> None:
        processor = Received(Options(timeout=0.01))
        with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
            async with processor.answering(LibraryError):
                await asyncio.get_running_loop().create_future()
        with pytest.raises(TimeoutError, match="its own"):
            async with processor.answering(LibraryError):
                raise TimeoutError("its own")
        with pytest.raises(ConnectionError, match=r"LibraryError$"):
            async with processor.answering(LibraryError):
                raise LibraryError

    run(scenario())


def test_a_missing_library_is_named_with_its_extra() -> None:
    """What a library itself lacks is not mistaken for it."""
    assert required("json.decoder", "http") is sys.modules["json.decoder"]
    with pytest.raises(PermanentFailure, match=r"pip install 'chronopype-mp\[http\]'"):
        required("no_such_library.client", "http")


def test_a_library_that_lacks_another_fails_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installing the extra would not help."""
    (tmp_path / "half_a_library.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        required("half_a_library", "http")


class Received(ReadyMade):
    """Receives two payloads with every tick, and emits one of them."""

    stale_after = 5.0

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED

    def tick(self, timestamp: float) -> None:
        self.received("ab", 2, "prices")
        self.received("cde", 3, None)


def test_a_payload_ends_the_silence() -> None:
    """Whether it is emitted or not; without payloads, the connection is lost."""

    async def scenario() -> None:
        async with ProcessorTest(Received(Options())) as test:
            await test.reaches(NetworkStatus.CONNECTED)
            await test.advance(3.5)  # the tick comes at 4 s
            await test.tick()
            assert (test.processor.payloads, test.processor.payload_bytes) == (2, 5)
            await test.advance(3.0)  # more than 5 s after the connection
            assert test.transitions[-1] == NetworkStatus.CONNECTED
            lost = await test.reaches(NetworkStatus.NOT_CONNECTED, within=5.0)
            assert lost.reason.startswith("silent for 5 s")

    run(scenario())


def test_payloads_leave_the_worker_and_are_counted() -> None:
    """By topic; ``handle.mirrored`` has the counters."""

    async def scenario() -> None:
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
        clock = RealtimeClock(config)
        reader = clock.outputs()
        async with clock:
            handle = clock.add_processor(Received(Options()), name="a")
            await handle.wait_ready()
            async with running(clock):
                outputs = [await anext(reader) for _ in range(3)]
                await eventually(lambda: handle.mirrored.get("payloads", 0) >= 6)
                counted = handle.mirrored
        assert {(each.topic, each.payload) for each in outputs} == {("prices", "ab")}
        assert counted["payload_bytes"] == 5 * counted["payloads"] // 2

    run(scenario())
