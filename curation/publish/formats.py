"""The frames that are published, in the forms that trainers read without a mapping.

Tables in, frames out: writing them is in ``curation.publish.writing``, refusing them in ``gates``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.tables import rejects_frame
from schemas import TABLES

__all__ = [
    "Built",
    "TrainerView",
    "preference_frame",
    "preference_unpaired_frame",
    "retrieval_frame",
    "strength_column",
    "trainer_view",
]

_STAGE: Final = "publish"
_MIXED_PAIRS: Final = 250
_RENAMED: Final = {"chosen_logp": "ref_chosen_logps", "rejected_logp": "ref_rejected_logps"}
_WITHOUT_HOLES: Final = ("margin", *_RENAMED.values())
_TEXT_OF_RETRIEVAL: Final = re.compile(r"anchor|positive|negative(_\d+)?|split")


class Built(NamedTuple):
    """A dataset's rows, and the rows that could not be part of it."""

    frame: pl.DataFrame
    rejects: pl.DataFrame


class TrainerView(NamedTuple):
    """The columns of a dataset that go into its files."""

    frame: pl.DataFrame
    """Columns that trainers read, ``split``, and evidence that does not disturb them."""
    evidence: pl.DataFrame | None
    """Columns that trainers would take for inputs, row by row beside ``frame``; None where there are none."""
    left_out: tuple[str, ...]
    """Columns that trainers would read but which lack values in some rows."""


def preference_frame(
    *, pairs: pl.DataFrame, prompts: pl.DataFrame, candidates: pl.DataFrame, pair_scores: pl.DataFrame
) -> pl.DataFrame:
    """The rows of ``preference``: TRL's explicit conversational form, and every score as a further column.

    ``source`` is that of the pair, where ``pairs`` has the column, else the prompt's.
    ``margin`` is the mean reward margin (``strength_mean``), or where no pair has one the difference of the
    sources' own scores; ``ref_chosen_logps`` and
    ``ref_rejected_logps`` are the policy's summed log-probabilities, in nats. Scores that are not finite
    become null. Rows keep the order of ``pairs``.

    Raises:
        InputError: when a pair's prompt or candidate is not in the tables.
    """
    own = ["source"] if "source" in pairs.columns else []
    known = prompts.select("prompt_id", "source", "category", "split", prompt="messages").drop(own)
    joined = (
        pairs.lazy()
        .select("pair_id", "prompt_id", "chosen_id", "rejected_id", "strategy", *own, _built=_built_margin(pairs))
        .join(known.lazy(), on="prompt_id", how="left", maintain_order="left")
        .join(_answers(candidates, "chosen"), on="chosen_id", how="left", maintain_order="left")
        .join(_answers(candidates, "rejected"), on="rejected_id", how="left", maintain_order="left")
        .join(pair_scores.lazy(), on="pair_id", how="left", maintain_order="left")
        .with_columns(pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64)))
        .with_columns(margin=_margin(pair_scores))
        .drop("_built")
        .rename(_RENAMED)
        .collect()
    )
    _no_holes(joined, ("prompt", "chosen", "rejected"), key="pair_id", table="pairs")
    first = TABLES["preference"].column_names()
    rest = [c for c in joined.columns if c not in first and c not in ("chosen_id", "rejected_id", "target_margin")]
    return joined.select(*first, *rest)


def strength_column(preference: pl.DataFrame) -> str:
    """What tells the better of two rows of ``preference``: a recipe may ask for other margins than the strength."""
    known = "strength_mean" in preference.columns and preference["strength_mean"].count()
    return "strength_mean" if known else "margin"


def preference_unpaired_frame(
    *, pairs: pl.DataFrame, prompts: pl.DataFrame, candidates: pl.DataFrame, in_order: bool = False
) -> Built:
    """The rows of ``preference_unpaired`` (KTO): each chosen answer as good, each rejected one as bad.

    An answer that is chosen in one pair and rejected in another says nothing about being good: it goes to
    the rejects under ``chosen_and_rejected``. Where pairs
    have ``label_smoothing`` and ``weight``, an answer has those of the pair whose label is the surest.

    Rows are mixed, by their ids: KTO trainers take them as they lie, and estimate the KL term from each prompt with
    the completion of the row before, which has to be an answer to another prompt (Ethayarajh et al. 2024, §4.1).

    Args:
        pairs, prompts, candidates: the tables.
        in_order: keep to the order of ``pairs`` all the same, and mix runs of 250 of them only.
    """
    surest = {"label_smoothing": pl.col("label_smoothing").min(), "weight": pl.col("weight").max()}
    decided = [name for name in surest if name in pairs.columns]
    sides = pl.concat(
        pairs.with_row_index("__row").select(
            "__row", "prompt_id", *decided, candidate_id=f"{side}_id", label=pl.lit(side == "chosen")
        )
        for side in ("chosen", "rejected")
    )
    labels = pl.col("label").n_unique().over("candidate_id")
    both = sides.filter(labels > 1).unique("candidate_id", keep="first", maintain_order=True)
    answers = candidates.lazy().select("candidate_id", completion=_assistant("response"))
    frame = (
        sides.lazy()
        .filter(labels == 1)
        .with_columns(surest[name].over("candidate_id") for name in decided)
        .unique("candidate_id", keep="first", maintain_order=True)
        .join(prompts.lazy().select("prompt_id", "split", prompt="messages"), on="prompt_id", how="left")
        .join(answers, on="candidate_id", how="left")
        .sort(pl.col("__row") // _MIXED_PAIRS if in_order else pl.lit(0), "candidate_id")
        .collect()
    )
    _no_holes(frame, ("prompt", "completion"), key="candidate_id", table="pairs")
    rejects = rejects_frame(
        both,
        table="preference_unpaired",
        stage=_STAGE,
        row_id=pl.col("candidate_id"),
        rule="chosen_and_rejected",
        reason="the answer is chosen in one pair and rejected in another",
    )
    return Built(frame.select(*TABLES["preference_unpaired"].column_names(), *decided), rejects)


def retrieval_frame(mined: pl.DataFrame, *, num_negatives: int) -> Built:
    """The rows of ``retrieval``: sentence-transformers' n-tuples.

    Args:
        mined: ``anchor_id``, ``positive_id``, ``anchor``, ``positive``, ``split`` and ``negatives`` (a
            list of texts, nearest first); further columns are kept as evidence.
        num_negatives: how many of them a row gets; a row with fewer goes to the rejects under
            ``too_few_negatives``, since a tuple has no gaps.
    """
    if num_negatives < 1:
        raise InputError(f"num_negatives is {num_negatives}, expected at least 1")
    known = ("anchor_id", "positive_id", "anchor", "positive", "split", "negatives")
    found = pl.col("negatives").list.len().fill_null(0)
    frame = mined.filter(found >= num_negatives).select(
        "anchor_id",
        "positive_id",
        "anchor",
        "positive",
        *(pl.col("negatives").list.get(i).alias(f"negative_{i + 1}") for i in range(num_negatives)),
        "split",
        *(c for c in mined.columns if c not in known),
    )
    rejects = rejects_frame(
        mined.filter(found < num_negatives).unique(["anchor_id", "positive_id"], maintain_order=True),
        table="retrieval",
        stage=_STAGE,
        row_id=pl.concat_str("anchor_id", "positive_id", separator=" "),
        rule="too_few_negatives",
        value=found,
        threshold=str(num_negatives),
        reason="fewer negatives survived the filters than a row needs",
    )
    return Built(frame, rejects)


def trainer_view(dataset: str, frame: pl.DataFrame, *, reference_logps: bool = True) -> TrainerView:
    """What of a dataset's rows goes into the files that trainers load.

    TRL reads ``margin`` and the reference log-probabilities of a preference row when they are there, and
    fails on a null among them: with a hole, such a column is left out, or goes by the name that it has in
    ``pair_scores``. sentence-transformers takes every column of a retrieval row for a text, so only texts
    stay and the rest becomes evidence. TRL learns every token of ``messages``, also what the user says, but of
    ``prompt`` and ``completion`` the latter only: rows of ``refusal`` get both.

    Args:
        dataset, frame: its name and rows.
        reference_logps: false gives the log-probabilities by the names that no trainer reads.
    """
    if dataset.startswith("retrieval"):
        texts = [c for c in frame.columns if _TEXT_OF_RETRIEVAL.fullmatch(c)]
        rest = [c for c in frame.columns if c not in texts]
        return TrainerView(frame.select(texts), frame.select(rest) if rest else None, ())
    if dataset == "refusal":
        said = pl.col("messages").list
        frame = frame.with_columns(prompt=said.head(said.len() - 1), completion=said.tail(1))
    holes = [c for c in _WITHOUT_HOLES if c in frame.columns and frame[c].null_count() > 0]
    empty = [c for c in frame.columns if 0 < frame.height == frame[c].null_count()]
    unread = [c for c in _RENAMED.values() if c in holes or (c in frame.columns and not reference_logps)]
    back = {new: old for old, new in _RENAMED.items() if new in unread and new not in empty}
    kept = frame.drop(c for c in frame.columns if c in empty or (c in holes and c not in back))
    return TrainerView(kept.rename(back), None, tuple(holes))


def _built_margin(pairs: pl.DataFrame) -> pl.Expr:
    """The difference of the scores that a pair was built by, where there is one."""
    return pl.col("margin").cast(pl.Float64) if "margin" in pairs.columns else pl.lit(None, dtype=pl.Float64)


def _margin(pair_scores: pl.DataFrame) -> pl.Expr:
    """The margin that a recipe asks for, else the strength; without any strength, what the pairs were built by.

    The two are in different units, so that one dataset never holds both.
    """
    strength = pl.col("strength_mean")
    if pair_scores["strength_mean"].null_count() == pair_scores.height:
        flipped = pl.col("flipped") if "flipped" in pair_scores.columns else pl.lit(value=False)
        strength = pl.when(flipped).then(-pl.col("_built")).otherwise("_built")
    if "target_margin" in pair_scores.columns:
        return pl.coalesce("target_margin", strength)
    return strength


def _answers(candidates: pl.DataFrame, side: str) -> pl.LazyFrame:
    turn = _assistant("response").alias(side)
    return candidates.lazy().select(pl.col("candidate_id").alias(f"{side}_id"), turn)


def _assistant(column: str) -> pl.Expr:
    """A column of texts as a column of lists of one message."""
    return pl.concat_list(pl.struct(role=pl.lit("assistant"), content=pl.col(column)))


def _no_holes(frame: pl.DataFrame, columns: tuple[str, ...], *, key: str, table: str) -> None:
    for column in columns:
        bad = frame.filter(pl.col(column).is_null())
        if bad.height:
            raise InputError(
                f"{table}: {bad.height} rows have no {column} in the tables, the first is {key} "
                f"{bad[key][0]}; run the stages again before publishing"
            )
