"""The programs of README and examples as one file each: guarded, unguarded, and in a notebook."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.scripts import Script, Scripts
from tests.system.servers import WEBSOCKET, free_port, serve

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
GUARD = '\nif __name__ == "__main__":\n'

NOTEBOOK = """
import json
import nbformat
from nbclient import NotebookClient

cells = [nbformat.v4.new_code_cell(cell) for cell in json.load(open("cells.json"))]
notebook = nbformat.v4.new_notebook(cells=cells)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        print(output.get("text", ""), end="")
"""

CALLS = {
    "http_api": "await main(argparse.Namespace(url=None, seconds=3.0))",
    "websocket_feed": "await main(argparse.Namespace(url=None, seconds=3.0))",
    "exchange_feeds": "await main(argparse.Namespace(seconds=5.0, key=None))",
    "troubled": "await main(8.0)",
    "readme": "await main()",
}

SECONDS = {"troubled": "8", "exchange_feeds": "5"}

EXPECTED = {
    "http_api": [r"api: network CONNECTING -> CONNECTED", r"api: \d+ ticks due: [1-9]\d* run"],
    "websocket_feed": [
        r"feed: network CONNECTING -> CONNECTED",
        r"feed: \d+ ticks due: [1-9]\d* run",
    ],
    "exchange_feeds": [
        r"s  calm-1 +CONNECTING -> CONNECTED",
        r"s  strategy +process 1: \+0 at calm-1 after 0 orders",
        r"s  strategy +order 1 at calm-[12]: (bought|sold) 1 at [\d.]+, position [+-]1$",
        r"^calm-1 +[1-9]\d* +[1-9]\d* +\d+  CONNECTED +nothing$",
    ],
    "troubled": [
        r"crashes: network CONNECTING -> CONNECTED",
        r"healthy: [1-9]\d* ticks run, 0 restarts",
    ],
    "readme": [r'\[WebSocketProcessor\] [\d.]+ \{"price"'],
}


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    scripts = Scripts(tmp_path)
    yield scripts
    scripts.kill_all()


def source_of(program: str) -> str:
    """Return a program as one file, which only the server is not part of."""
    if program == "readme":
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
        (text,) = [block for block in blocks if "asyncio.run" in block]
        call = "asyncio.run(main())"
        assert text.count(call) == 1
        return text.replace(call, f"{GUARD}    {call}").replace("+ 300", "+ 15")
    text = (EXAMPLES / f"{program}.py").read_text()
    line = "from http_api import ApiProcessor, parse, show\n"
    if line in text:
        api, _, _ = source_of("http_api").partition(GUARD)
        future = "from __future__ import annotations\n"
        text = api + text.partition(future)[2].replace(line, "")
    assert text.count(GUARD) == 1
    return text


def start(scripts: Scripts, program: str, way: str, source: str) -> Script:
    environment = {"PYTHONPATH": str(EXAMPLES), "IPYTHONDIR": str(scripts.directory)}
    if way == "notebook":
        cells = [source.partition(GUARD)[0], CALLS[program]]
        (scripts.directory / "cells.json").write_text(json.dumps(cells))
        return scripts.start(NOTEBOOK, **environment)
    if way == "unguarded":
        source = source.replace(GUARD, "\nif True:\n")
    (scripts.directory / "program.py").write_text(source)
    arguments = [] if program == "readme" else ["--seconds", SECONDS.get(program, "3")]
    return scripts.run([sys.executable, "program.py", *arguments], **environment)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("way", ["guarded", "unguarded", "notebook"])
@pytest.mark.parametrize("program", CALLS)
def test_a_public_program_works_as_one_file(scripts: Scripts, program: str, way: str) -> None:
    source = source_of(program)
    if program == "readme":
        port = free_port()
        serve(scripts, WEBSOCKET, port)
        source = source.replace("127.0.0.1:8765", f"127.0.0.1:{port}")
    script = start(scripts, program, way, source)
    # Most feeds of the exchange are in trouble when that program ends.
    status = int(program == "exchange_feeds" and way != "notebook")
    assert script.wait(120) == status, script.output
    for expected in EXPECTED[program]:
        assert re.search(expected, script.output, re.M), script.output
