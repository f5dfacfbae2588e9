"""Any Python function as a reward model: ``python:package.module:function``.

The function gets a list of prompts (lists of {role, content}) and a list of answers, and returns one number
an answer, or one list of numbers an answer. It is named in the recipe, so it runs with the recipe's trust.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.errors import ModelError
from curation.functions import named_function
from curation.text import Message, content_hash

__all__ = ["CallableReward", "callable_fingerprint", "open_callable"]

FloatArray = npt.NDArray[np.float64]


def callable_fingerprint(model: str, *, device: str | None = None) -> str:
    """The function's name and a hash of its own source and its module's, so that a change of either scores again.

    What it calls in other modules is not seen.
    """
    function = named_function(model, what="reward function")
    module = import_module(model.removeprefix("python:").partition(":")[0])
    return f"{model}@{content_hash(_source(function), _source(module))[:12]}"


def _source(thing: Any) -> str:
    """The source; empty where there is none, as of what is built in or a callable object."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""


def open_callable(model: str, *, device: str | None = None) -> CallableReward:
    """Import the function.

    Raises:
        InputError: when there is no such module or function.
    """
    return CallableReward(
        named_function(model, what="reward function"), model, fingerprint=callable_fingerprint(model)
    )


class CallableReward:
    """See ``curation.models.protocols.RewardModel``."""

    def __init__(self, function: Callable[..., Any], name: str, *, fingerprint: str) -> None:
        self._function, self._name = function, name
        self.fingerprint = fingerprint

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs).

        Raises:
            ModelError: when the function raises, returns another number of rows, or something else than numbers.
        """
        try:
            given = self._function([list(prompt) for prompt in prompts], list(responses))
        except Exception as error:  # of somebody else's code: whatever it is, the other models go on
            # Its message may quote a prompt; --debug shows it.
            raise ModelError(f"reward function {self._name!r} raised {type(error).__name__}") from error
        if isinstance(given, Mapping | Set):
            kind = type(given).__name__
            raise ModelError(
                f"reward function {self._name!r} returned a {kind}, expected a list in the answers' order"
            )
        try:
            values = np.asarray(list(given), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(f"reward function {self._name!r} returned something else than numbers") from error
        if len(values) != len(responses):
            raise ModelError(f"reward function {self._name!r} returned {len(values)} rewards for {len(responses)}")
        return values.reshape(len(responses), -1) if len(responses) else np.empty((0, 1))
