"""What the parameters of sampling may be, whichever backend samples. Nothing is sampled here."""

from __future__ import annotations

from curation.errors import InputError

__all__ = ["check_sampling"]


def check_sampling(*, max_new_tokens: int, temperature: float, top_p: float) -> None:
    """Refuse a parameter that is out of its range.

    Raises:
        InputError: which one, what was found and what is expected.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature is {temperature}, expected 0 (greedy) or more")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p}, expected more than 0 and at most 1")
