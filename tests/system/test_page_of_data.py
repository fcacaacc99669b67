"""The page "Move data": its programs run as they are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.system.scripts import Scripts

PAGE = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text()


def test_the_program_that_gets_data_out_prints_three_prices(scripts: Scripts) -> None:
    (program,) = re.findall(r"^```python\n(.*?^class Feed.*?)^```", PAGE, re.S | re.M)
    script = scripts.start(program)
    assert script.wait() == 0, script.output
    assert len(re.findall(r"^Feed prices\.btc \d+\.\d+$", script.output, re.M)) == 3
