"""The page "Operate a running fleet": its tables are complete.

Its program runs in ``tests/system/test_control.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from chronopype_mp.console.control_commands import COMMANDS, STATUSES
from chronopype_mp.console.top_command import top
from chronopype_mp.control.messages import ErrorKind

PAGE = (Path(__file__).parent.parent / "docs" / "control.md").read_text()


def test_the_table_has_all_commands() -> None:
    """And no others."""
    shown = set(re.findall(r"^\| `([a-z-]+)(?: [A-Z\[-].*?)?` \| [a-z]", PAGE, re.M))
    kinds = {kind.value for kind in ErrorKind}
    assert shown - kinds == {str(command.name) for command in (*COMMANDS, top)}
    assert shown >= kinds


def test_the_table_has_all_exit_statuses() -> None:
    """Apart from those of success and Ctrl-C, errors have them."""
    shown = {int(status) for status in re.findall(r"^\| (\d+) \|", PAGE, re.M)}
    assert shown == {0, 1, 130, *STATUSES.values()}
