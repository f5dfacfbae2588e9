"""Whether a model can be loaded, and is what its files hold, all of it and no more. Nothing is loaded here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

__all__ = ["LOADING_ERRORS", "require_all_weights", "require_no_other_weights"]

LOADING_ERRORS: Final = (OSError, ValueError, KeyError, ImportError)
"""What transformers raises for files that it cannot load, for a package that they need, and the checks below."""
_HARMLESS: Final = (
    "cls", "criterion", "discriminator_predictions", "embed_out", "generator_lm_head", "lm_head", "lm_predictions",
    "loss", "loss_fct", "mask_predictions", "mean", "std",
)  # fmt: skip
"""What a language model was trained with, or a loss; and what OpenRLHF divides rewards by, the same for all."""


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


def require_no_other_weights(model: Any, loading: Mapping[str, Collection[str]]) -> None:
    """Refuse files with a part beside the base model that this one has no place for: transformers leaves it out.

    A gate, a second head, the bias of a head that judges tokens: without it the numbers are others.

    Args:
        model: of transformers, loaded.
        loading: what ``from_pretrained(…, output_loading_info=True)`` says beside the model.

    Raises:
        ValueError: when there is such a part.
    """
    base = f"{model.base_model_prefix}."
    left = sorted(
        name
        for name in loading["unexpected_keys"]
        if not name.startswith(base) and name.partition(".")[0] not in _HARMLESS
    )
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise ValueError(
            f"its files hold {left[0]}{more}, for which transformers' own {type(model).__name__} has no place: the "
            f"model has code of its own, or is of another kind"
        )
