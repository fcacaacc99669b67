"""Dossiers as files: whole, readable, and no trouble for the supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chronopype_mp.coordinator.dossiers import KEPT_PER_WORKER, DossierFiles
from chronopype_mp.core.worker_events import DeathReason, WorkerDied


def death(**fields: object) -> WorkerDied:
    plain: dict[str, object] = {
        "worker": "a",
        "incarnation": 1,
        "pid": 7,
        "reason": DeathReason.EXITED,
        "exitcode": 1,
        "uptime": 1.0,
    }
    return WorkerDied(**(plain | fields))  # type: ignore[arg-type]


def files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_a_dossier_can_be_read_back_without_the_exception_itself(tmp_path: Path) -> None:
    DossierFiles(str(tmp_path)).write(
        death(at=86_400.5, output=("last", "wörds"), exception=ValueError())
    )
    (path,) = files_in(tmp_path)
    assert path.relative_to(tmp_path) == Path("a/000001-19700102T000000.500000Z-1.json")
    read = msgspec.json.decode(path.read_bytes(), type=WorkerDied)
    assert read == death(at=86_400.5, output=("last", "wörds"))


def test_text_that_is_not_unicode_is_escaped(tmp_path: Path) -> None:
    DossierFiles(str(tmp_path)).write(death(detail="no file \udcff", output=("\udcfe",)))
    (path,) = files_in(tmp_path)
    read = msgspec.json.decode(path.read_bytes(), type=WorkerDied)
    assert (read.detail, read.output) == ("no file \\udcff", ("\\udcfe",))


def test_a_file_system_that_refuses_is_logged_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    DossierFiles(str(tmp_path)).write(death())
    assert files_in(tmp_path) == []
    assert "cannot be written to" in caplog.text
    assert "[Errno 28] No space left" in caplog.text


def test_a_dossier_that_cannot_be_encoded_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        DossierFiles(str(tmp_path)).write(death(detail=object()))
    assert files_in(tmp_path) == []


def test_what_an_owner_left_that_was_killed_while_writing_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / f"000001-x-1.json.{ended.pid}.part").write_bytes(b"{")
    other_owner = folder / f"000001-x-1.json.{os.getppid()}.part"
    other_owner.write_bytes(b"{")
    DossierFiles(str(tmp_path)).write(death())
    first, second = files_in(tmp_path)
    assert first.suffix == ".json"
    assert second == other_owner


def test_the_newest_dossiers_are_kept_whatever_the_wall_clock_shows(tmp_path: Path) -> None:
    files = DossierFiles(str(tmp_path))
    total = 2 * KEPT_PER_WORKER + 5
    for number in range(total):
        # The clock is set back once, by more than all that came before.
        at = 1e6 + number if number < total // 2 else number
        files.write(death(at=at, incarnation=number))
    kept = [msgspec.json.decode(path.read_bytes(), type=WorkerDied) for path in files_in(tmp_path)]
    assert [each.incarnation for each in kept] == list(range(total))[-KEPT_PER_WORKER:]


def test_a_new_owner_goes_on_counting(tmp_path: Path) -> None:
    for incarnation in (1, 2, 3):
        DossierFiles(str(tmp_path)).write(death(incarnation=incarnation))
    assert [path.name.partition("-")[0] for path in files_in(tmp_path)] == [
        "000001",
        "000002",
        "000003",
    ]


@pytest.mark.parametrize("worker", ["..", ".", "../../x", "a/b", "%2e", "日本" * 40, "x" * 255])
def test_every_name_of_a_worker_has_a_folder_in_the_directory(tmp_path: Path, worker: str) -> None:
    DossierFiles(str(tmp_path / "dossiers")).write(death(worker=worker))
    (path,) = files_in(tmp_path)
    assert path.parent.parent == tmp_path / "dossiers"
