"""What the README shows, run as it stands there."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.system.scripts import Scripts, wait_until
from tests.system.servers import WEBSOCKET, free_port, serve

ROOT = Path(__file__).parents[2]


def test_the_readmes_program_connects_and_ticks(scripts: Scripts) -> None:
    readme = (ROOT / "README.md").read_text()
    (program,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", readme, re.S)
        if "asyncio.run" in block
    ]
    assert program.count("ws://127.0.0.1:8765") == 1
    port = free_port()
    server = serve(scripts, WEBSOCKET, port)
    script = scripts.start(program.replace("127.0.0.1:8765", f"127.0.0.1:{port}"))
    lines = re.compile(r'^\[WebSocketProcessor\] [\d.]+ \{"price"', re.M)
    wait_until(lambda: len(lines.findall(script.output)) >= 5, 30.0, lambda: script.output)
    script.signal_group(signal.SIGINT)
    script.wait()
    server.signal_group(signal.SIGTERM)
    server.wait()


def test_the_files_that_the_readme_names_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)h][^)]*)\)", readme):
        assert (ROOT / target).exists(), target
    for script in re.findall(r"\./(scripts/[\w-]+)", readme):
        assert (ROOT / script).stat().st_mode & 0o100, script
