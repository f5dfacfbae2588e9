"""Whether all of a loaded model came from its files. Nothing is loaded here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["require_all_weights"]


def require_all_weights(model: Any, loading: Mapping[str, Collection[str]]) -> None:
    """Refuse a model with weights that its files do not hold: transformers draws them at random and only warns.

    A reward model read as a policy lacks the output layer, a language model read as a classifier its last layer:
    every number that it gives would be noise. Buffers are not weights: they are computed, not trained.

    Args:
        model: of transformers, loaded.
        loading: what ``from_pretrained(…, output_loading_info=True)`` says beside the model.

    Raises:
        ValueError: when there are such weights.
    """
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = sorted(set(loading["missing_keys"]) & names)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"its files do not hold {missing[0]}{more}, which would be filled with random numbers: the files are "
            f"those of another kind of model, or not complete"
        )
