"""All there is to know about one prompt, candidate, pair or input row: evidence, reasons, and where it came from.

Texts are left out unless they are asked for: they may be dangerous requests. A table that an earlier run or recipe
left says so in its title.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.publish.gates import ALL_DATASETS
from curation.recipe import MADE_FROM
from curation.table_ages import table_ages
from curation.text import pair_id
from curation.workspace import Workspace

__all__ = ["Section", "explain"]

_KEYS: Final = {
    "prompts": "prompt_id",
    "candidates": "candidate_id",
    "pairs": "pair_id",
    "inputs": "input_id",
}
_TEXTS: Final = {
    *("messages", "response", "responses", "prompt", "chosen", "rejected", "completion", "reasoning"),
    *("system_prompt", "matched_text"),
}
_LONG: Final = {"vector", "gram", "last_gram", "edit"}
_DATASETS: Final = ("preference", "preference_unpaired", "reward_augmented", "refusal", "retrieval")
_KEY_OF: Final = {"preference": "pair_id", "reward_augmented": "pair_id", "retrieval": "anchor_id"}
_MINIMUM_PREFIX: Final = 6


class Section(NamedTuple):
    """Rows of one table that have to do with the thing."""

    title: str
    rows: list[dict[str, Any]]


def explain(workspace: Workspace, identifier: str, *, show_text: bool = False) -> list[Section]:
    """What the workspace knows of an identifier.

    Args:
        identifier: of a prompt, candidate or pair (the first digits are enough where they are unique), or
            an input row as ``<source>#<row>``.
        show_text: include prompts and answers.

    Raises:
        InputError: when nothing, or more than one thing, has this identifier.
    """
    table, key = _find(workspace, identifier)
    if table not in _KEYS:
        return _only_turned_away(workspace, key, show_text)
    related, ages = _related(workspace, table, key), table_ages(workspace)
    sections = [Section(ages.titled(table), _rows(workspace, table, _KEYS[table], [key], show_text))]
    for name in _KEYS:
        if name != table and related.get(name):
            found = _rows(workspace, name, _KEYS[name], related[name], show_text)
            sections.append(Section(ages.titled(name), found))
    candidates, pairs = related.get("candidates", []), related.get("pairs", [])
    prompts = related.get("prompts", [])
    for name, column, ids in (
        ("rewards", "candidate_id", candidates),
        ("refusals", "candidate_id", candidates),
        ("policy_stats", "stats_id", _present_stats(workspace, prompts)),
        ("pair_scores", "pair_id", pairs),
        ("pair_labels", "pair_id", pairs),
    ):
        sections.append(Section(ages.titled(name), _rows(workspace, name, column, ids, show_text)))
    inputs = related.get("inputs", [])
    everything = [key, *prompts, *candidates, *pairs, *inputs, *_pairs_of_inputs(workspace, inputs)]
    if table == "prompts":
        everything += _requests(workspace, key)
    sections += _turned_away(workspace, everything, show_text)
    for name in _DATASETS:
        column = _KEY_OF.get(name, "candidate_id")
        ids = {"pair_id": pairs, "anchor_id": prompts, "candidate_id": candidates}[column]
        if rows := _rows(workspace, name, column, ids, show_text):
            standing = _standing(workspace, name)
            old = name in ages.left and standing.startswith("published")
            sections.append(Section(f"{standing}; {ages.left[name]}" if old else standing, rows))
    return [section for section in sections if section.rows]


def _present_stats(workspace: Workspace, prompts: list[str]) -> list[str]:
    """The policies' passes over the answers that there are now; the ledger has those over earlier sets, too."""
    answers = workspace.scan("candidates").filter(pl.col("prompt_id").is_in(prompts)).select("candidate_id")
    there = answers.collect()["candidate_id"].to_list()
    stats = workspace.scan("policy_stats").filter(pl.col("prompt_id").is_in(prompts))
    size = pl.col("candidate_ids").list.len()
    present = stats.filter(pl.col("candidate_ids").list.eval(pl.element().is_in(there)).list.all())
    whole = present.filter(size == size.max().over("policy", "prompt_id")).select("stats_id").collect()
    return whole["stats_id"].to_list()


def _standing(workspace: Workspace, name: str) -> str:
    """Whether a dataset's table is published: it stays where a recipe leaves it out, or a gate refuses it."""
    runs = workspace.read("runs").sort("finished_at")
    asked = json.loads(runs["recipe"][-1])["publish"]["datasets"] if runs.height else [name]
    if name not in {MADE_FROM.get(dataset, dataset) for dataset in asked}:
        return f"in {name}, which the recipe of the last run does not publish"
    refused = ~pl.col("passed") & pl.col("blocking") & pl.col("dataset").is_in([name, ALL_DATASETS])
    if not workspace.scan("gates").filter(refused).head(1).collect().is_empty():
        return f"in {name}, which a gate keeps from being published"
    return f"published in {name}"


def _find(workspace: Workspace, identifier: str) -> tuple[str, str]:
    """The table and key that an identifier, or its first digits, names."""
    found: list[tuple[str, str]] = []
    for table, column in _KEYS.items():
        match = pl.col(column) == identifier
        if table != "inputs" and len(identifier) >= _MINIMUM_PREFIX:
            match |= pl.col(column).str.starts_with(identifier)
        keys = workspace.scan(table).filter(match).select(column).head(3).collect()[column]
        found += [(table, key) for key in keys]
    found = found or [("rejects", key) for key in _turned_away_ids(workspace, identifier)]
    if not found:
        raise InputError(
            f"{workspace.url} has no prompt, candidate, pair or input row {identifier!r}: expected an identifier "
            f"from the report or the rejects (at least {_MINIMUM_PREFIX} of its digits), or <source>#<row>"
        )
    if len(found) > 1:
        several = ", ".join(f"{table.removesuffix('s')} {key}" for table, key in found[:4])
        raise InputError(f"{identifier!r} is the beginning of several identifiers ({several}): give more digits")
    return found[0]


def _turned_away_ids(workspace: Workspace, identifier: str) -> list[str]:
    """What never became a row of those tables, such as a source's row that could not be read."""
    found: set[str] = set()
    for table, column in (("rejects", "row_id"), ("failures", "item_id")):
        match = pl.col(column) == identifier
        if "#" not in identifier and len(identifier) >= _MINIMUM_PREFIX:
            match |= pl.col(column).str.starts_with(identifier)
        found |= set(workspace.scan(table).filter(match).select(pl.col(column).unique()).collect()[column])
    # Of a reject that names two things, such as an anchor and its positive, the first one.
    return sorted({name if "#" in name else name.split(" ", 1)[0] for name in found})


def _only_turned_away(workspace: Workspace, key: str, show_text: bool) -> list[Section]:
    return [section for section in _turned_away(workspace, [key], show_text) if section.rows]


def _turned_away(workspace: Workspace, keys: list[str], show_text: bool) -> list[Section]:
    """Rejects and failures. The name of a source may have spaces; of another reject each word is an identifier."""
    words = pl.col("row_id").str.split(" ").list.eval(pl.element().is_in(keys)).list.any()
    named = pl.col("row_id").is_in(keys) | (words & ~pl.col("row_id").str.contains("#", literal=True))
    rejected = workspace.scan("rejects").filter(named).select(pl.col("row_id").unique()).collect()["row_id"]
    return [
        Section("rejects", _rows(workspace, "rejects", "row_id", rejected.to_list(), show_text)),
        Section("failures", _rows(workspace, "failures", "item_id", keys, show_text)),
    ]


def _requests(workspace: Workspace, prompt: str) -> list[str]:
    """What models were asked for a prompt: an answer that was not taken is rejected under its request."""
    asked = workspace.scan("generations").filter(pl.col("prompt_id") == prompt).select("request_id").collect()
    return asked["request_id"].unique(maintain_order=True).to_list()


def _related(workspace: Workspace, table: str, key: str) -> dict[str, list[str]]:
    """The identifiers that belong to a thing, by table; the prompt of a pair brings that pair alone."""
    row = workspace.scan(table).filter(pl.col(_KEYS[table]) == key).head(1).collect().row(0, named=True)
    prompt = key if table == "prompts" else row["prompt_id"]
    pairs = workspace.scan("pairs").filter(pl.col("prompt_id") == prompt)
    candidates = workspace.scan("candidates").filter(pl.col("prompt_id") == prompt)
    inputs = workspace.scan("inputs").filter(pl.col("prompt_id") == prompt)
    if table == "candidates":
        pairs = pairs.filter((pl.col("chosen_id") == key) | (pl.col("rejected_id") == key))
        candidates = candidates.filter(pl.col("candidate_id") == key)
        inputs = inputs.filter(pl.col("candidate_ids").list.contains(key))
    elif table == "pairs":
        pairs = pairs.filter(pl.col("pair_id") == key)
        both = [row["chosen_id"], row["rejected_id"]]
        candidates = candidates.filter(pl.col("candidate_id").is_in(both))
        inputs = inputs.filter(
            pl.col("candidate_ids").list.contains(both[0]) & pl.col("candidate_ids").list.contains(both[1])
        )
    elif table == "inputs":
        candidates = candidates.filter(pl.col("candidate_id").is_in(row["candidate_ids"]))
        inputs = inputs.filter(pl.col("input_id") == key)
        pairs = pairs.filter(
            pl.col("chosen_id").is_in(row["candidate_ids"]) & pl.col("rejected_id").is_in(row["candidate_ids"])
        )
    frames = {"candidates": candidates, "pairs": pairs, "inputs": inputs}
    found = {name: frame.select(_KEYS[name]).collect()[_KEYS[name]].to_list() for name, frame in frames.items()}
    return found | {"prompts": [prompt]}


def _pairs_of_inputs(workspace: Workspace, inputs: list[str]) -> list[str]:
    """The pairs that input rows brought, also those that were rejected before they became a row of ``pairs``."""
    rows = workspace.scan("inputs").filter(pl.col("input_id").is_in(inputs) & (pl.col("kind") == "pair")).collect()
    return [
        pair_id(
            row["prompt_id"], row["candidate_ids"][row["chosen_index"]], row["candidate_ids"][row["rejected_index"]]
        )
        for row in rows.iter_rows(named=True)
    ]


def _rows(workspace: Workspace, table: str, column: str, keys: list[str], show_text: bool) -> list[dict[str, Any]]:
    if not keys:
        return []
    hidden = _LONG if show_text else _LONG | _TEXTS
    frame = workspace.scan(table)
    hidden |= {c for c in frame.collect_schema().names() if c.startswith("negative_") and not show_text}
    hidden |= {"anchor", "positive"} if not show_text else set()
    found = frame.filter(pl.col(column).is_in(keys)).collect()
    return found.drop(c for c in hidden if c in found.columns).to_dicts()
