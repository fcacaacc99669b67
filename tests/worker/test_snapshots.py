"""What snapshot() may return, and what restore() gets of it."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from chronopype_mp.core.saved_state import MAX_STATE, SavedState
from chronopype_mp.exceptions import SnapshotError
from chronopype_mp.processors import TickProcessor
from chronopype_mp.worker.snapshots import Snapshots


class Holder(TickProcessor):
    snapshot_version = 4

    def __init__(self, state: Any = None) -> None:
        super().__init__()
        self.state_held = state

    def snapshot(self) -> Any:
        return self.state_held

    def restore(self, state: Any) -> None:
        self.state_held = state


@dataclasses.dataclass
class Position:
    size: int
    sides: tuple[str, ...] = ()


class Returns(Holder):
    def snapshot(self) -> Position:
        return self.state_held  # type: ignore[no-any-return]


class Takes(Holder):
    def restore(self, state: Position | None) -> None:
        super().restore(state)


class Misnamed(Holder):
    def snapshot(self) -> Unknown:  # type: ignore[name-defined] # noqa: F821 – the mistake
        return self.state_held


def over(first: Holder, second: Holder) -> Any:
    saved = Snapshots(first).take()
    assert saved is not None
    assert saved.version == 4
    Snapshots(second).restore(saved)
    return second.state_held


def test_state_is_restored_as_plain_data_unless_it_is_annotated() -> None:
    assert over(Holder({"a": (1, 2)}), Holder()) == {"a": [1, 2]}
    position = Position(3, ("buy",))
    for kind in (Returns, Takes):
        assert over(kind(position), kind()) == position


def test_none_is_no_snapshot() -> None:
    assert Snapshots(Holder()).take() is None


def test_only_a_processor_that_overrides_snapshot_has_snapshots() -> None:
    assert Snapshots(Holder()).are_wanted
    assert not Snapshots(TickProcessor()).are_wanted


@pytest.mark.parametrize(
    ("processor", "problem"),
    [
        (Holder(threading.Lock()), r"^Holder: what Holder\.snapshot\(\) returned, a lock, cannot"),
        (Holder("x" * MAX_STATE), f"more than the limit of {MAX_STATE}; keep large data in a file"),
        (
            Returns({"size": "three"}),
            r"does not fit the annotation of snapshot\(\): Expected `int`",
        ),
        (Misnamed(1), r"annotation of snapshot\(\) cannot be used: name 'Unknown' is not defined"),
    ],
)
def test_a_snapshot_that_could_not_be_restored_is_refused_when_it_is_taken(
    processor: Holder, problem: str
) -> None:
    with pytest.raises(SnapshotError, match=problem):
        Snapshots(processor).take()


@pytest.mark.parametrize(
    ("processor", "saved", "problem"),
    [
        (Holder(), SavedState(3, 0.0, b"\x01"), "has version 3, but snapshot_version = 4"),
        (Holder(), SavedState(4, 0.0, b"\xc1"), "the snapshot does not fit"),
        (Returns(), SavedState(4, 0.0, b"\x01"), "the snapshot does not fit"),
        (TickProcessor(), SavedState(0, 0.0, b"\x01"), r"it has no restore\(\)"),
    ],
)
def test_an_outdated_or_a_broken_snapshot_is_not_restored(
    processor: TickProcessor, saved: SavedState, problem: str
) -> None:
    with pytest.raises(SnapshotError, match=problem):
        Snapshots(processor).restore(saved)
    assert getattr(processor, "state_held", None) is None
