"""The page "Run a fleet from a file": its blocks do what it says, and its tables are complete."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from chronopype_mp.console import control_commands
from chronopype_mp.console.cli import commands, main
from chronopype_mp.console.top_command import top
from chronopype_mp.exceptions import FleetError
from chronopype_mp.fleet import FleetPlan, load_fleet
from chronopype_mp.fleet.schema import FleetFile, ProcessorEntry
from tests.waiting import run

PAGE = (Path(__file__).parent.parent / "docs" / "fleet.md").read_text()
BLOCKS = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", PAGE, re.M)
"""The language and the text of each block."""


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


FILES = blocks("toml")
MODULE, PROGRAM = blocks("python")
COMMANDS, OVERRIDES, MESSAGES = blocks("")
(WRONG,) = blocks("toml wrong")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the page speaks of."""
    (tmp_path / "feeds.py").write_text(MODULE)
    (tmp_path / "secret.key").write_text("hunter2\n")
    (tmp_path / "account.env").write_text("# of the account\nACCOUNT='a'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "feeds", raising=False)
    return tmp_path


def loaded(directory: Path, text: str, **variables: str) -> FleetPlan:
    (directory / "fleet.toml").write_text(text)
    return load_fleet(["fleet.toml"], variables)


def test_every_block_is_one_of_these() -> None:
    """None is forgotten when the page grows."""
    assert len(BLOCKS) == len(FILES) + 6


def test_the_files_do_what_the_page_says(directory: Path) -> None:
    """Each of them is a whole fleet."""
    first, many, order, settings, secrets, notify = (loaded(directory, text) for text in FILES)
    assert first.settings.clock.tick_size == 0.2
    assert [worker.name for worker in many.workers] == [
        *("book-btc", "book-eth"),
        *("spare-1", "spare-2", "spare-3"),
    ]
    assert [worker.spec.options.get("depth") for worker in many.workers] == [None, None, 1, 2, 3]
    (_, _, orders) = order.workers
    assert [(each.name, each.until, each.timeout) for each in orders.depends_on] == [
        ("gateway-1", "connected", 30.0),
        ("gateway-2", "connected", 30.0),
    ]
    assert settings.settings.supervision.max_downtime == 900.0
    assert settings.workers[0].supervision.stop_grace == 20.0
    assert settings.workers[0].supervision.max_downtime == 900.0
    assert secrets.workers[0].spec.options == {"url": "ws://127.0.0.1:8765", "key": "hunter2"}
    assert notify.settings.notify.disconnected_after == 120.0
    assert secrets.workers[0].env == {"ACCOUNT": "a", "TZ": "UTC"}


def test_the_file_of_the_readme_is_right(directory: Path) -> None:
    """Apart from the module, which is the reader's."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (text,) = re.findall(r"^```toml\n((?:.*\n)*?)```$", readme, re.M)
    text = text.replace("your_module", "feeds").replace("symbol =", "url =")
    plan = loaded(directory, text, API_KEY="x")
    assert [worker.name for worker in plan.workers] == ["feed-btc", "feed-eth"]


def test_the_overrides_override(directory: Path) -> None:
    """As the lines stand there."""
    variables = dict(line.split("=", 1) for line in OVERRIDES.splitlines())
    settings = loaded(directory, FILES[0], **variables).settings
    assert settings.clock.tick_size == 0.5
    assert settings.supervision.stop_grace == 5.0
    assert settings.preload == ("ssl",)


def test_the_mistakes_have_these_messages(directory: Path) -> None:
    """Word for word."""
    with pytest.raises(FleetError) as caught:
        loaded(directory, WRONG)
    assert f"{caught.value}\n" == MESSAGES


def test_the_commands_exist_and_check_accepts_the_first_file(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``run`` has a system test."""
    assert COMMANDS.splitlines() == [f"chronopype-mp {c} fleet.toml" for c in ("check", "run")]
    (directory / "fleet.toml").write_text(FILES[0])
    assert main(["check", "fleet.toml"]) == 0
    section = PAGE.partition("\n## Commands\n")[2].partition("\n## ")[0]
    shown = set(re.findall(r"^\| `([a-z-]+)", section, re.M))
    assert isinstance(commands, click.Group)
    operating = {str(command.name) for command in (*control_commands.COMMANDS, top)}
    assert shown == set(commands.commands) - operating - {"demo", "bench"}


def table(heading: str) -> set[str]:
    """Return the names in the first column of a section's table."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.M)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize(
    ("heading", "kind"), [("Settings", FleetFile), ("Processors", ProcessorEntry)]
)
def test_the_tables_have_all_settings(heading: str, kind: Any) -> None:
    """And no others."""
    assert table(heading) == {field.name for field in msgspec.structs.fields(kind)}


def test_the_program_runs_a_fleet(directory: Path) -> None:
    """Inline, so that it is quick."""
    (directory / "fleet.toml").write_text(f'launcher = "inline"\n{FILES[0]}')
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(PROGRAM, "docs/fleet.md", "exec"), names)
    run(names["main"](0.5))
