"""Commands one after the other, in every format between them: values, users' columns, rejects, what a flip turns.

What one command does alone is tested beside it. Here the next must read what the last one wrote as what it is.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pytest

from curation.commands.ches import run_ches
from curation.commands.decontaminate import run_decontaminate
from curation.commands.dedup import run_dedup
from curation.commands.label_noise import run_label_noise
from curation.commands.rewards import run_rewards
from curation.commands.select import run_select
from curation.commands.strength import run_strength
from curation.commands.structure import run_structure
from curation.files import rejects_path
from curation.models.encoder import open_encoder
from curation.models.policy import open_policy
from curation.models.rewards import open_reward
from curation.prompts.sources import read_source

Row = dict[str, Any]

ASKED: Final = (
    "How do I bake bread {}?", 'Explain "quotes" \\ back\\slash {}', "日本の首都は何 {}?", '["like", "JSON", {}]',
    "emoji 😀\tand\nlines {}", '{{"role": "user", "content": "x {}"}}', "{}\u2028.5", '"quoted {}"',
)  # fmt: skip


def said(*turns: str) -> list[dict[str, str]]:
    roles = ["user", "assistant"] * len(turns)
    return [{"role": role, "content": turn} for role, turn in zip(roles[: len(turns)], turns, strict=True)]


def pair(n: int) -> Row:
    """A pair in one of five forms, with columns of a user's own of every type that JSON has."""
    asked = ASKED[n % len(ASKED)].format(n)
    good, bad = (
        f"Mix flour and water, wait {n} hours, bake it until it is brown.",
        f"No. {n}" if n % 3 else f"[1, {n}]",
    )
    if n % 4 == 0:
        good, bad = bad, good
    forms: list[Row] = [
        {"prompt": asked, "chosen": good, "rejected": bad},
        {"prompt": [{"role": "system", "content": "Be terse."}, *said(asked)], "chosen": good, "rejected": bad},
        {"prompt": said("Hi", "Hello", asked), "chosen": good, "rejected": bad},
        {"prompt": asked, **{side: said("", text)[1:] for side, text in (("chosen", good), ("rejected", bad))}},
        {"prompt": said(asked), "chosen": said(asked, good), "rejected": said(asked, bad)},
    ]
    own: Row = {
        "n": n, "id": n // 2, "big": 2**53 + n, "huge": 10**20 if n % 7 == 0 else n,
        "float": [n / 3, 1e300, None][n % 3], "bool": [True, None][n % 2],
        "str": ["", " ", "null", '"x"', "é\u0301", "a\r\nb\x7f"][n % 6], "null": None,
        "list": [[], [1, 2.5], None, [None]][n % 4], "mixed": [1, "1", [1], {"a": 1}, None, True][n % 6],
        "nested": {"a": {"b": [{"c": n}]}, "d": None}, "empty": {}, "chosen_by": f"c{n}", "rejected_by": f"r{n}",
        "votes": [{"voter": "a", "vote": "chosen"}, {"voter": "b", "vote": "tie" if n % 2 else "rejected"}],
    }  # fmt: skip
    return forms[n % 5] | own | ({"sometimes": [n]} if n % 5 == 0 else {})


def load(path: Path) -> list[Row]:
    """The rows of a file as values, read without our own readers."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        json_text = [field.name for field in table.schema if field.metadata]
        rows = table.to_pylist()
        return [
            {k: v if v is None or k not in json_text else json.loads(v) for k, v in row.items()} for row in rows
        ]
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def plain(value: Any) -> Any:
    """A value without what a frame adds: keys of null, and integers as floats; NaN is null in JSON."""
    if isinstance(value, dict):
        return {key: said for key in sorted(value) if (said := plain(value[key])) is not None}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value


def turned(row: Row) -> Row:
    """A row of the user's with its answers exchanged."""
    names = {"chosen": "rejected", "rejected": "chosen"}
    votes = [{**vote, "vote": names.get(vote["vote"], vote["vote"])} for vote in row["votes"]]
    sides = {f"{side}{end}": row[f"{names[side]}{end}"] for side in names for end in ("", "_by")}
    return row | sides | {"votes": votes}


_OF_A_SIDE: Final = ("rewards", "tokens", "logp", "change")


@lru_cache
def models() -> tuple[Any, Any, Any]:
    """Opened once: a command alone opens its own, which is most of its seconds."""
    return open_reward("embedded"), open_policy("embedded", output_gradients=True), open_encoder("embedded")


STEPS: Final[dict[str, Callable[[Path, Path], Any]]] = {
    "rewards": lambda a, b: run_rewards(a, b, models=[models()[0]]),
    "ches": lambda a, b: run_ches(a, b, policy=models()[1]),
    "structure": run_structure,
    "noise": lambda a, b: run_label_noise(a, b, folds=2, encoder=models()[2], prior=None),
    "strength": lambda a, b: run_strength(
        a, b, actions={"likely_flipped": ["flip"], "ambiguous": ["soft_label", "weight"], "normal": ["margin"]}
    ),
    "dedup": lambda a, b: run_dedup(a, b, column=["prompt", "chosen", "rejected"]),
    "decontaminate": lambda a, b: run_decontaminate(a, b, against=[a.parent / "evaluation.jsonl"]),
    "select": lambda a, b: run_select(a, b, method="dsir", target=str(a.parent / "evaluation.jsonl"), rows=12),
}
PLANS: Final = {"jsonl": ["jsonl"] * 8, "parquet": ["parquet"] * 8, "both": ["jsonl.gz", "parquet"] * 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each chain's files, ``<plan>_<step>.<suffix>``, from one file of pairs."""
    folder = tmp_path_factory.mktemp("chains")
    rows = [pair(n) for n in range(20)]
    rows += [pair(4) | {"n": 20}, {**pair(5), "n": 21, "rejected": pair(5)["chosen"]}]
    for name, content in (
        ("in", rows),
        ("evaluation", [{"prompt": "What no row asks."}, {"prompt": said(ASKED[2].format(10))}]),
    ):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    for plan, suffixes in PLANS.items():
        source = folder / "in.jsonl"
        for (step, run), suffix in zip(STEPS.items(), suffixes, strict=True):
            output = folder / f"{plan}_{step}.{suffix}"
            run(source, output)
            source = output
    return folder


def outputs(folder: Path, plan: str) -> dict[str, Path]:
    return {step: folder / f"{plan}_{step}.{suffix}" for step, suffix in zip(STEPS, PLANS[plan], strict=True)}


@pytest.mark.parametrize("plan", ["parquet", "both"])
def test_the_format_between_two_commands_changes_nothing(folder: Path, plan: str) -> None:
    first, other = outputs(folder, "jsonl"), outputs(folder, plan)
    for step in STEPS:
        assert plain(load(other[step])) == plain(load(first[step])), step
        beside = [rejects_path(path) for path in (first[step], other[step])]
        assert beside[0].exists() == beside[1].exists(), step
        assert not beside[0].exists() or load(beside[0]) == load(beside[1]), step
    read = [read_source(str(path["select"]), name="s").rows for path in (first, other)]
    assert read[0].equals(read[1])


@pytest.mark.parametrize("plan", PLANS)
def test_rows_and_rejects_add_up_in_order_and_users_columns_stay(folder: Path, plan: str) -> None:
    given = {row["n"]: row for row in load(folder / "in.jsonl")}
    before, gone = len(given), {}
    for step, path in outputs(folder, plan).items():
        rows = load(path)
        beside = rejects_path(path)
        gone[step] = {row["row"] for row in load(beside)} if beside.exists() else set()
        assert len(rows) + len(gone[step]) == before, step
        assert [row["n"] for row in rows] == sorted(row["n"] for row in rows), step
        for row in rows:
            own = turned(given[row["n"]]) if row.get("flipped") else given[row["n"]]
            assert {name: plain(row[name]) for name in own} == plain(own) | {
                name: None for name in own if own[name] is None
            }, (step, row["n"])
        before = len(rows)
    assert {step: len(rows) for step, rows in gone.items() if rows} | {"ches": 0} == {
        "rewards": 1, "ches": 0, "dedup": 1, "decontaminate": 1, "select": before_select(folder, plan) - 12,
    }  # fmt: skip


def before_select(folder: Path, plan: str) -> int:
    return len(load(outputs(folder, plan)["decontaminate"]))


def test_scores_of_flipped_pairs_are_those_of_the_exchanged_answers(folder: Path) -> None:
    flipped = outputs(folder, "parquet")["strength"]
    for run, output in ((STEPS["rewards"], "anew_rewards.jsonl"), (STEPS["ches"], "anew.jsonl")):
        run(flipped, folder / output)
        flipped = folder / output
    run_structure(flipped, folder / "anew_lengths.jsonl")
    rows, anew = load(outputs(folder, "parquet")["strength"]), load(folder / "anew_lengths.jsonl")
    assert sum(row["flipped"] for row in rows) >= 2
    for row, again in zip(rows, anew, strict=True):
        sides = [f"{side}_{name}" for side in ("chosen", "rejected") for name in _OF_A_SIDE]
        for name in (*sides, "difficulty", "length_ratio"):
            assert again[name] == pytest.approx(row[name], rel=1e-4, abs=1e-3), name
        assert again["both_fall"] == row["both_fall"]
        margins = [c - r for c, r in zip(row["chosen_rewards"], row["rejected_rewards"], strict=True)]
        assert (sum(m > 0 for m in margins) / len(margins)) == pytest.approx(row["agreement"])
        if row["flipped"]:
            assert {row[name] for name in ("ches", "ln_ches", "strength_band", "suggested_action")} == {None}
            assert row["strength_mean"] > 0
        else:
            assert row["ln_ches"] == pytest.approx(again["ln_ches"], rel=1e-4)


def test_the_same_command_gives_the_same_bytes(folder: Path) -> None:
    for step in ("strength", "dedup", "select"):
        for plan in PLANS:
            path = outputs(folder, plan)[step]
            source = list(outputs(folder, plan).values())[list(STEPS).index(step) - 1]
            again = path.with_name(f"again_{path.name}")
            STEPS[step](source, again)
            assert again.read_bytes() == path.read_bytes(), (step, plan)
