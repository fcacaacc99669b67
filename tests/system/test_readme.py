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


def test_the_readmes_program_survives_a_silent_feed(scripts: Scripts) -> None:
    """Its timers are shortened, so that the silence is as long for them as a minute is."""
    program, _ = programs()
    for old, new in (
        ("check_network_interval = 5.0", "check_network_interval = 0.2"),
        ('8765")', '8765", ping_interval=0.5)'),
    ):
        assert program.count(old) == 1
        program = program.replace(old, new)
    port = free_port()
    server = serve(scripts, WEBSOCKET, port)
    script = start(scripts, program, port)

    def newest() -> list[str]:
        """Return the message of each tick, with the newest last."""
        return re.findall(r"^\[WebSocketProcessor\] [\d.]+ (\{.*\})$", script.output, re.M)

    server.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: len(set(newest()[-30:])) == 1, 30.0, lambda: script.output)
    last = newest()[-1]
    server.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: newest()[-1] != last, 30.0, lambda: script.output)
    assert server.output.count("client") == 1
    lines = [line for line in script.output.splitlines() if not TICK.match(line)]
    assert all(line.endswith(" None") for line in lines), script.output  # before the first message
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
