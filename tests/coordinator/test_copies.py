"""What several processors carry, and what does not reach a worker any more."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from chronopype_mp import ClockConfig, ClockMode, NetworkProcessor, NetworkStatus, TickProcessor
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.exceptions import TransferError


class Holder(TickProcessor):
    """Holds something."""

    limit = 1

    def __init__(self, **held: Any) -> None:
        super().__init__()
        self.__dict__.update(held)


class Link(NetworkProcessor):
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("link")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.NOT_CONNECTED


class Limiter:
    """Is shared."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.taken: list[int] = []


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Is equal by value."""

    symbols: tuple[str, ...] = ("a",)


@pytest.fixture
def clock() -> RealtimeClock:
    return RealtimeClock(ClockConfig(clock_mode=ClockMode.REALTIME))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_an_object_that_several_processors_hold_is_named_once(
    clock: RealtimeClock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = Limiter()
    for name in ("a", "b", "c"):
        clock.add_processor(Holder(client={"limiter": limiter}), name=name)
    (warning,) = warnings_of(caplog)
    assert warning.startswith("workers 'a' and 'b' each have a copy of one object, a Limiter (")
    assert warning.count("Holder.client['limiter']") == 2


@pytest.mark.parametrize(
    "make",
    [Frozen, lambda: ("a", 1), lambda: logging.getLogger("x"), lambda: Limiter, lambda: None],
)
def test_what_nobody_changes_is_not_named(
    clock: RealtimeClock, caplog: pytest.LogCaptureFixture, make: Callable[[], object]
) -> None:
    shared = make()
    for _ in range(2):
        clock.add_processor(Holder(held=shared))
    assert warnings_of(caplog) == []


def test_a_processor_that_is_removed_shares_nothing_any_more(
    clock: RealtimeClock, caplog: pytest.LogCaptureFixture
) -> None:
    shared = [1]
    clock.remove_processor(clock.add_processor(Holder(held=shared)))
    clock.add_processor(Holder(held=shared))
    assert warnings_of(caplog) == []


def test_a_processor_that_refers_to_one_that_is_added_is_refused(clock: RealtimeClock) -> None:
    first = Holder()
    clock.add_processor(first)
    with pytest.raises(TransferError, match=r"^Holder\.peers\[0\] .* another processor") as caught:
        clock.add_processor(Holder(peers=[first]))
    assert caught.value.attribute == "peers[0]"
    assert len(clock.processors) == 1


def test_a_processor_of_which_a_worker_has_a_copy_is_refused(clock: RealtimeClock) -> None:
    second = Holder()
    clock.add_processor(Holder(peer=second), name="first")
    with pytest.raises(TransferError, match=r"'first', .* has a copy of it \(Holder\.peer\)"):
        clock.add_processor(second)
    assert len(clock.processors) == 1


def test_an_attribute_set_after_adding_is_named_once_with_the_way(
    clock: RealtimeClock, caplog: pytest.LogCaptureFixture
) -> None:
    holder = Holder()
    holder.limit = 2
    clock.add_processor(holder, name="a")
    holder.limit = 3
    holder.limit = 4
    (warning,) = warnings_of(caplog)
    assert warning.startswith("worker 'a' does not get Holder.limit, which was set after add_proc")
    assert "remove the processor, set it and add it again" in warning
    clock.remove_processor(holder)
    holder.limit = 5
    assert len(warnings_of(caplog)) == 1
    assert holder.limit == 5


def test_a_network_setting_reaches_the_worker_and_is_not_named(
    clock: RealtimeClock, caplog: pytest.LogCaptureFixture
) -> None:
    processor = Link()
    handle = clock.add_processor(processor)
    processor.check_network_interval = 3.0
    assert handle._record.settings.check_network_interval == 3.0
    assert warnings_of(caplog) == []
