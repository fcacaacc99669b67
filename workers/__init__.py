"""Ready-made processors, one per file."""

from workers._base import Secret, Url

__all__ = ["Secret", "Url"]
