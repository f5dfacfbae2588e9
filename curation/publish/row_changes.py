"""Which rows differ between two publications of a dataset, by their ids. Why they differ is not known here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Final, NamedTuple

import polars as pl

from curation.publish.writing import Draft, PublishedFile
from schemas.pair_labels import NOISE_SCORES

__all__ = ["ROW_KEYS", "RowChanges", "prompt_column", "published_frames", "row_changes"]

ROW_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "preference": ("pair_id",),
    "preference_unpaired": ("candidate_id", "label"),
    "reward": ("pair_id",),
    "reward_augmented": ("pair_id", "goal_of"),
    "sft": ("candidate_id",),
    "refusal": ("candidate_id",),
    "retrieval": ("anchor_id", "positive_id"),
    "retrieval_triplets": ("anchor_id", "positive_id", "rank"),
}
"""Dataset to the columns that name a row, from one version to the next."""

_TEXT: Final = ("prompt", "chosen", "rejected", "completion", "messages", "refusal_token", "anchor", "positive")
_REWARDS: Final = ("margin", "strength", "agreement", "chosen_rewards", "rejected_rewards")
_NAMED: Final = {
    "split": "split", **dict.fromkeys(("label_probability", *NOISE_SCORES), "label probabilities"),
}  # fmt: skip
"""Label probabilities come of the rewards and of people's labels."""
_POLICY: Final = ("ches", "ln_ches", "chosen_tokens", "rejected_tokens", "difficulty")
_SHARDS: Final = ("data/", "evidence/")


class RowChanges(NamedTuple):
    """What became of the rows."""

    rows: pl.DataFrame
    """The dataset's key, ``prompt_id``, ``change`` (added, removed, changed) and ``columns``: what differs in
    changed rows, a list of groups such as text, split, rewards."""
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]


def prompt_column(dataset: str) -> str:
    """The column that names a row's prompt."""
    return "anchor_id" if dataset.startswith("retrieval") else "prompt_id"


def published_frames(files: Iterable[PublishedFile], draft: Draft) -> Iterator[pl.DataFrame]:
    """The rows that readers see now, one shard at a time, with their evidence and their ``split``.

    A file that is named and not there is passed over: its rows count as never published.
    """
    paths = [file.path for file in files if file.path.startswith(_SHARDS[0])]
    for path in paths:
        frame = _read(draft, path)
        if frame is None:
            continue
        evidence = _read(draft, _SHARDS[1] + path.removeprefix(_SHARDS[0]))
        split = path.removeprefix(_SHARDS[0]).split("-", 1)[0]
        whole = frame if evidence is None else pl.concat([frame, evidence], how="horizontal")
        yield whole.with_columns(split=pl.lit(split))


def row_changes(dataset: str, before: Iterable[pl.DataFrame], after: Iterable[pl.DataFrame]) -> RowChanges:
    """Compare two versions of a dataset.

    Values are compared by hashes of both sides that are made here and now, so that only ids and hashes are
    held, and never two versions of the texts.

    Args:
        dataset: its name.
        before, after: the rows of each version, in parts of any size.
    """
    old, old_columns = _fingerprints(dataset, before)
    new, new_columns = _fingerprints(dataset, after)
    old, new = (old if old_columns else new.clear()), (new if new_columns else old.clear())
    key = list(ROW_KEYS[dataset])
    added = new.join(old, on=key, how="anti", maintain_order="left")
    removed = old.join(new, on=key, how="anti", maintain_order="left")
    both = new.join(old, on=key, how="inner", suffix=" before", maintain_order="left")
    shared = sorted(set(old_columns) & set(new_columns) - set(key))
    groups = sorted({_group(column) for column in shared})
    same_columns = {g for g in groups if _members(g, old_columns) == _members(g, new_columns)}
    compared = [f"={g}" for g in groups if g in same_columns]
    differs = [
        pl.when(pl.col(c) != pl.col(f"{c} before")).then(pl.lit(c[1:])).otherwise(None).alias(c) for c in compared
    ]
    none = pl.lit([], dtype=pl.List(pl.String))
    listed = pl.concat_list(differs).list.drop_nulls() if differs else none
    changed = both.with_columns(columns=listed).filter(pl.col("columns").list.len() > 0)
    parts = [
        frame.with_columns(change=pl.lit(change), **({} if change == "changed" else {"columns": none})).select(
            *key, "prompt_id", "change", "columns"
        )
        for change, frame in (("added", added), ("removed", removed), ("changed", changed))
    ]
    gone = tuple(c for c in old_columns if c not in new_columns)
    come = tuple(c for c in new_columns if c not in old_columns)
    return RowChanges(pl.concat(parts), come, gone)


def _fingerprints(dataset: str, frames: Iterable[pl.DataFrame]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Each row's key, prompt and one hash for each group of columns; and the columns that there are."""
    parts: list[pl.DataFrame] = []
    columns: tuple[str, ...] = ()
    key = ROW_KEYS[dataset]
    for frame in frames:
        columns = tuple(c for c in frame.columns if c not in key)
        groups = sorted({_group(c) for c in columns})
        parts.append(
            frame.select(
                *key,
                *([] if "prompt_id" in key else [pl.col(prompt_column(dataset)).alias("prompt_id")]),
                *(pl.struct(_members(g, columns)).hash(seed=1).alias(f"={g}") for g in groups),
            )
        )
    if not parts:
        schema = dict.fromkeys((*key, "prompt_id"), pl.String)
        return pl.DataFrame(schema=schema), ()
    return pl.concat(parts), columns


def _members(group: str, columns: Iterable[str]) -> list[str]:
    return sorted(c for c in columns if _group(c) == group)


def _group(column: str) -> str:
    """What a column comes from, in the words of the changelog."""
    if column in _TEXT or column.removeprefix("negative_").isdecimal() or column == "negative":
        return "text"
    if column.startswith(_REWARDS):
        return "rewards"
    if column in _POLICY or column.endswith(("_logp", "_logps")):
        return "policy"
    if column == "cosine" or column.endswith(("_score", "_scores")):
        return "embeddings"
    if "refusal" in column or column == "kind":
        return "refusals"
    return _NAMED.get(column, "other columns")


def _read(draft: Draft, path: str) -> pl.DataFrame | None:
    data = draft.published(path)
    return None if data is None else pl.read_parquet(BytesIO(data))
