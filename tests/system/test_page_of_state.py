"""The program of the page "State": its second run continues where the first has ended."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from tests.system.scripts import Scripts, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "state.md").read_text()
PROGRAM, MIRRORED = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)


def test_the_second_run_continues_with_the_position_of_the_first(scripts: Scripts) -> None:
    positions = []
    for _ in range(2):
        script = scripts.start(PROGRAM)
        assert script.wait() == 0
        positions.append(int(script.output.split()[-1]))
    assert 1 <= positions[0] <= 21
    assert positions[0] < positions[1] <= positions[0] + 21


def test_a_run_continues_after_the_program_was_killed(scripts: Scripts) -> None:
    path = scripts.directory / "state" / "Strategy" / "snapshot.msgpack"
    killed = scripts.start(PROGRAM.replace("time.time() + 2.0", "time.time() + 60.0"))
    wait_until(path.exists, 20.0)
    first = path.read_bytes()
    wait_until(lambda: path.read_bytes() != first, 20.0)
    killed.process.kill()
    position = msgspec.msgpack.decode(msgspec.msgpack.decode(path.read_bytes())["state"]["data"])
    script = scripts.start(PROGRAM)
    assert script.wait() == 0
    assert int(script.output.split()[-1]) > position["position"]


def test_the_mirrored_class_is_one() -> None:
    names: dict[str, object] = {}
    exec("from chronopype_mp import TickProcessor\n" + MIRRORED, names)
    assert getattr(names["Prices"], "mirrored", None) == ("price", "volume")
