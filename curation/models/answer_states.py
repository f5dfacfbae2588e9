"""A language model that has read an answer, as features of that answer: which model it is, and how it is opened.

Nothing is loaded here before ``open_answer_states`` is called. How answers are read is in ``policy.answer_reader``.
"""

from __future__ import annotations

from typing import Final

from curation.models.identity import resolve_model
from curation.models.protocols import AnswerReader

__all__ = ["answer_states_fingerprint", "open_answer_states"]

_DTYPE: Final = "bfloat16"  # what is read off the states is coarser by far than its three digits
_VERSION: Final = 1


def answer_states_fingerprint(model: str) -> str:
    """What the states depend on: weights and revision, width, and which states are taken.

    Raises:
        InputError: when ``model`` is no model.
    """
    return f"{resolve_model(model, embedded='policy').fingerprint}/{_DTYPE}/states{_VERSION}"


def open_answer_states(model: str) -> AnswerReader:
    """Load a causal language model with a chat template to read answers with.

    Args:
        model: a folder, a Hub id, or ``embedded`` for the bundled policy.

    Raises:
        InputError: when it is none of these, or has no chat template.
        ModelError: when it cannot be loaded, or is of a kind that would give wrong numbers.
    """
    from curation.models.policy.answer_reader import open_reader

    fingerprint = answer_states_fingerprint(model)
    return open_reader(resolve_model(model, embedded="policy"), dtype=_DTYPE, fingerprint=fingerprint)
