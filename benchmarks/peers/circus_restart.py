"""The time from the SIGKILL of a worker to its replacement in circus: circus_restart.py [KILLS].

circusd checks for dead processes every ``check_delay``, 5 s by default. The kills are spread evenly
over that time.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import _announced

CHECK_DELAY = 5.0
"""Seconds. This is the default, which the configuration does not change."""

CONFIGURATION = """\
[circus]
endpoint = ipc://control.sock
pubsub_endpoint = ipc://events.sock
loglevel = ERROR

[watcher:worker]
cmd = {command}
numprocesses = 1
"""


def main() -> None:
    """Print the figure."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    Path("circus.ini").write_text(CONFIGURATION.format(command=_announced.command("arrivals")))
    supervisor = [sys.executable, "-m", "circus.circusd", "circus.ini"]
    taken = _announced.restarts_ms(supervisor, "arrivals", kills, CHECK_DELAY)
    print(json.dumps({"restart_ms": statistics.median(taken)}))


if __name__ == "__main__":
    main()
