"""Dossiers as files: whole, readable, and no trouble for the supervisor."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chronopype_mp.coordinator.dossiers import DossierFiles
from chronopype_mp.core.events import DeathReason, WorkerDied


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
    assert path.relative_to(tmp_path) == Path("a/19700102T000000.500000Z-1.json")
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
    assert "cannot be written: [Errno 28] No space left" in caplog.text
