"""The page "Call a processor": its program runs, and its table has every error."""

from __future__ import annotations

import re
from pathlib import Path

from chronopype_mp import CallError, exceptions
from tests.system.scripts import Scripts

PAGE = (Path(__file__).parents[2] / "docs" / "calls.md").read_text()


def test_the_program_of_the_page_calls_from_outside_and_from_a_tick(scripts: Scripts) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
    script = scripts.start(program)
    assert script.wait() == 0, script.output
    assert "after yours: 1.0" in script.output
    assert "after mine: 3.0" in script.output


def test_the_table_of_errors_is_complete() -> None:
    kinds = {name for name, kind in vars(exceptions).items() if is_call_error(kind)}
    named = set(re.findall(r"^\| `(\w+Error)` \|", PAGE, re.M))
    assert named == kinds | {"RemoteError"}


def is_call_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, CallError) and kind is not CallError
