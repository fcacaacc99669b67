"""What a fleet file may hold. The settings of clocks and supervision are those of the package."""

from __future__ import annotations

import logging
import urllib.parse
from typing import Any, Literal

import msgspec

from chronopype_mp.clocks.config import ClockConfig
from chronopype_mp.clocks.modes import ClockMode
from chronopype_mp.core.checks import at_least, positive, whole
from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.settings import Seconds, Settings
from chronopype_mp.exceptions import ConfigError

__all__ = [
    "MOST_WORKERS",
    "Dependency",
    "FleetFile",
    "LoggingSettings",
    "NotifySettings",
    "ProcessorEntry",
    "json_schema",
]

SECONDS = msgspec.json.schema(Seconds)["description"]
"""By which seconds are known in a JSON Schema."""

MOST_WORKERS = 1000
"""The largest ``count``."""


class LoggingSettings(Settings, frozen=True):
    """What the fleet logs, on standard error.

    Args:
        level: the level of the root logger, such as ``"INFO"``.
        levels: levels of other loggers by name.

    Raises:
        ConfigError: a level is unknown.
    """

    level: str = "INFO"
    levels: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_level("level", self.level)
        for name, level in self.levels.items():
            _check_level(f"levels[{name!r}]", level)


def _check_level(field: str, level: str) -> None:
    known = logging.getLevelNamesMapping()
    if level not in known:
        names = ", ".join(name for name in known if name not in ("NOTSET", "WARN", "FATAL"))
        raise ConfigError("logging", field, level, f"must be one of {names}")


class NotifySettings(Settings, frozen=True):
    """Whom to notify of deaths, quarantines, long disconnections, and recoveries from them.

    Args:
        webhook: a URL to which each is sent, with POST and JSON.
        command: a program and its arguments. It gets the JSON on its standard input.
        disconnected_after: a `NetworkProcessor` that is not connected for so long is reported;
            None: never.
        per_minute: the most notifications in a minute. The next one says how many were left out.
        timeout: a webhook or command that takes longer is given up; the command is killed.

    Raises:
        ConfigError: a value is out of range.
    """

    webhook: str | None = None
    command: tuple[str, ...] = ()
    disconnected_after: Seconds | None = 60.0
    per_minute: int = 20
    timeout: Seconds = 10.0

    def __post_init__(self) -> None:
        if self.webhook is not None and not _is_url(self.webhook):
            problem = "must be a URL with http:// or https:// and a host, without user and spaces"
            raise ConfigError("notify", "webhook", "...", problem)  # the URL may hold a secret
        if self.disconnected_after is not None:
            positive("notify", "disconnected_after", self.disconnected_after)
        whole("notify", "per_minute", self.per_minute, 1)
        positive("notify", "timeout", self.timeout)

    def __repr__(self) -> str:
        """Leave out the values, which may hold secrets."""
        return f"{type(self).__name__}(...)"


def _is_url(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        has_place = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:  # such as a port that is no number
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return parts.scheme in ("http", "https") and has_place and plain


class Dependency(Settings, frozen=True):
    """What must have happened before a worker starts.

    Args:
        name: the name of a worker, or of an entry, which means all of its workers.
        until: READY, or for a `NetworkProcessor` CONNECTED.
        timeout: after this long the worker is started anyway, with a warning.

    Raises:
        ConfigError: ``timeout`` is not above 0.
    """

    name: str
    until: Literal["ready", "connected"] = "ready"
    timeout: Seconds = 60.0

    def __post_init__(self) -> None:
        positive("depends_on", "timeout", self.timeout)


class ProcessorEntry(Settings, frozen=True):
    """An entry ``[[processor]]``: one worker, or with ``count`` or ``for_each`` several.

    Args:
        name: the worker's name. Of several workers, ``{item}`` stands for the item; a name without
            it gets ``-{item}`` appended.
        type: the name of an entry point in the group ``chronopype_mp.processors``, or
            ``"package.module:Class"``.
        count: the number of workers; their items are 1, 2, …
        for_each: the items, one for each worker.
        options: the arguments of the class.
        env: environment variables for the worker's processes.
        env_file: a file of such variables, one ``NAME=value`` on each line.
        group: one of the ``[groups]``.
        depends_on: what must have happened before it starts.
        supervision: where it differs from ``[supervision]``.

    Raises:
        ConfigError: ``count`` is out of range.
    """

    name: str
    type: str
    count: int | None = None
    for_each: tuple[str | int, ...] | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    env: dict[str, str] = msgspec.field(default_factory=dict)
    env_file: str | None = None
    group: str | None = None
    depends_on: tuple[Dependency, ...] = ()
    supervision: Supervision | None = None

    def __post_init__(self) -> None:
        if self.count is not None:
            whole("processor", "count", self.count, 1, MOST_WORKERS)


class FleetFile(Settings, frozen=True):
    """A fleet file. What is not explained here is an argument of `RealtimeClock`.

    Args:
        name: the fleet's name.
        clock: the settings of the clock.
        supervision: how workers are supervised, unless their entries say otherwise.
        logging: what is logged.
        notify: whom to notify of what goes wrong.
        groups: strategies by the names of groups.
        restart_budget: limits the restarts of all workers together.
        launcher: how workers are started.
        preload: modules that the forkserver imports, so that no worker has to.
        event_loop: the event loop of the workers.
        state_dir: a directory for the dossiers of deaths, relative to the file.
        stagger: the time between the starts of two workers.
        processor: the entries.

    Raises:
        ConfigError: ``stagger`` is below 0.
    """

    name: str = "fleet"
    clock: ClockConfig = ClockConfig(clock_mode=ClockMode.REALTIME)
    supervision: Supervision = Supervision()
    logging: LoggingSettings = LoggingSettings()
    notify: NotifySettings = NotifySettings()
    groups: dict[str, GroupStrategy] = msgspec.field(default_factory=dict)
    restart_budget: RestartBudget | None = None
    launcher: Literal["forkserver", "spawn", "inline"] | None = None
    preload: tuple[str, ...] = ()
    event_loop: Literal["asyncio", "uvloop"] = "asyncio"
    state_dir: str | None = None
    stagger: Seconds = 0.0
    processor: tuple[ProcessorEntry, ...] = ()

    def __post_init__(self) -> None:
        at_least("fleet", "stagger", self.stagger, 0.0)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of fleet files, for editors."""
    schema = msgspec.json.schema(FleetFile)
    definitions = schema["$defs"]
    # A file names the mode, and need not.
    definitions["ClockMode"] = {"enum": ["realtime"]}
    clock = definitions["ClockConfig"]
    clock["required"].remove("clock_mode")
    _allow_durations(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _allow_durations(schema: Any) -> None:
    """Let seconds be text, too. Msgspec knows them as numbers."""
    if isinstance(schema, dict) and schema.get("description") == SECONDS:
        schema["type"] = ["number", "string"]
    for part in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(part, dict | list):
            _allow_durations(part)
