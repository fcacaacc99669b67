"""``python -m chronopype_mp``: the command line."""

from __future__ import annotations

import sys

from chronopype_mp.console.cli import main

if __name__ == "__main__":
    sys.exit(main())
