"""Stage ``mutations``: prompts made from the prompts of the sources, by rules and by a chat model.

How a text is mutated is in ``curation.prompts.mutations``; ``prompts`` takes the result in.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from curation.candidates.rewriting import check_rewrites, rewrite_request
from curation.ledger import FORGOTTEN
from curation.prompts.mutations import MODEL_MUTATIONS, RULE_MUTATIONS, mutate
from curation.recipe.candidates import Mutations
from curation.refusals.detection import detect_refusals
from curation.stages.answer_checks import checked_answers
from curation.stages.context import Context, Stage, StageResult
from curation.stages.forgotten import Forgotten
from curation.stages.hygiene import kept_inputs
from curation.stages.rewritten import rewritten
from curation.stages.source_prompts import source_prompts
from curation.tables import concat_rejects, rejects_frame
from curation.text import Message, content_hash, prompt_id
from schemas import TABLES

__all__ = ["STAGE"]

_STAGE: Final = "mutations"
_LONGEST: Final = 6
_LONGEST_SPARE: Final = 600
"""A rewritten request is at most so many times as long, and so many characters; longer ones are answers."""
_OPENING: Final = (
    r"(?i)^\W*(?:unfortunately,? )?(?:i(?:['’]?m| am)(?: very| so| truly)? sorry|sorry\b|i (?:must )?apologi[sz]e"
    r"|i (?:can['’]?t|cannot|can not|won['’]?t|will not)\b|i (?:must|have to|need to) (?:decline|refuse)\b"
    r"|i(?:['’]?m| am) (?:unable|not able|not comfortable|not going)\b|as an ai\b|(?:je suis )?désolée?\b"
    r"|je ne (?:peux|suis)\b|je dois (?:refuser|décliner)\b|(?:很)?抱歉|对不起|我(?:无法|不能))"
)
"""How a refusal to rewrite begins: in English, or in French and Chinese, which are translated into."""


def run(context: Context) -> StageResult:
    options = context.recipe.mutations
    assert options is not None
    parents = source_prompts(context)
    if options.sources:
        brought = kept_inputs(context).filter(pl.col("source").is_in(list(options.sources)))
        theirs = brought.select("prompt_id").collect()["prompt_id"].unique()
        parents = parents.filter(pl.col("prompt_id").is_in(theirs.implode()))
    wanted = _wanted(parents, options, context.recipe.seed)
    ruled = wanted.filter(pl.col("mutation").is_in(list(RULE_MUTATIONS)))
    texts = [
        mutate(text, kind, seed=context.recipe.seed) for text, kind in ruled.select("text", "mutation").iter_rows()
    ]
    nothing = [pl.lit(None, dtype=t).alias(c) for c, t in (("generator", pl.String), ("cost", pl.Float64))]
    by_rule = ruled.with_columns(pl.Series("response", texts, dtype=pl.String), *nothing)
    by_model, rejects = _by_model(context, wanted.filter(pl.col("mutation").is_in(list(MODEL_MUTATIONS))), options)
    columns = [*wanted.columns, "response", "generator", "cost"]
    made = pl.concat([by_rule.drop_nulls("response").select(columns), by_model.select(columns)])
    impossible = rejects_frame(
        by_rule.filter(pl.col("response").is_null()), table=_STAGE, stage=_STAGE, row_id=pl.col("item_id"),
        rule="no_such_form", reason=pl.format("the rules cannot put the prompt into the form {}", "mutation"),
    )  # fmt: skip
    frame, unused = _distinct(_as_prompts(made, parents))
    gone = Forgotten(context.workspace).has("prompt", frame["prompt_id"])
    forgotten = _unused(frame.filter(gone), FORGOTTEN, "it was removed with `curation forget`, and stays away")
    frame = frame.filter(~gone)
    facts: dict[str, Any] = dict(frame["mutation"].value_counts(sort=True).iter_rows())
    rejects = concat_rejects(_without_user(parents), impossible, rejects, unused, forgotten)
    return context.write(_STAGE, _STAGE, frame, rejects=rejects, facts=facts)


def _wanted(parents: pl.DataFrame, options: Mutations, seed: int) -> pl.DataFrame:
    """Each prompt with each kind that it gets: parent_id, mutation, item_id, text (of its last user turn)."""
    rows = []
    asked = parents.filter(_ends_with_user()).select("prompt_id", "messages")
    for name, messages in asked.iter_rows():
        kinds = sorted(options.kinds, key=lambda kind: content_hash("mutation", str(seed), name, kind))
        rows += [(name, kind, f"{name} {kind}", messages[-1]["content"]) for kind in kinds[: options.per_prompt]]
    schema = dict.fromkeys(("parent_id", "mutation", "item_id", "text"), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row").sort("parent_id", "mutation")


def _by_model(context: Context, wanted: pl.DataFrame, options: Mutations) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the chat model made of the prompts, and as rejects what it did not."""
    if wanted.is_empty():
        columns = {"response": pl.String, "generator": pl.String, "cost": pl.Float64}
        return wanted.with_columns(pl.lit(None, dtype=t).alias(c) for c, t in columns.items()), concat_rejects()
    assert options.model is not None
    asked: list[list[Message]] = [
        rewrite_request(MODEL_MUTATIONS[kind], {"Request": text})
        for kind, text in wanted.select("mutation", "text").iter_rows()
    ]
    items = wanted.with_columns(prompt_id="parent_id")
    replies, failed = rewritten(context, options.model, items, asked, table=_STAGE, stage=_STAGE)
    prompts = source_prompts(context).select("prompt_id", "messages")
    sound, unsound = checked_answers(context, replies, prompts, model=options.model, row_id="item_id", stage=_STAGE)
    checked = check_rewrites(
        sound.with_columns(before=pl.col("text"), after=pl.col("response")), min_similarity=0.0
    )
    long = pl.col("after").str.len_chars() > _LONGEST * pl.col("before").str.len_chars() + _LONGEST_SPARE
    checked = checked.with_columns(
        rule=pl.coalesce("rule", pl.when(long).then(pl.lit("rewrite_too_long"))),
        reason=pl.coalesce("reason", pl.when(long).then(pl.lit("the model wrote far more than a request"))),
    )
    checked = _without_refusals(checked)
    unfit = rejects_frame(
        checked.drop_nulls("rule"), table=_STAGE, stage=_STAGE, row_id=pl.col("item_id"), rule=pl.col("rule"),
        value=pl.col("value"), reason=pl.col("reason"),
    )  # fmt: skip
    rejects = concat_rejects(failed, unsound.with_columns(table=pl.lit(_STAGE)), unfit)
    return checked.filter(pl.col("rule").is_null()), rejects


def _without_refusals(checked: pl.DataFrame) -> pl.DataFrame:
    """``rewrite_refused`` where the model would not rewrite a request: what it said instead is no request.

    It begins as refusals do, and the bundled detector takes it for one. Neither is enough: the detector knows
    answers, and takes "As a doctor, I need to know" for one, too; and a request may begin "I can't sleep".
    """
    fit = checked.filter(pl.col("rule").is_null()).select("item_id", "before", "after")
    opens = fit.filter(pl.col("after").str.contains(_OPENING) & ~pl.col("before").str.contains(_OPENING))
    if opens.is_empty():
        return checked
    told = detect_refusals(opens, response="after", prompt=None).filter(pl.col("refusal_class") != "compliance")
    refused = pl.col("item_id").is_in(told["item_id"].implode())
    return checked.with_columns(
        rule=pl.coalesce("rule", pl.when(refused).then(pl.lit("rewrite_refused"))),
        reason=pl.coalesce("reason", pl.when(refused).then(pl.lit("the model refused to rewrite the request"))),
    )


def _as_prompts(made: pl.DataFrame, parents: pl.DataFrame) -> pl.DataFrame:
    """Rows of table ``mutations``."""
    known = parents.select("messages", "source", "category", "expected_behaviour", parent_id="prompt_id")
    rows = made.join(known, on="parent_id", how="left", maintain_order="left")
    messages = [_with_text(m, t) for m, t in rows.select("messages", "response").iter_rows()]
    ids = [prompt_id(m) for m in messages]
    kind = TABLES["mutations"].create_empty().schema["messages"]
    rows = rows.with_columns(
        pl.Series("messages", messages, dtype=kind), pl.Series("prompt_id", ids, dtype=pl.String)
    )
    return rows.select(TABLES["mutations"].column_names())


def _distinct(made: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each mutated prompt of a parent once, and as rejects what another mutation made and what was not changed."""
    same = pl.col("prompt_id") == pl.col("parent_id")
    changed, once = made.filter(~same), pl.struct("prompt_id", "parent_id").is_first_distinct()
    unchanged = _unused(made.filter(same), "mutation_unchanged", "the mutation left the prompt as it was")
    repeated = _unused(changed.filter(~once), "made_twice", "another mutation of the prompt gave the same text")
    return changed.filter(once), concat_rejects(unchanged, repeated)


def _unused(frame: pl.DataFrame, rule: str, reason: str) -> pl.DataFrame:
    row_id = pl.concat_str("parent_id", pl.lit(" "), "mutation")
    return rejects_frame(frame, table=_STAGE, stage=_STAGE, row_id=row_id, rule=rule, reason=reason)


def _without_user(parents: pl.DataFrame) -> pl.DataFrame:
    reason = "the last turn of the prompt is not the user's, so there is nothing to mutate"
    silent = parents.filter(~_ends_with_user())
    return rejects_frame(
        silent, table=_STAGE, stage=_STAGE, row_id=pl.col("prompt_id"), rule="no_user_turn", reason=reason
    )


def _ends_with_user() -> pl.Expr:
    return pl.col("messages").list.last().struct.field("role") == "user"


def _with_text(messages: list[Message], text: str) -> list[Message]:
    return [*messages[:-1], {"role": "user", "content": text}]


STAGE = Stage(
    name=_STAGE,
    group="sources",
    description="Prompts made from the sources' prompts: other tenses, ciphers, styles, persuasion, languages.",
    needs=("inputs", "hygiene"),
    run=run,
    table=_STAGE,
    version=3,
    enabled=lambda recipe: recipe.mutations is not None,
    uses_model=True,
)
