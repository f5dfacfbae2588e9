"""``hygiene``: the rows of the sources that duplicate another one or stand in an evaluation set."""

from __future__ import annotations

import dataframely as dy

from schemas.columns import reference

__all__ = ["Hygiene"]


class Hygiene(dy.Schema):
    """One row a dropped row of a source, with what it matches."""

    input_id = dy.String(primary_key=True)
    prompt_id = reference()
    rule = dy.String(min_length=1)
    matched = dy.String(
        min_length=1,
        description="the input row that was kept, '<file>:<row>' of another file, '<set>:<row>', or, where no "
        "prompt is near, the selection that did not choose it",
    )
    score = dy.Float64(
        description="Jaccard index or cosine with the row that it was compared with (where a later step dropped "
        "that one, the reason names both), the greatest share of an evaluation row's n-grams, or what the "
        "selection went by"
    )
    matched_text = dy.String(nullable=True, description="the words shared with the evaluation set")
