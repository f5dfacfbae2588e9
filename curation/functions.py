"""Functions of the user's own that a recipe names: ``python:package.module:function``. They run with its trust."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from curation.errors import InputError

__all__ = ["named_function"]

_PREFIX: Final = "python:"


def named_function(name: str, *, what: str, expected: str = "python:package.module:function") -> Callable[..., Any]:
    """Import the function.

    Args:
        name: with or without ``python:``.
        what: how an error calls it, such as ``verifier``.
        expected: what an error says that is expected.

    Raises:
        InputError: when there is no such module or function, or it is something else than a function.
    """
    module, _, attribute = name.removeprefix(_PREFIX).partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        lacks = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        path = "; for a file of your own put its folder on Python's path: PYTHONPATH=FOLDER curation …" * lacks
        raise InputError(f"{what} {name!r} cannot be found ({error}): expected {expected}{path}") from error
    if not callable(function):
        raise InputError(f"{what} {name!r} is a {type(function).__name__}, expected a function")
    found: Callable[..., Any] = function
    return found
