"""Reward models: one protocol, one adapter a file.

    embedded, or a folder with heads.safetensors    heads       light heads over an encoder
    folder or Hub id                                classifier  sequence-classification models
    vllm:MODEL                                      vllm        the same, run by vLLM in this process
    http(s)://host/v1/score#name, …/classify#name   server      vLLM and other servers
    judge:<url>#name[?rubric=…]                     judge       an LLM that grades, with log-probabilities
    relevance                                       relevance   R3
    python:package.module:function                  callable    any function

``score`` returns one column per reward: an ensemble has several heads, a classifier several attributes.
Nothing heavy is imported before a model is opened.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from curation.errors import InputError, ModelError
from curation.models.identity import EMBEDDED, resolve_model
from curation.models.protocols import Encoder, RewardModel

__all__ = [
    "given_to_each",
    "heads_encoder",
    "open_heads",
    "open_pair_judge",
    "open_reward",
    "reward_fingerprint",
    "same_width",
]

_PREFIXES: Final = {
    "python:": "callable",
    "judge:": "judge",
    "vllm:": "vllm",
    "http://": "server",
    "https://": "server",
}


_GIVEN: Final = (
    "attributes", "dtype", "max_length", "encoder", "references", "tensor_parallel_size", "gpu_memory_utilization",
)  # fmt: skip
"""The options that a recipe can give, and of the first five the command."""


def reward_fingerprint(model: str = EMBEDDED, **options: Any) -> str:
    """What the rewards depend on: weights, revision and the options of the call.

    Raises:
        InputError: when ``model`` names nothing, or does not take an option.
    """
    fingerprint: str = _adapter(model, options)[0](model, **options)
    return fingerprint


def open_reward(model: str = EMBEDDED, **options: Any) -> RewardModel:
    """Load a reward model; the module's text lists what ``model`` may be.

    Options go to the adapter: ``device``, ``batch_size``, ``max_length`` and its own ones.

    Raises:
        InputError: when ``model`` names nothing, or an option is wrong.
        ModelError: when it cannot be loaded.
        MissingExtraError: when it needs a package of an optional extra.
    """
    opened: RewardModel = _adapter(model, options)[1](model, **options)
    return opened


def heads_encoder(model: str) -> str | None:
    """The fingerprint of the encoder that heads were fitted on; None for a model that is no heads."""
    if _kind(model) != "heads":
        return None
    from curation.models.rewards.heads import read_heads

    return read_heads(Path(resolve_model(model, embedded="rewards").location)).encoder_fingerprint


def open_heads(model: str, *, with_encoder: Encoder, encoder: str | None = None) -> RewardModel:
    """Heads over an encoder that is open already; see :func:`curation.models.rewards.heads.open_heads`."""
    from curation.models.rewards import heads

    return heads.open_heads(model, encoder=encoder, with_encoder=with_encoder)


def open_pair_judge(model: str) -> Any:
    """A judge that compares; see :func:`curation.models.rewards.judge.open_pair_judge`."""
    from curation.models.rewards import judge

    return judge.open_pair_judge(model)


def same_width(before: int, now: int, model: str | None = None) -> int:
    """How many values a model gives an answer, which must not change on the way; 0 before it has given any.

    Raises:
        ModelError: when it has: nobody could say which value is which.
    """
    if before not in (0, now):
        named = "the reward model" if model is None else f"reward model {model!r}"
        raise ModelError(
            f"{named} gave {now} values for an answer, and {before} for others: expected the same number, in the "
            f"same order, for every answer"
        )
    return now


def given_to_each(models: Sequence[str], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each model the options that it takes, of those that are meant for all of them.

    Raises:
        InputError: when a model names nothing, or an option is one that none of them takes.
    """
    taken = [_options_of(_functions(model)[0]) for model in models]
    unknown = [name for name in options if not any(name in names for names in taken)]
    if unknown:
        raise InputError(f"option {unknown[0]} is of no use: none of the models takes it ({', '.join(models)})")
    return [{name: value for name, value in options.items() if name in names} for names in taken]


def _adapter(model: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """The two functions of the adapter that a MODEL means.

    Raises:
        InputError: when it names nothing, or an option is none of its.
    """
    functions = _functions(model)
    known = _options_of(functions[0])
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(
            f"reward model {model!r} takes no {unknown[0]}: of {', '.join(_GIVEN)} such a model takes "
            f"{', '.join(name for name in _GIVEN if name in known) or 'none'}"
        )
    return functions


def _functions(model: str) -> tuple[Any, Any]:
    kind = _kind(model)
    module = import_module(f"{__name__}.{kind}")
    return getattr(module, f"{kind}_fingerprint"), getattr(module, f"open_{kind}")


def _options_of(fingerprint: Any) -> list[str]:
    return [name for name in inspect.signature(fingerprint).parameters if name != "model"]


def _kind(model: str) -> str:
    for prefix, kind in _PREFIXES.items():
        if model.startswith(prefix):
            return kind
    if model == "relevance":
        return "relevance"
    if model == EMBEDDED or (Path(model) / "heads.safetensors").is_file():
        return "heads"
    resolve_model(model, embedded="rewards")
    return "classifier"
