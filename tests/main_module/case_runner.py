"""Runs the cases of `tests.main_module.cases` in the program that defines them.

The program imports this as ``case_runner``. Each processor calls its ``check`` in its worker, in
``start``, and writes the outcome to a file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from chronopype_mp import ClockConfig, ClockMode, ProcessorSpec, TickProcessor
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.exceptions import TransferError

__all__ = ["Check", "run"]

SHARED: dict[str, int] = {"n": 1}
"""For ``from case_runner import SHARED``."""


class Settings:
    """Has a setting."""

    url = "default"


SETTINGS = Settings()


class Check(TickProcessor):
    """A processor of a case."""

    directory: str = ""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        name = getattr(self, "case_name", None) or type(self).__name__
        try:
            outcome = repr(self.check())  # type: ignore[attr-defined]
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        _note(f"{self.directory}/{name}", outcome)


def _note(path: str, outcome: str) -> None:
    Path(path).write_text(outcome)


async def _run(names: dict[str, Any], launcher: str, directory: str) -> None:
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    async with RealtimeClock(config, launcher=launcher) as clock:
        handles = []
        for name, made in list(names.items()):
            if not name.startswith("C_"):
                continue
            path = f"{directory}/{name}"
            try:
                processor = made() if callable(made) else made
                if isinstance(processor, ProcessorSpec):
                    processor.options["directory"] = directory
                else:
                    processor.directory = directory
                    processor.case_name = name
                handles.append((path, clock.add_processor(processor, name=name)))
            except TransferError as error:
                _note(path, f"refused: {error}")
        for path, handle in handles:
            try:
                await handle.wait_ready()
            except Exception as error:
                failure = handle.last_failure
                why = (failure.error or failure.detail or "") if failure else ""
                _note(path, f"not ready: {error}: {why}")


def run(names: dict[str, Any]) -> None:
    """Run all cases; the program's last argument has the launcher and the directory."""
    logging.disable(logging.CRITICAL)
    asyncio.run(_run(names, *json.loads(sys.argv[-1])))


async def run_in_notebook(names: dict[str, Any], launcher: str, directory: str) -> None:
    """Run all cases in a cell."""
    logging.disable(logging.CRITICAL)
    await _run(names, launcher, directory)
