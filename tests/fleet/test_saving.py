"""Entries in the text of a fleet file."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest

from chronopype_mp.fleet.saving import with_entries, without_entry, write

TEXT = """\
# the fleet
name = "a"

# the first
[[processor]]
name = "one"
type = "m:C"
options = { key = '''
[[processor]]
''' }

# the second
[[processor]]
name = "two"
type = "m:C"
[processor.options]
url = "x"
[[processor.depends_on]]
name = "one"

[[processor]]
name = "three"
count = 2
type = "m:C"

[clock]
tick_size = 1.0
"""


def names(text: str) -> list[str]:
    return [entry["name"] for entry in tomllib.loads(text)["processor"]]


@pytest.mark.parametrize("name", ["one", "two"])
def test_an_entry_goes_with_its_tables_and_the_rest_stays(name: str) -> None:
    """Comments and the other settings, too."""
    rest = without_entry(TEXT, name)
    assert names(rest) == [other for other in ("one", "two", "three") if other != name]
    before, after = tomllib.loads(TEXT), tomllib.loads(rest)
    assert [entry for entry in before["processor"] if entry["name"] != name] == after["processor"]
    assert after["clock"] == before["clock"]
    for comment in ("# the fleet", "# the first", "# the second"):
        assert comment in rest


def test_what_is_no_entry_of_its_own_stays() -> None:
    """One of several workers, and an unknown one."""
    for name in ("three", "three-1", "four"):
        assert without_entry(TEXT, name) == TEXT


def test_entries_are_appended() -> None:
    """Below what is there, whatever table that is."""
    text = with_entries(TEXT, "\n[[processor]]\nname = 'four'\ntype = 'm:C'\n\n\n")
    assert names(text) == ["one", "two", "three", "four"]
    assert text.startswith(TEXT)
    assert without_entry(text, "four") == TEXT


def test_a_file_is_written_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    """Through a link, too; what cannot be written leaves nothing behind."""
    file = tmp_path / "fleet.toml"
    file.write_text("old")
    file.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    write(str(link), "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    with pytest.raises(OSError, match="No such file"):
        write(str(tmp_path / "missing.toml"), "x")
    assert sorted(os.listdir(tmp_path)) == ["fleet.toml", "link.toml"]
