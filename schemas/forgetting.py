"""``forgotten`` and ``rewrites``: what must not come back, and which requests were made for which prompt."""

from __future__ import annotations

from typing import Final

import dataframely as dy

from schemas.columns import identifier, reference

__all__ = ["FORGOTTEN_KINDS", "Forgotten", "Rewrites"]

FORGOTTEN_KINDS: Final = ("prompt", "answer", "source", "text")


class Forgotten(dy.Schema):
    """What a person asked to be removed, by hashes alone: the next run turns it away where it meets it again."""

    fingerprint = identifier(description="hash of the kind and the identifier")
    kind = dy.String(check={"kind_known": lambda c: c.is_in(FORGOTTEN_KINDS)})
    reason = dy.String(nullable=True, description="as the person gave it")
    forgotten_at = dy.Datetime(time_unit="us", time_zone="UTC")


class Rewrites(dy.Schema):
    """Requests to rewrite a prompt or an answer: whose text is in them. Their replies are in ``generations``."""

    prompt_id = reference(primary_key=True)
    for_prompt = reference(primary_key=True)
