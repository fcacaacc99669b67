"""What the README shows, run as it stands there, and the links of all documents."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.system.scripts import Script, Scripts, wait_until
from tests.system.servers import WEBSOCKET, free_port, serve

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
TICK = re.compile(r'^\[WebSocketProcessor\] [\d.]+ \{"price"', re.M)


def programs() -> tuple[str, str]:
    """Return the program of the README, and the `main` that handles SIGTERM."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (program,) = [block for block in blocks if "asyncio.run" in block]
    (handling,) = [block for block in blocks if "signal.SIGTERM" in block]
    assert program.count("ws://127.0.0.1:8765") == 1
    return program, handling


def start(scripts: Scripts, program: str, port: int) -> Script:
    """Run a program against a server of ours, and wait until it ticks."""
    script = scripts.start(program.replace("127.0.0.1:8765", f"127.0.0.1:{port}"))
    wait_until(lambda: len(TICK.findall(script.output)) >= 5, 30.0, lambda: script.output)
    return script


def test_the_readmes_program_connects_and_ticks(scripts: Scripts) -> None:
    port = free_port()
    server = serve(scripts, WEBSOCKET, port)
    script = start(scripts, programs()[0], port)
    script.signal_group(signal.SIGINT)
    script.wait()
    server.signal_group(signal.SIGTERM)
    server.wait()


def test_the_readmes_way_to_handle_sigterm_stops_the_workers_gracefully(scripts: Scripts) -> None:
    program, handling = programs()
    processor = program.partition("async def main")[0]
    end = "\nlogging.basicConfig(level=logging.INFO)\nasyncio.run(main())\n"
    port = free_port()
    server = serve(scripts, WEBSOCKET, port)
    script = start(scripts, processor + handling + end, port)
    script.process.send_signal(signal.SIGTERM)
    assert script.wait() == 0, script.output
    assert "network CONNECTED → DISCONNECTING" in script.output
    assert "died" not in script.output
    server.signal_group(signal.SIGTERM)
    server.wait()


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text(), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_the_scripts_that_a_document_names_can_be_run() -> None:
    for document in DOCUMENTS:
        for script in re.findall(r"(?:\./|`)(scripts/[\w-]+)", document.read_text()):
            assert (ROOT / script).stat().st_mode & 0o100, f"{document.name}: {script}"
