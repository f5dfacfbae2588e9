"""Stage ``hygiene``: rows whose prompt stands in an evaluation set, or nearly repeats another one, go.

It runs before anything is generated or scored. Equal prompts are not its business: they are one prompt. Duplicate
answers are dropped in ``candidates``, duplicate pairs in ``preference``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import polars as pl

from curation.hygiene.chosen_texts import choose_texts, target_texts
from curation.hygiene.contamination import EvaluationIndex, evaluation_texts
from curation.hygiene.duplicates import MEASURES, RULES
from curation.hygiene.evaluations import read_evaluations
from curation.recipe.hygiene import Contamination, Duplicates, PromptSelection
from curation.stages.context import Context, Stage, StageResult
from curation.stages.duplicates import naming_the_last, repeats, search_facts
from curation.stages.ledger_encoder import LedgerEncoder
from curation.stages.waterfall import write_waterfall
from curation.tables import rejects_frame
from curation.text_columns import message_texts
from schemas import TABLES

__all__ = ["STAGE", "evaluation_index", "kept_inputs", "prompted_inputs"]

_FOUND: Final = {
    "prompt_id": pl.String,
    "rule": pl.String,
    "matched": pl.String,
    "score": pl.Float64,
    "matched_text": pl.String,
    "threshold": pl.String,
    "reason": pl.String,
}


class _Found(NamedTuple):
    """What one comparison found: prompts that go, under the rules that it may give."""

    rules: tuple[str, ...]
    rows: pl.DataFrame
    """Columns of ``_FOUND``."""
    facts: dict[str, Any]


def run(context: Context) -> StageResult:
    inputs = context.workspace.read("inputs")
    prompts = _prompts(inputs)
    removed, waterfall, facts = [pl.DataFrame(schema=_FOUND)], [], dict[str, Any]()
    left = prompts
    for compare in _comparisons(context, inputs):
        found = compare(left)
        removed.append(found.rows)
        before = left.height
        left = left.join(found.rows, on="prompt_id", how="anti", maintain_order="left")
        counts = dict(found.rows["rule"].value_counts().iter_rows())
        for rule in found.rules:
            before -= counts.get(rule, 0)
            waterfall.append(("hygiene", rule, counts.get(rule, 0), before))
        facts |= found.facts
    rows = _rows(inputs, _named(pl.concat(removed), prompts))
    schema = {"stage": pl.String, "rule": pl.String, "removed": pl.Int64, "left": pl.Int64}
    write_waterfall(context, "hygiene", pl.DataFrame(waterfall, schema=schema, orient="row"))
    facts = {"prompts": prompts.height, "prompts dropped": prompts.height - left.height} | facts
    rejects = rejects_frame(
        rows,
        table="inputs",
        stage="hygiene",
        row_id=pl.col("input_id"),
        rule=pl.col("rule"),
        value=pl.concat_str("matched", pl.col("matched_text"), separator=": ", ignore_nulls=True),
        threshold=pl.col("threshold"),
        reason=pl.col("reason"),
    )
    table = rows.select(TABLES["hygiene"].column_names())
    return context.write("hygiene", "hygiene", table, rejects=rejects, facts=facts)


def kept_inputs(context: Context) -> pl.LazyFrame:
    """The rows of the sources that this stage left: what ``prompts`` are made from."""
    inputs = context.workspace.scan("inputs")
    if not context.recipe.hygiene.looks_at_sources:
        return inputs
    dropped = context.workspace.scan("hygiene").select("input_id")
    return inputs.join(dropped, on="input_id", how="anti", maintain_order="left")


def prompted_inputs(context: Context) -> pl.LazyFrame:
    """The rows of the sources whose prompt is in ``prompts``: what is read once that table is there."""
    prompts = context.workspace.scan("prompts").select("prompt_id")
    return kept_inputs(context).join(prompts, on="prompt_id", how="semi", maintain_order="left")


def evaluation_index(context: Context, options: Contamination) -> EvaluationIndex:
    """The recipe's evaluation sets, ready to be compared with.

    Raises:
        InputError: when one cannot be read, or has no text.
    """
    return EvaluationIndex(
        read_evaluations(options.against),
        column=options.column,
        n=options.ngram,
        min_overlap=options.min_overlap,
        max_rows=options.max_rows,
        similarity=options.similarity,
        encoder="embedded" if options.similarity is None else LedgerEncoder(context),
    )


def _prompts(inputs: pl.DataFrame) -> pl.DataFrame:
    """Each prompt once, where it stands first: prompt_id, input_id, text."""
    first = inputs.select("prompt_id", "input_id", "messages").unique(
        "prompt_id", keep="first", maintain_order=True
    )
    return first.select("prompt_id", "input_id").with_columns(text=message_texts(first["messages"]))


def _comparisons(context: Context, inputs: pl.DataFrame) -> Iterator[Callable[[pl.DataFrame], _Found]]:
    """Evaluation sets first, so that no row that is kept in place of another is contaminated itself."""
    hygiene = context.recipe.hygiene
    if hygiene.contamination is not None:
        yield partial(_contaminated, context, hygiene.contamination, inputs)
    for options in hygiene.prompts:
        yield partial(_duplicated, context, options)
    if hygiene.select is not None:
        yield partial(_unselected, context, hygiene.select)


def _contaminated(context: Context, options: Contamination, inputs: pl.DataFrame, prompts: pl.DataFrame) -> _Found:
    index = evaluation_index(context, options)
    texts = [prompts.select("prompt_id", "text")] if "prompt" in options.check else []
    if "responses" in options.check:
        own = inputs.join(prompts, on="prompt_id", how="semi", maintain_order="left")
        answers = own.select("prompt_id", text="responses").explode("text").drop_nulls("text")
        texts.append(answers)
    compared = pl.concat(texts)
    matches = index.matches(compared["text"])
    is_gram = pl.col("rule") == "evaluation_ngram"
    measure = pl.when(is_gram).then(pl.lit("n-grams shared")).otherwise(pl.lit("cosine"))
    gram_limit, limit = str(options.min_overlap), str(options.similarity)
    rows = (
        matches.with_columns(prompt_id=compared["prompt_id"].gather(matches["position"]))
        .with_columns(first=pl.col("position").min().over("prompt_id"))
        # Of a prompt and its answers, the one that is closest; words in common before what only lies near.
        .sort(is_gram, "score", "position", descending=[True, True, False])
        .unique("prompt_id", keep="first", maintain_order=True)
        .sort("first")
        .select(
            "prompt_id",
            "rule",
            matched=pl.format("{}:{}", "set", "set_row"),
            score="score",
            matched_text="text",
            threshold=pl.when(is_gram).then(pl.lit(gram_limit)).otherwise(pl.lit(limit)),
            reason=pl.format("matches row {} of {} ({} {})", "set_row", "set", measure, pl.col("score").round(4)),
        )
    )
    rules = ("evaluation_ngram", *(("evaluation_neighbour",) if options.similarity is not None else ()))
    sizes = ", ".join(f"{name}: {size} words" for name, size in index.sizes.items())
    facts = {"evaluation n-grams": sizes, "evaluation n-grams left out as templates": sum(index.templates.values())}
    if unread := sum(index.without_text.values()):
        facts["evaluation rows without text"] = unread
    return _Found(rules, rows, facts)


def _duplicated(context: Context, options: Duplicates, prompts: pl.DataFrame) -> _Found:
    names, others = _other_texts(options.against)
    found = repeats(context, prompts.select("text"), options, against=others)
    gone = found.rows
    own = prompts["input_id"].gather(gone["row"].to_list())
    foreign = gone["value"].str.starts_with("against ")
    kept = [
        names[at] if other else prompts["input_id"][at]
        for at, other in zip(gone["duplicate_of"].to_list(), foreign.to_list(), strict=True)
    ]
    firsts = prompts.select("prompt_id", "input_id")
    rows = (
        pl.DataFrame({"input_id": own, "matched": pl.Series(kept, dtype=pl.String), "score": gone["similarity"]})
        .join(firsts, on="input_id", maintain_order="left")
        .select(
            "prompt_id",
            rule=pl.lit(f"{RULES[options.method]}_prompt"),
            matched="matched",
            score="score",
            matched_text=pl.lit(None, dtype=pl.String),
            threshold=pl.lit(str(found.threshold)),
            reason=pl.format(
                "the prompt duplicates that of {}, which stays ({} {})",
                "matched",
                pl.lit(MEASURES[options.method]),
                pl.col("score").round(4),
            ),
        )
    )
    return _Found((f"{RULES[options.method]}_prompt",), rows, search_facts(found, f"{options.method} duplicates"))


def _unselected(context: Context, options: PromptSelection, prompts: pl.DataFrame) -> _Found:
    texts = prompts["text"].to_list()
    chosen = choose_texts(
        texts,
        method=options.method,
        count=options.wanted(len(texts)),
        target=() if options.target is None else target_texts(options.target),
        encoder=LedgerEncoder(context),
        seed=context.recipe.seed,
    )
    own = prompts[chosen.left_out]
    stays = f"{prompts.height - own.height} of {prompts.height}"
    near = None if chosen.nearest is None else prompts["input_id"].gather(chosen.nearest)
    rows = own.select(
        "prompt_id",
        rule=pl.lit("not_selected"),
        matched=pl.lit(f"{options.method}: {stays}") if near is None else near.alias("matched"),
        score=pl.Series(chosen.score, dtype=pl.Float64),
        matched_text=pl.lit(None, dtype=pl.String),
        threshold=pl.lit(stays),
    ).with_columns(
        reason=pl.format(
            f"{options.method} chose {stays} prompts, and not this one ({{}}{chosen.measure} {{}})",
            pl.lit("") if near is None else pl.format("nearest chosen {}, ", "matched"),
            pl.col("score").round(4),
        )
    )
    return _Found(("not_selected",), rows.select(*_FOUND), {f"prompts not chosen by {options.method}": own.height})


def _named(found: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """What was found, each duplicate naming a prompt that no later step lets go, or why that one went."""
    rows = found.join(prompts.select("prompt_id", own="input_id"), on="prompt_id", maintain_order="left")
    chosen = pl.col("rule") != "not_selected"
    repeated = naming_the_last(rows.filter(chosen), own="own", kept="matched")
    left_out = rows.filter(~chosen)
    gone = pl.col("matched").is_in(left_out["own"].implode())
    said = pl.col("reason").str.replace(r" (which )?stays \(", " ${1}was then not selected (")
    repeated = repeated.with_columns(pl.when(gone).then(said).otherwise("reason").alias("reason"))
    return pl.concat([repeated, left_out]).select(*_FOUND)


def _other_texts(paths: Sequence[str]) -> tuple[list[str], pl.DataFrame | None]:
    """The prompts of other files, and how each is called: '<file>:<row>'."""
    if not paths:
        return [], None
    frames = []
    for name, rows in read_evaluations(paths).items():
        texts = evaluation_texts(rows, "prompt", name=name)
        frames.append(texts.select(name=pl.format("{}:{}", pl.lit(name), "row"), text="text"))
    joined = pl.concat(frames)
    return joined["name"].to_list(), joined.select("text")


def _rows(inputs: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Every input row of the prompts that go, with why."""
    rows = inputs.select("input_id", "prompt_id")
    return found.join(rows, on="prompt_id", how="inner", maintain_order="left_right")


STAGE = Stage(
    name="hygiene",
    group="sources",
    description="Rows whose prompt stands in an evaluation set, or nearly repeats another one: what they match.",
    needs=("inputs",),
    run=run,
    table="hygiene",
    version=3,
    enabled=lambda recipe: recipe.hygiene.looks_at_sources,
    uses_model=True,
)
