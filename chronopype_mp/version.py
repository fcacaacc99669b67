"""The installed version."""

from __future__ import annotations

from importlib import metadata

__all__ = ["__version__"]

try:
    __version__ = metadata.version("chronopype-mp")
except metadata.PackageNotFoundError:
    __version__ = "0.0.0"
