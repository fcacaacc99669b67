"""The ends of ``chronopype-mp run``: signals to one, several and all of its processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.system.scripts import TOKEN, Script, Scripts, processes_of, wait_for_ends
from tests.system.test_fleet import FLEET, start

CONNECTED = "worker 'last': network CONNECTING → CONNECTED"


def stops(tmp_path: Path) -> list[str]:
    """Return the workers whose ``stop_network`` ran, by their URLs."""
    notes = (tmp_path / "fleet" / "notes").read_text().splitlines()
    return sorted(line.split()[1] for line in notes if line.startswith("stop "))


def terminate(script: Script, token: str, to: str) -> None:
    """Send SIGTERM as ``kill``, a shell or a service manager does."""
    if to == "process":
        script.process.send_signal(signal.SIGTERM)
    elif to == "group":
        script.signal_group(signal.SIGTERM)
    else:
        processes = processes_of(token)
        assert len(processes) > 5  # the workers are among them
        for process in processes:
            process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("to", ["process", "group", "unit"])
def test_each_worker_stops_gracefully(scripts: Scripts, tmp_path: Path, to: str) -> None:
    """Whichever processes get SIGTERM, each ``stop_network`` runs once, and the status is 0."""
    token = f"fleet-{to}-{os.getpid()}"
    script = start(scripts, tmp_path, FLEET, **{TOKEN: token})
    script.wait_for(CONNECTED)
    terminate(script, token, to)
    assert script.wait() == 0, script.output
    assert stops(tmp_path) == ["last", "late", "net-1", "net-2", "net-3"]
    assert " died" not in script.output
    assert "Traceback" not in script.output
    assert wait_for_ends(processes_of(token), 30.0) == []


def test_a_killed_coordinator_leaves_nothing_in_the_way(scripts: Scripts, tmp_path: Path) -> None:
    """Its workers end, and the same command runs the fleet again."""
    token = f"fleet-killed-{os.getpid()}"
    first = start(scripts, tmp_path, FLEET, **{TOKEN: token})
    first.wait_for(CONNECTED)
    orphans = processes_of(token)
    assert len(orphans) > 5
    first.process.kill()
    first.wait()
    again = start(scripts, tmp_path, FLEET, **{TOKEN: token})
    again.wait_for(CONNECTED)
    assert wait_for_ends(orphans, 30.0) == []
    again.process.send_signal(signal.SIGTERM)
    assert again.wait() == 0, again.output
    assert "Traceback" not in again.output
    assert wait_for_ends(processes_of(token), 30.0) == []
