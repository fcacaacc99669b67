"""The version of this code, and the version that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

__all__ = ["CODE_VERSION", "__version__"]

CODE_VERSION = "0.1.0"
"""The version of the code that runs. pyproject.toml takes the version of the package from here."""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Takes 6 MB, which workers do without.
    from importlib import metadata

    try:
        return metadata.version("chronopype-mp")
    except metadata.PackageNotFoundError:
        return "0.0.0"
