"""The commands about fleet files, apart from ``run``, which has a system test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp.console.cli import main
from chronopype_mp.console.exit_status import EXIT_OK, EXIT_USAGE

BESIDE = """
from chronopype_mp import TickProcessor


class Quiet(TickProcessor):
    def __init__(self, depth: int, *, name: str = "x") -> None:
        super().__init__()
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory; leave the module path as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_starter_file_passes_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    """``init`` and ``check`` in a row, as a newcomer types them."""
    assert main(["init"]) == EXIT_OK
    assert capsys.readouterr().out == "fleet.toml written; next: chronopype-mp check fleet.toml\n"
    assert main(["check", "fleet.toml"]) == EXIT_OK
    assert capsys.readouterr().out == "fleet 'fleet': 1 worker, no problems\n"
    assert main(["init", "other.toml", "--json"]) == EXIT_OK
    assert printed(capsys) == {"file": "other.toml"}
    assert main(["check", "other.toml", "--json"]) == EXIT_OK
    assert printed(capsys) == {"ok": True, "fleet": "fleet", "workers": ["first"]}


def test_a_file_that_exists_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does a missing directory give a traceback."""
    (tmp_path / "fleet.toml").write_text("mine")
    assert main(["init"]) == EXIT_USAGE
    assert "fleet.toml cannot be written: File exists; give another" in capsys.readouterr().err
    assert (tmp_path / "fleet.toml").read_text() == "mine"
    assert main(["init", "no/such.toml"]) == EXIT_USAGE
    assert "no/such.toml cannot be written: No such file" in capsys.readouterr().err


def test_modules_beside_the_file_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From wherever the command runs. The problems are also available as JSON."""
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "beside.py").write_text(BESIDE)
    file = tmp_path / "fleet" / "fleet.toml"
    file.write_text('[[processor]]\nname = "a"\ntype = "beside:Quiet"\noptions = { dept = 1 }\n')
    assert main(["check", "fleet/fleet.toml", "--json"]) == EXIT_USAGE
    assert printed(capsys) == {
        "ok": False,
        "problems": [
            {
                "file": "fleet/fleet.toml",
                "line": 4,
                "path": "processor[a].options.dept",
                "value": "1",
                "problem": 'no such option; did you mean "depth"?',
            },
            {
                "file": "fleet/fleet.toml",
                "line": 4,
                "path": "processor[a].options.depth",
                "value": None,
                "problem": "must be given",
            },
        ],
    }


@pytest.mark.parametrize("arguments", [["check"], ["run"], ["check", "."], ["check", "--jso"]])
def test_wrong_arguments_are_usage_errors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, after the usage."""
    assert main(arguments) == EXIT_USAGE
    assert capsys.readouterr().err.splitlines()[-1].startswith("Error: ")


def test_a_missing_file_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    """Like any other."""
    assert main(["check", "none.toml"]) == EXIT_USAGE
    assert capsys.readouterr().err == "none.toml: cannot be read: No such file or directory\n" + (
        "1 problem\n"
    )


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON."""
    assert main(["schema"]) == EXIT_OK
    assert printed(capsys)["$ref"] == "#/$defs/FleetFile"


def test_processors_of_packages_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With their options; a broken one has its problem. A fleet file uses their names."""
    (tmp_path / "beside_too.py").write_text(BESIDE)
    info = tmp_path / "beside-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beside\nVersion: 1\n")
    points = "quiet = beside_too:Quiet\nbroken = beside_too:Loud\n"
    (info / "entry_points.txt").write_text(f"[chronopype_mp.processors]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["list-processors", "--json"]) == EXIT_OK
    quiet = {
        "name": "quiet",
        "type": "beside_too:Quiet",
        "options": ["depth: 'int'", "name: 'str' = 'x'"],
        "problem": None,
    }
    rows = printed(capsys)
    assert quiet in rows or {**quiet, "options": ["depth: int", "name: str = 'x'"]} in rows
    (broken,) = [row for row in rows if row["name"] == "broken"]
    assert broken["problem"] == "beside_too has no 'Loud'"
    assert main(["list-processors"]) == EXIT_OK
    assert "quiet  beside_too:Quiet\n    depth: int\n" in capsys.readouterr().out
    entry = '[[processor]]\nname = "a"\ntype = "{}"\noptions = {{ depth = 1 }}\n'
    (tmp_path / "fleet.toml").write_text(entry.format("quiet"))
    assert main(["check", "fleet.toml"]) == EXIT_OK
    (tmp_path / "fleet.toml").write_text(entry.format("quite"))
    assert main(["check", "fleet.toml"]) == EXIT_USAGE
    assert 'no such processor; did you mean "quiet"?' in capsys.readouterr().err


def test_shells_can_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the help says."""
    monkeypatch.setenv("_CHRONOPYPE_MP_COMPLETE", "zsh_source")
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 0
    assert "compdef _chronopype_mp_completion chronopype-mp" in capsys.readouterr().out
