"""The side of every prompt: what hangs together stays together, and nothing moves from run to run.

The stage ``prompts`` calls it last. How groups are found and placed is in ``curation.hygiene``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import polars as pl

from curation.hygiene.split_groups import split_groups
from curation.hygiene.splits import assign_splits
from curation.stages.context import Context
from curation.tables import concat_rejects, rejects_frame
from curation.text import canonical_json, content_hash
from curation.text_columns import message_texts

__all__ = ["SplitPrompts", "split_prompts"]


_CROSSING: Final = {"text": pl.Int64, "near": pl.Int64, "similarity": pl.Float64}


class SplitPrompts(NamedTuple):
    """Prompts with ``group_id``, ``split`` and ``split_plan``."""

    prompts: pl.DataFrame
    rejects: pl.DataFrame
    """Prompts that would be on two sides."""
    facts: dict[str, Any]


def split_prompts(context: Context, prompts: pl.DataFrame) -> SplitPrompts:
    """Gives every prompt its split; one that has a split under the same plan keeps it.

    Args:
        prompts: prompt_id, messages, family_id, category, and whatever else; in any order.
    """
    splits, seed = context.recipe.splits, context.recipe.seed
    fractions = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    settings = {"seed": seed, "near": splits.near_duplicates, "stratify": splits.stratify} | fractions
    plan = content_hash("split plan", canonical_json(settings))
    prompts = prompts.join(_given(context, plan), on="prompt_id", how="left", maintain_order="left")
    groups = split_groups(
        message_texts(prompts["messages"]),
        families=prompts["family_id"].to_list(),
        sides=prompts["given"].to_list(),
        threshold=splits.near_duplicates,
        seed=seed,
        keys=context.band_keys,
    )
    prompts = prompts.with_columns(group=pl.Series(groups.labels, dtype=pl.Int64))
    crossing = pl.DataFrame(groups.crossing, schema=_CROSSING, orient="row")
    kept = prompts.with_row_index("at").filter(~pl.col("at").is_in(crossing["text"].implode())).drop("at")
    kept = kept.with_columns(group_id=pl.col("prompt_id").min().over("group"))
    kept = assign_splits(
        kept,
        fractions=fractions,
        seed=seed,
        group_columns=["group_id"],
        stratify=splits.stratify,
        previous="given",
    )
    sizes = kept.group_by("group_id").len()["len"]
    facts: dict[str, Any] = {f"in {name}": n for name, n in kept["split"].value_counts(sort=True).iter_rows()}
    # Few prompts, or few groups, may leave a split without any: that is said, and not passed over.
    facts |= {f"in {name}": 0 for name, share in fractions.items() if share > 0 and f"in {name}" not in facts}
    facts["groups of several prompts"] = int((sizes > 1).sum())
    facts["prompts in the largest group"] = int(sizes.max() or 0)  # type: ignore[arg-type]
    rejects = _crossing_rejects(context, prompts, crossing, threshold=splits.near_duplicates)
    kept = kept.drop("group", "given").with_columns(split_plan=pl.lit(plan))
    return SplitPrompts(kept, rejects, facts)


def _given(context: Context, plan: str) -> pl.DataFrame:
    """The splits that prompts were given before, under the same plan: prompt_id, given."""
    before = context.workspace.scan("prompts")
    if "split_plan" not in before.collect_schema():
        return pl.DataFrame(schema={"prompt_id": pl.String, "given": pl.String})
    return before.filter(pl.col("split_plan") == plan).select("prompt_id", given="split").collect()


def _crossing_rejects(
    context: Context, prompts: pl.DataFrame, crossing: pl.DataFrame, *, threshold: float | None
) -> pl.DataFrame:
    """The rows of the sources that brought the prompts; the prompt itself where none did."""
    ids = prompts["prompt_id"]
    found = crossing.select(
        ids.gather(crossing["text"]).alias("prompt_id"),
        ids.gather(crossing["near"]).alias("other"),
        "similarity",
    )
    inputs = context.workspace.scan("inputs").select("input_id", "prompt_id").collect()
    rows = found.join(inputs, on="prompt_id", how="left", maintain_order="left")
    reason = pl.format(
        "its prompt nearly repeats prompts that are in different splits already, {} among them (Jaccard {}): on "
        "either side it would leak",
        "other",
        pl.col("similarity").round(4),
    )
    made = pl.col("input_id").is_null()
    return concat_rejects(
        *(
            rejects_frame(
                rows.filter(made if table == "prompts" else ~made),
                table=table,
                stage="prompts",
                row_id=pl.col(key),
                rule="crosses_splits",
                value=pl.col("other"),
                threshold=str(threshold),
                reason=reason,
            )
            for table, key in (("inputs", "input_id"), ("prompts", "prompt_id"))
        )
    )
