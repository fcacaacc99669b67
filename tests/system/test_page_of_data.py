"""The page "Move data": its programs run as they are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.system.scripts import Scripts

PAGE = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text()


GETS_OUT, TALKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)


def test_the_program_that_gets_data_out_prints_three_prices(scripts: Scripts) -> None:
    script = scripts.start(GETS_OUT)
    assert script.wait() == 0, script.output
    assert len(re.findall(r"^Feed prices\.btc \d+\.\d+$", script.output, re.M)) == 3


def test_the_program_whose_processors_talk_prints_the_last_price_at_each_tick(
    scripts: Scripts,
) -> None:
    script = scripts.start(TALKS)
    assert script.wait() == 0, script.output
    assert len(re.findall(r"^\[Strategy\] Price\(value=\d+\.\d+\)$", script.output, re.M)) >= 2
