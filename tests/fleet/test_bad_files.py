"""Wrong fleet files: each has its exact messages beside it, and starts no process.

``python -m tests.fleet.test_bad_files`` writes the messages anew; read them before you keep them.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import psutil
import pytest

from chronopype_mp.console.cli import main
from chronopype_mp.console.exit_status import EXIT_USAGE
from chronopype_mp.exceptions import FleetError
from chronopype_mp.fleet import load_fleet

BAD = Path(__file__).parent / "bad"
ROOT = BAD.parents[2]
NAMES = sorted(path.stem for path in BAD.glob("*.toml"))
SECRET = "hunter2"


def messages(name: str) -> str:
    """Return what is wrong with a file; in its directory."""
    with pytest.raises(FleetError) as caught:
        load_fleet([f"{name}.toml"], {"SECRET": SECRET})
    assert SECRET not in repr(caught.value)
    return without_root(f"{caught.value}\n")


def without_root(text: str) -> str:
    """Leave out where the repository is, and the line of a class; a message names its file."""
    return re.sub(r"processors\.py, line \d+", "processors.py", text.replace(f"{ROOT}/", ""))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_file_has_the_message_beside_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every problem is shown, with its file, line, setting and value. A secret is not."""
    monkeypatch.chdir(BAD)
    found = messages(name)
    assert found == (BAD / f"{name}.txt").read_text()
    assert SECRET not in found


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_wrong_file_starts_no_process(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command shows the messages, exits with 2, and has no new children."""
    monkeypatch.chdir(BAD)
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = psutil.Process().children(recursive=True)
    for name in NAMES:
        assert main([command, f"{name}.toml"]) == EXIT_USAGE
        output = capsys.readouterr()
        assert output.out == ""
        assert without_root(output.err).startswith((BAD / f"{name}.txt").read_text())
        assert output.err.splitlines()[-1].endswith(("problem", "problems"))
    assert psutil.Process().children(recursive=True) == before


def test_there_is_a_message_for_every_file() -> None:
    """And none without a file."""
    assert len(NAMES) >= 30
    assert sorted(path.stem for path in BAD.glob("*.txt") if path.stem != "secret") == NAMES


if __name__ == "__main__":
    os.chdir(BAD)
    for each in NAMES:
        (BAD / f"{each}.txt").write_text(messages(each))
