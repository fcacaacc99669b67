"""The stacks file, read from outside."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from chronopype_mp.core.boot import STACKS_HEADER
from chronopype_mp.launchers.stacks import LONGEST_STACKS, StacksFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1.stacks"


def write(path: Path, stacks: bytes, ran: float = 0.0) -> None:
    path.write_bytes(STACKS_HEADER.pack(time.monotonic() - ran) + stacks)


@pytest.mark.parametrize("name", ["", "missing"])
def test_without_a_file_nothing_is_known(tmp_path: Path, name: str) -> None:
    file = StacksFile(name and str(tmp_path / name))
    assert file.size() == 0
    assert file.silent_for() is None
    assert file.take(0) is None


def test_a_file_without_a_whole_header_says_nothing(path: Path) -> None:
    path.write_bytes(b"123")
    file = StacksFile(str(path))
    assert (file.size(), file.silent_for()) == (0, None)


def test_the_header_tells_for_how_long_python_has_not_run(path: Path) -> None:
    write(path, b"", ran=40.0)
    silent_for = StacksFile(str(path)).silent_for()
    assert silent_for is not None
    assert silent_for >= 40.0


def test_stacks_are_taken_once_and_without_the_header(path: Path) -> None:
    write(path, b"the stacks")
    file = StacksFile(str(path))
    assert file.size() == len(b"the stacks")
    assert file.take(0) == "the stacks"
    assert not path.exists()
    assert file.take(0) is None


def test_stacks_that_were_asked_for_come_instead_of_the_earlier_ones(path: Path) -> None:
    write(path, b"early late")
    assert StacksFile(str(path)).take(len(b"early ")) == "late"


def test_earlier_stacks_are_better_than_none(path: Path) -> None:
    write(path, b"early")
    assert StacksFile(str(path)).take(len(b"early")) == "early"


def test_of_too_many_stacks_both_ends_are_kept(path: Path) -> None:
    write(path, b"newest" + b"x" * 2 * LONGEST_STACKS + b"oldest")
    stacks = StacksFile(str(path)).take(0)
    assert stacks is not None
    assert stacks.startswith("newest")
    assert stacks.endswith("oldest")
    assert LONGEST_STACKS < len(stacks) < LONGEST_STACKS + 10
