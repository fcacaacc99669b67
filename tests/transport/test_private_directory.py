"""Directories that are removed once their owner is gone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronopype_mp.transport.private_directory import PrivateDirectory, sweep


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def directory() -> Iterator[PrivateDirectory]:
    directory = PrivateDirectory()
    yield directory
    directory.remove()
    assert not os.path.exists(directory.path)


def test_only_this_user_can_enter(directory: PrivateDirectory) -> None:
    assert os.stat(directory.path).st_mode & 0o777 == 0o700


def test_the_directory_of_a_living_owner_is_not_swept(directory: PrivateDirectory) -> None:
    sweep()
    assert directory.exists()


def test_the_directory_of_an_owner_that_was_killed_is_swept(temporary: Path) -> None:
    child = os.fork()
    if child == 0:
        PrivateDirectory()
        os._exit(0)
    os.waitpid(child, 0)
    (found,) = temporary.iterdir()
    (found / "socket").touch()
    sweep()
    assert not list(temporary.iterdir())


def test_what_somebody_else_has_made_is_not_swept(temporary: Path) -> None:
    for name in ("chronopype_mp-mine", "other.d"):
        (temporary / name).mkdir()
    (temporary / "chronopype_mp-link.d").symlink_to("other.d")
    (temporary / "chronopype_mp-file.d").touch()
    before = set(temporary.iterdir())
    sweep()
    assert set(temporary.iterdir()) == before


def test_a_removed_directory_is_restored_for_its_owner(directory: PrivateDirectory) -> None:
    directory.restore()
    shutil.rmtree(directory.path)
    assert not directory.exists()
    sweep()
    directory.restore()
    assert directory.exists()
    assert os.stat(directory.path).st_mode & 0o777 == 0o700
    sweep()
    assert directory.exists()


def test_a_name_that_was_taken_meanwhile_is_an_error(directory: PrivateDirectory) -> None:
    shutil.rmtree(directory.path)
    os.mkdir(directory.path)
    with pytest.raises(FileExistsError):
        directory.restore()
    directory.remove()
    os.rmdir(directory.path)  # it is not the owner's to remove


def test_a_forked_process_neither_locks_nor_removes(directory: PrivateDirectory) -> None:
    child = os.fork()
    if child == 0:
        directory.remove()
        os._exit(0 if not directory.exists() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert directory.exists()
