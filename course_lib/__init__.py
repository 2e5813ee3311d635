"""Reusable parts of the transformer course: what the notebooks import.

Importing this package is cheap: torch and the rest are loaded when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from course_lib.runtime import setup
    from course_lib.source import show_source
    from course_lib.training import train

_HOME = {"setup": "runtime", "show_source": "source", "train": "training"}
__all__ = ["setup", "show_source", "train"]


def __getattr__(name: str) -> Any:
    """Load a public name, or a submodule, on first use (PEP 562)."""
    if name in _HOME:
        return getattr(import_module(f"course_lib.{_HOME[name]}"), name)
    raise AttributeError(f"module 'course_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
