"""The public names: they exist, where chronopype has them, and importing them is cheap."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys

import pytest

import chronopype_mp

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(chronopype_mp.__path__, "chronopype_mp.")
    if not module.name.startswith("chronopype_mp.console") and "__main__" not in module.name
)

EXCEPTIONS = (
    "ClockError",
    "ClockContextError",
    "ClockRuntimeError",
    "ProcessorError",
    "ProcessorTimeoutError",
)
EVENTS = ("ClockStartEvent", "ClockTickEvent", "ClockStopEvent")

CHRONOPYPE = {
    "chronopype_mp": (
        "__version__",
        "BaseClock",
        "RealtimeClock",
        "ClockConfig",
        "ClockMode",
        *EVENTS,
        "TickProcessor",
        "ProcessorState",
        "ProcessorStats",
        "NetworkProcessor",
        "NetworkStatus",
        *EXCEPTIONS,
    ),
    "chronopype_mp.clocks": (
        "BaseClock",
        "RealtimeClock",
        "ClockMode",
        *EVENTS,
        "ProcessorStats",
        "CLOCK_REGISTRY",
        "get_clock_class",
    ),
    "chronopype_mp.clocks.base": ("BaseClock", *EVENTS, "ProcessorStats"),
    "chronopype_mp.clocks.realtime": ("RealtimeClock",),
    "chronopype_mp.clocks.modes": ("ClockMode",),
    "chronopype_mp.clocks.config": ("ClockConfig", "FLOAT_EPSILON"),
    "chronopype_mp.processors": (
        "TickProcessor",
        "ProcessorState",
        "NetworkProcessor",
        "NetworkStatus",
    ),
    "chronopype_mp.processors.base": ("TickProcessor",),
    "chronopype_mp.processors.models": ("ProcessorState",),
    "chronopype_mp.processors.network": ("NetworkProcessor", "NetworkStatus"),
    "chronopype_mp.exceptions": EXCEPTIONS,
}


@pytest.mark.parametrize("name", ["chronopype_mp", *MODULES])
def test_what_a_module_says_is_public_is_there(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert list(public) == sorted(public, key=_by_kind)
    assert len(set(public)) == len(public)
    for each in public:
        assert getattr(module, each) is not None


def _by_kind(name: str) -> tuple[int, str]:
    """Sort as ruff does: constants, then classes, then the rest."""
    if name.isupper():
        return 0, name
    return (1, name) if name.lstrip("_")[0].isupper() else (2, name)


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in CHRONOPYPE.items() for name in names]
)
def test_a_name_of_chronopype_is_where_chronopype_has_it(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert name in importlib.import_module(module).__all__
    if hasattr(chronopype_mp, name):
        assert found is getattr(chronopype_mp, name)


def test_the_config_is_not_among_the_clocks() -> None:
    assert not hasattr(importlib.import_module("chronopype_mp.clocks"), "ClockConfig")


def test_a_star_import_brings_every_public_name() -> None:
    names: dict[str, object] = {}
    exec("from chronopype_mp import *", names)
    assert set(chronopype_mp.__all__) <= set(names)
    assert set(chronopype_mp.__all__) <= set(dir(chronopype_mp))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'chronopype_mp' has no attribute 'Clock'"):
        chronopype_mp.Clock  # noqa: B018 – it is the access that fails


def test_every_error_is_a_clock_error() -> None:
    module = importlib.import_module("chronopype_mp.exceptions")
    errors = [getattr(module, name) for name in module.__all__]
    assert all(issubclass(error, chronopype_mp.ClockError) for error in errors)
    assert issubclass(chronopype_mp.ProcessorTimeoutError, chronopype_mp.ProcessorError)


def test_the_version_is_the_installed_ones_and_looked_up_anew_on_a_reload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    installed = importlib.metadata.version("chronopype-mp")
    assert chronopype_mp.__version__ == installed
    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "version", not_installed)
        assert importlib.reload(chronopype_mp).__version__ == "0.0.0"
    assert importlib.reload(chronopype_mp).__version__ == installed


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    program = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    return set(done.stdout.split())


HEAVY = {"zmq", "asyncio", "msgspec", "dill", "multiprocess", "logging", "socket"}


def test_importing_the_package_alone_loads_next_to_nothing() -> None:
    loaded = loaded_by("import chronopype_mp")
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("chronopype_mp")} == {"chronopype_mp"}


def test_the_processors_need_neither_sockets_nor_the_machinery() -> None:
    loaded = loaded_by("from chronopype_mp import NetworkProcessor, ProcessorSpec")
    assert not loaded & {"zmq", "dill", "multiprocess"}
    assert not {
        name
        for name in loaded
        if name.startswith(
            ("chronopype_mp.clocks", "chronopype_mp.coordinator", "chronopype_mp.transport")
        )
    }


def test_a_worker_loads_nothing_of_the_coordinator_and_nothing_heavy() -> None:
    loaded = loaded_by("import chronopype_mp.launchers.preload")
    assert "chronopype_mp.worker.host" in loaded
    assert not loaded & {"email", "hashlib", "importlib.metadata", "rich", "zmq.asyncio"}
    assert not {
        name
        for name in loaded
        if name.startswith(
            ("chronopype_mp.clocks", "chronopype_mp.console", "chronopype_mp.coordinator")
        )
    }
