"""Template answers: refusals, and "I don't know" for what a model is to forget.

For forget-sets the template is the chosen answer and the answer to be forgotten the rejected one (FLAT, Wang et al.
2024; NPO, Zhang et al. 2024). Who gets which is :mod:`curation.pairs.constructed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import polars as pl
import yaml

from curation.candidates.draws import uniform_draws
from curation.errors import InputError

__all__ = ["bundled_templates", "template_answers"]


@cache
def bundled_templates(kind: str) -> tuple[str, ...]:
    """Our own templates of a kind: ``refusal`` or ``forget``."""
    found = yaml.safe_load(files("curation.candidates").joinpath("templates.yaml").read_text(encoding="utf-8"))
    return tuple(found[kind])


def template_answers(prompt_ids: pl.Series, *, templates: Sequence[str], seed: int = 0) -> pl.DataFrame:
    """One template for each prompt, drawn by its identifier: ``prompt_id``, ``response``.

    Raises:
        InputError: when there is no template, or one is blank.
    """
    if not templates or any(not text.strip() for text in templates):
        raise InputError("template answers: expected at least one template, and none of them blank")
    drawn = (uniform_draws(prompt_ids, seed=seed, salt="template") * len(templates)).astype(int)
    texts = pl.Series("response", templates, dtype=pl.String)
    return pl.DataFrame([prompt_ids.alias("prompt_id"), texts.gather(drawn)])
