"""Snapshots on a disk that may be full, broken or slow."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chronopype_mp.coordinator.record import LONGEST_NAME
from chronopype_mp.coordinator.state_files import ASIDE, NAME, StateFiles
from chronopype_mp.core.saved_state import MAX_STATE, SavedState
from chronopype_mp.exceptions import SnapshotError

STATE = SavedState(2, 1.5, b"state")


def kept(directory: Path, *steps: Callable[[StateFiles], object]) -> StateFiles:
    """Carry out steps, each after the one before is on the disk."""
    files = StateFiles(str(directory))

    async def scenario() -> None:
        for step in steps:
            step(files)
            await files.close()

    asyncio.run(scenario())
    return files


def save(state: SavedState = STATE, worker: str = "a") -> Callable[[StateFiles], object]:
    return lambda files: files.save(worker, state)


@pytest.mark.parametrize("worker", ["a", "x/../y", ".", "ä€" * (LONGEST_NAME // 2)])
def test_a_snapshot_is_read_as_it_was_saved(worker: str, tmp_path: Path) -> None:
    largest = SavedState(0, 2.5, bytes(MAX_STATE))
    files = kept(tmp_path, save(STATE, worker), save(largest, worker))
    assert files.load(worker) == largest
    assert files.load("another") is None
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_the_newest_of_many_is_kept(tmp_path: Path) -> None:
    def many(files: StateFiles) -> None:
        for number in range(1000):
            files.save("a", SavedState(0, 0.0, b"%d" % number))

    assert kept(tmp_path, many).load("a") == SavedState(0, 0.0, b"999")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\xc4\x05state", b"\xc4\x05stAte"))


def of_another(path: Path) -> None:
    kept(path.parent.parent, save(STATE, "b"))
    os.replace(path.parent.parent / "b" / NAME, path)


@pytest.mark.parametrize("spoil", [cut, flip, of_another, lambda path: path.write_bytes(b"")])
def test_a_broken_file_is_said_to_be_broken_and_moved_aside(
    spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    files = kept(tmp_path, save())
    path = tmp_path / "a" / NAME
    spoil(path)
    with pytest.raises(SnapshotError, match=r"is broken: .*; it was renamed to snapshot\.broken"):
        files.load("a")
    assert not path.exists()
    assert (path.parent / ASIDE).exists()
    assert files.load("a") is None


def test_what_a_killed_owner_left_half_written_is_removed(tmp_path: Path) -> None:
    files = kept(tmp_path, save())
    part = tmp_path / "a" / f"{NAME}.{2**30}.part"  # no process has such an id
    part.write_bytes(b"half")
    assert files.load("a") == STATE
    assert not part.exists()


def test_a_file_that_cannot_be_read_stays(tmp_path: Path) -> None:
    (tmp_path / "a" / NAME).mkdir(parents=True)
    with pytest.raises(SnapshotError, match="cannot be read"):
        StateFiles(str(tmp_path)).load("a")


def test_a_snapshot_that_is_of_no_use_is_set_aside(tmp_path: Path) -> None:
    files = kept(tmp_path, save(), lambda files: files.set_aside("a"))
    assert files.load("a") is None
    assert (tmp_path / "a" / ASIDE).exists()
    kept(tmp_path, lambda files: files.set_aside("never saved"))


def test_a_full_disk_is_said_once_and_when_it_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = tmp_path / "a" / f"{NAME}.{os.getpid()}.part"
    part.parent.mkdir()

    def fill(files: StateFiles) -> None:
        part.symlink_to("/dev/full")

    full = (fill, save())
    files = kept(tmp_path, save(), *full, *full, *full)
    (message,) = caplog.messages
    assert message.startswith(f"the snapshot of worker 'a' cannot be written to {tmp_path}/a/")
    assert "No space left on device" in message
    assert files.load("a") == STATE, "the file before is whole"
    asyncio.run(files.close())
    caplog.clear()
    kept(tmp_path, *full, save(SavedState(3, 1.5, b"new")))
    assert caplog.messages[1] == "the snapshot of worker 'a' is written again"
    assert files.load("a") == SavedState(3, 1.5, b"new")


def test_a_directory_that_cannot_be_written_to_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a").write_text("in the way")
    kept(tmp_path, save(), save(), lambda files: files.set_aside("a"))
    (message,) = caplog.messages
    assert "cannot be written" in message
