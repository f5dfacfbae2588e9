"""Who labelled each pair and how people voted on it, from the sources; and what the report says of them.

No stage is here, and no label is judged: that is ``curation.scores``.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from curation.scores.label_noise import LabelNoise
from curation.stages.context import Context
from curation.tables import validated
from schemas import TABLES

__all__ = ["keep_voters", "pairs_people", "voter_facts"]

_OTHER_WAY: Final = {"chosen": "rejected", "rejected": "chosen"}
_SHOWN: Final = 10


def pairs_people(context: Context, pairs: pl.DataFrame) -> pl.DataFrame:
    """``annotator`` and ``votes`` row by row beside ``pairs`` (prompt_id, chosen_id, rejected_id).

    Rows of the sources about the same two answers are taken together. Votes of a row that prefers the other answer
    are turned round; its annotator gave another label, and is left out. Of several annotators of one label the
    first is taken.
    """
    inputs = context.workspace.scan("inputs")
    names = inputs.collect_schema().names()
    said = [name for name in ("annotator", "votes") if name in names]
    empty: dict[str, Any] = {"annotator": pl.String, "votes": TABLES["inputs"].create_empty().schema["votes"]}
    if not said:
        nothing = {name: pl.lit(None, dtype=kind) for name, kind in empty.items()}
        return pairs.with_columns(**nothing).select(*empty)
    rows = (
        inputs.filter(pl.col("kind") == "pair", pl.any_horizontal(pl.col(*said).is_not_null()))
        .select(
            "prompt_id",
            *(pl.col("candidate_ids").list.get(pl.col(f"{side}_index")).alias(f"{side}_id") for side in _OTHER_WAY),
            *(
                pl.col(name) if name in said else pl.lit(None, dtype=kind).alias(name)
                for name, kind in empty.items()
            ),
        )
        .collect()
    )
    turned = rows.select(
        "prompt_id",
        chosen_id="rejected_id",
        rejected_id="chosen_id",
        annotator=pl.lit(None, dtype=pl.String),
        votes=pl.col("votes").list.eval(
            pl.struct(
                pl.element().struct["voter"], vote=pl.element().struct["vote"].replace(_OTHER_WAY).alias("vote")
            )
        ),
    )
    key = ["prompt_id", "chosen_id", "rejected_id"]
    known = (
        pl.concat([rows, turned])
        .group_by(key, maintain_order=True)
        .agg(
            pl.col("annotator").drop_nulls().first(),
            pl.col("votes").drop_nulls().list.explode(keep_nulls=False, empty_as_null=False),
        )
        .with_columns(pl.when(pl.col("votes").list.len() > 0).then("votes"))
    )
    return pairs.select(key).join(known, on=key, how="left", maintain_order="left").select("annotator", "votes")


def keep_voters(context: Context, result: LabelNoise | None) -> None:
    """Write table ``voters``."""
    empty = pl.DataFrame(TABLES["voters"].create_empty())
    if result is None:
        frame = empty
    else:
        annotators = result.annotators.select(
            name="annotator", labels="rows", reliability="right_share", median_loss="median_loss"
        ).with_columns(kind=pl.lit("annotator"))
        is_model = pl.col("voter").str.contains(r"^reward model \d+$")
        voters = result.voters.select(
            name="voter", labels="votes", reliability="reliability", median_loss=pl.lit(None, dtype=pl.Float64),
            kind=pl.when(is_model).then(pl.lit("reward model")).otherwise(pl.lit("voter")),
        )  # fmt: skip
        frame = pl.concat([part.select(empty.columns).cast(empty.schema) for part in (annotators, voters)])
        frame = frame.unique(["kind", "name"], keep="first").sort("kind", "reliability", "name")
    context.workspace.overwrite("voters", validated("voters", frame, stage="pair_labels").kept)


def voter_facts(context: Context) -> dict[str, str]:
    """For the report: the people, the least reliable first."""
    if context.recipe.label_noise is None:
        return {}
    voters = context.workspace.read("voters")
    facts = {}
    for kind, meaning in (("annotator", "share of right labels"), ("voter", "share of right votes")):
        mine = voters.filter(pl.col("kind") == kind).sort("reliability", "name")
        if mine.is_empty():
            continue
        named = mine.head(_SHOWN).select("name", "reliability", "labels").iter_rows()
        said = ", ".join(f"{name} {share:.2f} of {labels:,}" for name, share, labels in named)
        more = f", and {mine.height - _SHOWN:,} more in table voters" if mine.height > _SHOWN else ""
        facts[f"{kind}s ({meaning}, least reliable first)"] = said + more
    return facts
