"""From the SIGKILL of a worker to its replacement: supervisord_restart.py [KILLS].

``startsecs=0`` has a worker count as running at once, so that a restart never waits for a backoff.
supervisord wakes up when a worker's output closes, but starts another in a later turn of its loop,
up to 1 s later; the kills lie evenly over that.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import _announced

POLL = 1.0
"""Seconds; fixed in its source."""

CONFIGURATION = """\
[supervisord]
nodaemon = true
silent = true
logfile = supervisord.log
pidfile = supervisord.pid

[program:worker]
command = {command}
autorestart = true
startsecs = 0
stdout_logfile = NONE
stderr_logfile = NONE
"""


def main() -> None:
    """Print the figure."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    command = _announced.command("arrivals").replace("%", "%%")
    Path("supervisord.conf").write_text(CONFIGURATION.format(command=command))
    supervisor = [sys.executable, "-m", "supervisor.supervisord", "-c", "supervisord.conf"]
    taken = _announced.restarts_ms(supervisor, "arrivals", kills, POLL)
    print(json.dumps({"restart_ms": statistics.median(taken)}))


if __name__ == "__main__":
    main()
