"""What the ready-made processors share."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

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
from workers._base import ReadyMade, Secret, check_options, positive, required


def test_a_secret_is_not_shown() -> None:
    """Not by repr, str or formatting, nor after it has travelled; `reveal` returns it."""
    for secret in (Secret("hunter2"), pickle.loads(pickle.dumps(Secret("hunter2")))):
        shown = f"{secret!r} {secret!s} {secret} {secret:>20} {[secret]} %s" % secret
        assert "hunter2" not in shown
        assert secret.reveal() == "hunter2"
        assert type(secret.reveal()) is str


class Options(msgspec.Struct, frozen=True):
    timeout: float = 1.0

    def __post_init__(self) -> None:
        check_options(self, timeout=positive)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "1", None])
def test_an_option_is_checked_when_the_struct_is_made(timeout: object) -> None:
    """The error names the struct, the field and the value."""
    assert Options(timeout=0.5).timeout == 0.5
    with pytest.raises(ConfigError, match=r"Options.*timeout.*finite number of more than 0") as e:
        Options(timeout=timeout)  # type: ignore[arg-type]
    assert e.value.value is timeout


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
        async with ProcessorTest(Received()) as test:
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
            handle = clock.add_processor(Received(), name="a")
            await handle.wait_ready()
            async with running(clock):
                outputs = [await anext(reader) for _ in range(3)]
                await eventually(lambda: handle.mirrored.get("payloads", 0) >= 6)
                counted = handle.mirrored
        assert {(each.topic, each.payload) for each in outputs} == {("prices", "ab")}
        assert counted["payload_bytes"] == 5 * counted["payloads"] // 2

    run(scenario())
