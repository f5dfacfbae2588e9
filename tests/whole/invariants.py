"""What must hold of a finished run, whatever its recipe: read from its files, with nothing of ours.

Each fault is one line that begins with the invariant's name.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from tests.whole.messy import grade, refuses

__all__ = ["State", "faults", "state_of"]

Row = dict[str, Any]
_BY_BEHAVIOUR: Final = ("refusal_vs_compliance", "refusal_faults")
_KNOWN: Final = ("constructed", *_BY_BEHAVIOUR)
_TABLES: Final = (
    "inputs", "prompts", "candidates", "pairs", "pair_labels", "preference", "preference_unpaired", "refusal",
    "rejects", "waterfall", "constructed",
)  # fmt: skip


class State(NamedTuple):
    """A workspace and what it was made from, as plain rows."""

    sources: dict[str, list[Row]]
    tables: dict[str, list[Row]]
    files: dict[str, list[Row]]
    """Dataset to its published rows, each with its split."""


def state_of(folder: Path, workspace: Path, recipe: dict[str, Any]) -> State:
    """Read everything.

    Args:
        folder: with the sources.
    """
    paths = [folder / source["path"] for source in recipe["sources"]]
    sources = {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}
    asked = [name for name in _TABLES if name != "constructed" or "constructed" in recipe]
    tables = {name: pl.read_delta(str(workspace / "tables" / name)).to_dicts() for name in asked}
    files: dict[str, list[Row]] = {}
    for name in recipe["publish"]["datasets"]:
        shards = sorted((workspace / "datasets" / name / "data").glob("*.parquet"))
        files[name] = [r | {"split": p.name.split("-")[0]} for p in shards for r in pl.read_parquet(p).to_dicts()]
    return State(sources, tables, files)


def faults(state: State) -> list[str]:
    """Every invariant that does not hold."""
    checks = (_rows_have_an_end, _pairs_have_an_end, _order, _evidence, _unpaired, _refusals, _splits, _counts)
    return [fault for check in checks for fault in check(state)]


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for data in (part.encode() for part in parts):
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def _plain(text: str) -> str:
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def _is_ordinary(text: Any) -> bool:
    """Nothing odd, whose fate the row alone does not tell."""
    return isinstance(text, str) and re.fullmatch(r"[ -~]{3,300}", text) is not None


def _claims(state: State) -> Iterator[tuple[str, str]]:
    """The row and the pair that it brings, of rows that say plainly which answer is better."""
    for name, rows in state.sources.items():
        for number, row in enumerate(rows):
            sides = ("left", "right") if row.get("winner") == 1 else ("right", "left")
            chosen, rejected = (row.get(s) for s in (("chosen", "rejected") if "chosen" in row else sides))
            if "winner" in row and row["winner"] not in (0, 1):
                continue
            prompt = row["prompt"] if "prompt" in row else chosen[:-1] if isinstance(chosen, list) else None
            said = [side[-1]["content"] if isinstance(side, list) else side for side in (chosen, rejected)]
            texts = [*(turn["content"] for turn in prompt), *said] if isinstance(prompt, list) else [None]
            if all(map(_is_ordinary, texts)):
                asked = _hash("prompt", *(part for m in prompt or [] for part in (m["role"], _plain(m["content"]))))
                answers = [_hash("response", asked, _plain(text)) for text in said]
                if answers[0] != answers[1]:
                    yield f"{name}#{number}", _hash("pair", asked, *answers)


def _rejected(state: State, *tables: str) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in state.tables["rejects"]:
        if row["table"] in tables:
            found[row["row_id"]].append(row)
    return found


def _rows_have_an_end(state: State) -> Iterator[str]:
    read = {row["input_id"] for row in state.tables["inputs"]}
    gone = _rejected(state, "inputs")
    for name, rows in state.sources.items():
        yield from (
            f"row lost: {i}" for i in (f"{name}#{n}" for n in range(len(rows))) if i not in read | gone.keys()
        )
    yield from (f"reject without a reason: {row['row_id']}" for row in state.tables["rejects"] if not row["reason"])
    texts = {row["candidate_id"] for row in state.tables["candidates"]}
    for row in state.tables["inputs"]:
        if row["input_id"] not in gone and not set(row["candidate_ids"]) <= texts:
            yield f"answer lost: of {row['input_id']}"


def _pairs_have_an_end(state: State) -> Iterator[str]:
    """Each pair that a source or a strategy brings is published, or is a reject: one of the two."""
    out = {row["pair_id"] for row in state.tables["preference"]}
    gone, rows_gone = _rejected(state, "pairs"), _rejected(state, "inputs")
    for row, pair in _claims(state):
        if row not in rows_gone and (pair in out) == (pair in gone):
            yield f"pair of {row} is {'published and rejected' if pair in out else 'neither'}"
    for pair in (row["pair_id"] for row in state.tables["pairs"]):
        if (pair in out) == (pair in gone):
            yield f"pair {pair} is {'published and rejected' if pair in out else 'neither'}"


def _order(state: State) -> Iterator[str]:
    """No pair is the other way round than its evidence says, unless it says that it was flipped."""
    built = {row["pair_id"]: row for row in state.tables["pairs"]}
    labels = {row["pair_id"]: row for row in state.tables["pair_labels"]}
    text = {row["candidate_id"]: row["response"] for row in state.tables["candidates"]}
    expected = {row["prompt_id"]: row["expected_behaviour"] for row in state.tables["prompts"]}
    claimed = {pair for _, pair in _claims(state)}
    for row in state.tables["preference"]:
        pair, flipped = built[row["pair_id"]], bool(row.get("flipped"))
        if flipped != labels[row["pair_id"]]["flipped"] or (flipped and "flip" not in row["label_action"]):
            yield f"flip not told: {row['pair_id']}"
        sides = ("rejected_id", "chosen_id") if flipped else ("chosen_id", "rejected_id")
        if [row[s][0]["content"] for s in ("chosen", "rejected")] != [text[pair[side]] for side in sides]:
            yield f"texts exchanged: {row['pair_id']}"
        better, worse = text[pair["chosen_id"]], text[pair["rejected_id"]]
        strategy = pair["strategy"]
        if strategy == "provided":
            texts = (*(turn["content"] for turn in row["prompt"]), better, worse)
            if row["pair_id"] not in claimed and all(map(_is_ordinary, texts)):
                yield f"no source says so: {row['pair_id']}"
        elif strategy in _BY_BEHAVIOUR:
            if refuses(better) == refuses(worse) or refuses(better) != (expected[row["prompt_id"]] == "refuse"):
                yield f"wrong behaviour chosen: {row['pair_id']}"
        elif strategy != "constructed" and grade(better) <= grade(worse):
            yield f"worse answer chosen: {row['pair_id']} by {strategy}"
        if flipped and strategy in _KNOWN:
            yield f"known order flipped: {row['pair_id']}"


def _evidence(state: State) -> Iterator[str]:
    """Scores stand beside the answer that they are of, in flipped pairs too."""
    for row in state.tables["preference"]:
        said = {side: row[side][0]["content"] for side in ("chosen", "rejected")}
        for side, content in said.items():
            if row[f"{side}_rewards"] != [grade(content)]:
                yield f"reward of the other answer: {row['pair_id']}"
            if row[f"{side}_refusal_class"] != ("full_refusal" if refuses(content) else "compliance"):
                yield f"refusal class of the other answer: {row['pair_id']}"
        difference = grade(said["chosen"]) - grade(said["rejected"])
        if (row["strength_mean"] > 0) != (difference > 0) or (row["strength_mean"] < 0) != (difference < 0):
            yield f"strength has the wrong sign: {row['pair_id']}"


def _unpaired(state: State) -> Iterator[str]:
    sides: dict[str, set[tuple[str, str]]] = {"chosen": set(), "rejected": set()}
    for row in state.tables["preference"]:
        for side, answers in sides.items():
            answers.add((row["prompt_id"], _plain(row[side][0]["content"])))
    labels = {
        (r["prompt_id"], _plain(r["completion"][0]["content"])): r["label"]
        for r in state.tables["preference_unpaired"]
    }
    wanted = dict.fromkeys(sides["chosen"] - sides["rejected"], True)
    wanted |= dict.fromkeys(sides["rejected"] - sides["chosen"], False)
    if labels != wanted:
        yield f"labels of single answers: {len(labels.items() ^ wanted.items())} differ"


def _refusals(state: State) -> Iterator[str]:
    expected = {row["prompt_id"]: row["expected_behaviour"] for row in state.tables["prompts"]}
    gone = _rejected(state, "refusal")
    for row in state.tables["refusal"]:
        behaves = "refuse" if refuses(row["messages"][-1]["content"]) else "comply"
        kind = {"refuse": "refusal", "comply": "contrast"}[behaves]
        # A template refusal has words of its own.
        made = any(r["candidate_id"] == row["candidate_id"] for r in state.tables.get("constructed", []))
        if not made and (row["kind"] != kind or behaves != expected[row["prompt_id"]]):
            yield f"filed as {row['kind']}: {row['candidate_id']}"
        if row["candidate_id"] in gone:
            yield f"refusal published and rejected: {row['candidate_id']}"
    named = gone.keys() | {row["candidate_id"] for row in state.tables["refusal"]}
    made_wrong = {r["candidate_id"] for r in state.tables.get("constructed", []) if r["role"] == "rejected"}
    for row in state.tables["candidates"]:
        if row["candidate_id"] not in named | made_wrong:
            yield f"answer neither in refusal nor in its rejects: {row['candidate_id']}"


def _splits(state: State) -> Iterator[str]:
    sides: dict[Any, set[str]] = defaultdict(set)
    for dataset, rows in state.files.items():
        for row in rows:
            turns = row["prompt"] if "prompt" in row else row["chosen"][:-1]
            sides[tuple((m["role"], _plain(m["content"])) for m in turns)].add(row["split"])
            roles = [m["role"] for m in turns if m["role"] != "system"]
            if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
                yield f"turns of a prompt in {dataset}: {roles}"
    yield from (f"prompt in {len(found)} splits" for found in sides.values() if len(found) > 1)


def _counts(state: State) -> Iterator[str]:
    tables = state.tables
    good = [row for row in tables["preference_unpaired"] if row["label"]]
    wanted = {"reward": tables["preference"], "sft": good} | {n: tables[n] for n in state.files if n in tables}
    for dataset, rows in state.files.items():
        if len(rows) != len(wanted[dataset]):
            yield f"{dataset}: {len(rows)} rows published of {len(wanted[dataset])}"
        contents = [
            json.dumps([row.get(c) for c in ("prompt", "chosen", "rejected", "completion")]) for row in rows
        ]
        if len(set(contents)) != len(contents):
            yield f"{dataset}: a row stands twice"
    steps = [row["left"] for row in tables["waterfall"] if row["dataset"] == "preference"]
    if min(steps) != len(tables["preference"]):
        yield f"waterfall ends at {min(steps)} of {len(tables['preference'])}"
