"""Which attention a loaded model of transformers is run with. Nothing is loaded here."""

from __future__ import annotations

from typing import Any

__all__ = ["honour_soft_cap"]


def honour_soft_cap(model: Any) -> Any:
    """The model, with an attention that caps its scores where the config says so (Gemma 2).

    transformers' default one leaves the cap out without a word, and every state is another.
    """
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")
    return model
