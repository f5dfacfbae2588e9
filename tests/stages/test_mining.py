"""The recipe's negatives: rules, other sources, the kept index, and what the report says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from curation.errors import GateError, RecipeError
from curation.pipeline import run
from curation.prompts.mutations import mutate
from curation.recipe import load_recipe
from curation.workspace import Workspace

TOPICS = ("bread", "rivers", "chess", "tides", "bicycles", "maps")
BARE: dict[str, Any] = {
    "name": "mined",
    "sources": [{"path": "pairs.jsonl"}],
    "rewards": [],
    "refusals": None,
    "policy": None,
    "gates": {"max_tie_rate": 1.0},
    "publish": {"datasets": ["preference", "retrieval"]},
}


def rows(count: int) -> list[dict[str, str]]:
    return [
        {
            "prompt": f"Tell me about {TOPICS[i % 6]}, number {i // 6}.",
            "chosen": f"People have known {TOPICS[i % 6]} well since the year {100 + i}.",
            "rejected": f"I do not care about {TOPICS[i % 6]}, ask {i} others.",
        }
        for i in range(count)
    ]


class Mined:
    """A recipe that mines negatives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "workspace")

    def run(self, pairs: list[dict[str, str]], **negatives: Any) -> dict[str, Any]:
        (self.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(BARE | {"negatives": negatives}))
        result = run(self.folder / "recipe.yaml", workspace=self.workspace)
        return dict(next(stage.facts for stage in result.stages if stage.stage == "retrieval"))

    def rules(self) -> pl.DataFrame:
        return self.workspace.read("waterfall").filter(pl.col("dataset") == "retrieval").sort("position")

    def texts(self) -> list[tuple[str, list[str]]]:
        frame = self.workspace.read("retrieval")
        columns = sorted(c for c in frame.columns if c.startswith("negative_") and c != "negative_scores")
        return [(row["anchor"], [row[c] for c in columns]) for row in frame.iter_rows(named=True)]


@pytest.fixture
def mined(tmp_path: Path) -> Mined:
    return Mined(tmp_path)


def test_every_rule_runs_and_is_accounted_for(mined: Mined) -> None:
    reward = {"model": "embedded", "kind": "reward", "margin": 0.0, "depth": 30}
    mined.run(
        rows(24), num_negatives=1, relative_margin=None, absolute_margin=0.0, near_positive=0.99,
        guides=[{"max_length": 16}, {"max_length": 8}], guide_votes=2, rescorer=reward, sampling="weighted",
    )  # fmt: skip
    rules = mined.rules()
    names = ["absolute_margin", "near_positive", "encoders_agree", "rescored_above_positive", "not_sampled"]
    assert [rule for rule in rules["rule"] if rule in names] == names
    assert rules["anchors_short"].null_count() == 0
    margin = rules.row(by_predicate=pl.col("rule") == "absolute_margin", named=True)
    assert margin["next_threshold"] == pytest.approx(-0.01)
    assert margin["next_left"] >= margin["left"]
    report = Path(mined.workspace.report_path).read_text()
    assert "one step looser" in report
    assert "rescored above positive" in report
    # What the slow models said is in the ledger: a second run changes nothing there.
    version = mined.workspace.version("rewards")
    run(mined.folder / "recipe.yaml", workspace=mined.workspace)
    assert mined.workspace.version("rewards") == version


def test_other_prompts_answers_come_last_and_are_of_the_asked_kind(mined: Mined) -> None:
    facts = mined.run(
        rows(24), num_negatives=3, relative_margin=None,
        near_prompt_answers=1, off_topic_answers=1, prompt_threshold=0.6,
    )  # fmt: skip
    assert facts["anchors short of other answers"] == 0
    found = mined.texts()
    assert len(found) == 24
    for anchor, (_, near, far) in found:
        own = next(topic for topic in TOPICS if topic in anchor)
        assert own in near
        assert own not in far


def test_siblings_answers_are_of_another_category_under_the_same_parent(mined: Mined) -> None:
    parents = {"bread": "home", "maps": "travel", "rivers": "nature", "tides": "nature", "bicycles": "travel"}
    pairs = [row | {"category": TOPICS[i % 6]} for i, row in enumerate(rows(24))]
    facts = mined.run(pairs, num_negatives=2, relative_margin=None, sibling_answers=1, taxonomy=parents)
    # Bread has no sibling, chess no parent.
    assert facts["anchors short of other answers"] == 8
    found = dict(mined.texts())
    siblings = {"maps": "bicycles", "bicycles": "maps", "rivers": "tides", "tides": "rivers"}
    assert len(found) == 16
    for anchor, (_, last) in found.items():
        own = next(topic for topic in TOPICS if topic in anchor)
        assert siblings[own] in last


def test_rules_that_remove_everything_are_named_in_the_rejects(mined: Mined) -> None:
    with pytest.raises(GateError, match="retrieval: min_rows: 0 rows"):
        mined.run(rows(6), num_negatives=1, relative_margin=None, max_score=-1.0)
    assert mined.workspace.read("retrieval").is_empty()
    rejects = mined.workspace.read("rejects").filter(pl.col("rule") == "too_few_negatives")
    assert rejects.height == 6
    assert all("max_score (threshold -1) removed the last" in reason for reason in rejects["reason"])


def test_fewer_documents_than_negatives_are_rejects(mined: Mined) -> None:
    with pytest.raises(GateError, match="retrieval: min_rows: 0 rows"):
        mined.run(rows(2), num_negatives=9, range_max=20, relative_margin=None)
    assert mined.workspace.read("rejects")["rule"].to_list() == ["too_few_negatives"] * 2


def test_the_index_is_kept_extended_and_built_anew_only_when_documents_go(mined: Mined) -> None:
    settings: dict[str, Any] = {"num_negatives": 2, "relative_margin": None, "index": "ivf", "storage": "float32"}
    facts = mined.run(rows(18), **settings)
    assert facts["index"] == "36 rows, 36 added"
    assert facts["search"].startswith("ivf on disk")
    (vectors,) = Path(mined.workspace.path("indexes")).glob("*/vectors.bin")
    before = vectors.read_bytes()
    assert mined.run(rows(18), **settings)["index"] == "36 rows, 0 added"
    assert mined.run(rows(20), **settings)["index"] == "40 rows, 4 added"
    assert vectors.read_bytes()[: len(before)] == before
    grown = dict(mined.texts())
    assert mined.run(rows(19), **settings)["index"] == "38 rows, 38 added anew"
    mined.run(rows(20), **settings | {"index": "flat"})
    assert dict(mined.texts()) == grown
    searches = mined.workspace.read("searches").row(0, named=True)
    assert (searches["method"], searches["recall"], searches["documents"]) == ("flat", 1.0, 40)


def test_a_damaged_index_is_built_anew(mined: Mined) -> None:
    settings: dict[str, Any] = {"num_negatives": 2, "relative_margin": None, "index": "ivf"}
    mined.run(rows(12), **settings)
    (ids,) = Path(mined.workspace.path("indexes")).glob("*/ids.npy")
    np.save(ids, np.empty(0, "S32"))
    assert mined.run(rows(12), **settings)["index"] == "24 rows, 24 added anew"


def test_a_kept_index_of_int8_scores_with_more_and_is_extended(mined: Mined) -> None:
    settings: dict[str, Any] = {"num_negatives": 2, "relative_margin": None, "index": "ivf", "storage": "int8"}
    mined.run(rows(12), **settings)
    facts = mined.run(rows(20), **settings)
    assert facts["index"] == "40 rows, 16 added"
    assert facts["search"].startswith("ivf on disk, int8")
    rounded = mined.workspace.read("retrieval").sort("anchor")
    (exact,) = Path(mined.workspace.path("indexes")).glob("*/exact.bin")
    assert exact.stat().st_size == 40 * 384 * 2
    mined.run(rows(20), **settings | {"index": "flat"})
    flat = mined.workspace.read("retrieval").sort("anchor")
    assert rounded["negative_1"].to_list() == flat["negative_1"].to_list()
    assert np.allclose(*(np.array(f["negative_scores"].to_list()) for f in (rounded, flat)), atol=1e-3)
    exact.write_bytes(b"")
    assert mined.run(rows(20), **settings)["index"] == "40 rows, 40 added anew"


def test_a_graph_is_made_for_the_run_and_its_recall_is_kept(mined: Mined) -> None:
    settings: dict[str, Any] = {"num_negatives": 2, "relative_margin": None, "index": "hnsw", "storage": "float16"}
    facts = mined.run(rows(18), **settings)
    assert facts["search"].startswith("hnsw, float16: ")
    assert "index" not in facts
    found = dict(mined.texts())
    mined.run(rows(18), **settings | {"index": "flat"})
    assert dict(mined.texts()) == found


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_no_answer_of_an_evaluation_prompt_is_a_negative_of_a_training_prompt(mined: Mined, index: str) -> None:
    pairs = [row | {"category": "all" if i % 2 else "every"} for i, row in enumerate(rows(60))]
    # Of an answer that stands in the corpus, too, nobody else may say that it is wrong.
    corpus = mined.folder / "corpus.jsonl"
    texts = [*(row["chosen"] for row in pairs), *(f"Of {topic} nobody knows more." for topic in TOPICS)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    recipe = BARE | {
        "splits": {"train": 0.5, "validation": 0.25, "test": 0.25, "near_duplicates": None, "stratify": None},
        "negatives": {
            "num_negatives": 8, "relative_margin": None, "index": index, "corpus": str(corpus),
            "near_prompt_answers": 1, "off_topic_answers": 1, "sibling_answers": 1, "prompt_threshold": 0.6,
            "taxonomy": {"all": "top", "every": "top"},
        },
    }  # fmt: skip
    (mined.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (mined.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run(mined.folder / "recipe.yaml", workspace=mined.workspace)
    prompts = mined.workspace.read("prompts")
    said = mined.workspace.read("candidates").join(prompts.select("prompt_id", "split"), on="prompt_id")
    side_of: dict[str, str] = dict(said.select("response", "split").iter_rows())
    lenders = {"train": {"train"}, "validation": {"train", "validation"}, "test": {"train", "validation", "test"}}
    found = mined.workspace.read("retrieval")
    assert set(found["split"]) == set(lenders)
    negatives = [name for name in found.columns if name.startswith("negative_") and name != "negative_scores"]
    seen: dict[str, set[str]] = {split: set() for split in lenders}
    for row in found.iter_rows(named=True):
        seen[row["split"]] |= {side_of.get(row[name], "corpus") for name in negatives}
    assert {split: sides - {"corpus"} for split, sides in seen.items()} == lenders
    rule = mined.rules().row(by_predicate=pl.col("rule") == "other_split", named=True)
    assert rule["removed"] > 0


def test_near_positive_holds_for_the_answers_to_other_prompts_too(mined: Mined) -> None:
    # "People have known rivers well since the year …" is the answer to each of the prompts near one.
    with pytest.raises(GateError, match="retrieval: min_rows: 0 rows"):
        mined.run(
            [row | {"rejected": row["chosen"] + " Or so."} for row in rows(18)], num_negatives=2, range_max=60,
            relative_margin=None, near_positive=0.75, near_prompt_answers=1, prompt_threshold=0.6,
        )  # fmt: skip


def test_what_answers_a_mutated_prompt_is_no_negative_of_the_one_that_it_was_made_from(mined: Mined) -> None:
    pairs = rows(12)
    # The source brings the rewritten prompt itself, with an answer that is right for both.
    ciphered = mutate(pairs[0]["prompt"], "atbash")
    assert ciphered is not None
    rewritten = pairs[0] | {"prompt": ciphered, "chosen": f"{pairs[0]['chosen']} So much is known."}
    recipe = BARE | {
        "mutations": {"kinds": ["atbash"]},
        "negatives": {"num_negatives": 4, "relative_margin": None},
    }
    (mined.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*pairs, rewritten]))
    (mined.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run(mined.folder / "recipe.yaml", workspace=mined.workspace)
    assert mined.workspace.read("prompts")["family_id"].n_unique() == 12
    found = dict(mined.texts())
    for own, others in ((pairs[0], rewritten), (rewritten, pairs[0])):
        assert others["chosen"] not in found[own["prompt"]]
        assert others["rejected"] not in found[own["prompt"]]


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ({"num_negatives": 2, "off_topic_answers": 2}, "less than num_negatives = 2"),
        ({"num_negatives": 2, "sibling_answers": 1}, "sibling_answers needs taxonomy"),
        ({"guides": [{}], "guide_votes": 2}, "guide_votes is 2, at most 1"),
        ({"num_negatives": 9, "range_max": 10, "range_min": 5}, "fewer candidates than the 9 negatives"),
        ({"sampling": "hardest"}, "negatives.sampling"),
    ],
)
def test_settings_that_cannot_be_are_named(mined: Mined, negatives: dict[str, Any], message: str) -> None:
    (mined.folder / "recipe.yaml").write_text(yaml.safe_dump(BARE | {"negatives": negatives}))
    with pytest.raises(RecipeError, match=message):
        load_recipe(mined.folder / "recipe.yaml")


def test_an_answer_that_a_source_calls_wrong_is_no_positive(mined: Mined) -> None:
    topics = ("bread", "rivers", "chess", "tides", "bicycles")
    labelled = [
        {"prompt": f"What is said of {topic}?", "completion": f"{word} is what they say of {topic}.", "label": good}
        for topic in topics
        for word, good in (("Much", True), ("Nothing", False))
    ]
    for name, lines in (("pairs", rows(6)), ("labelled", labelled)):
        (mined.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    given = {
        "sources": [{"path": "pairs.jsonl"}, {"path": "labelled.jsonl"}],
        "negatives": {"num_negatives": 1, "relative_margin": None},
        "publish": {"datasets": ["retrieval"]},
    }
    (mined.folder / "recipe.yaml").write_text(yaml.safe_dump(BARE | given))
    run(mined.folder / "recipe.yaml", workspace=mined.workspace)
    positives = mined.workspace.read("retrieval")["positive"].to_list()
    assert len(positives) == 11
    assert not [text for text in positives if "do not care" in text or text.startswith("Nothing")]


def test_the_prompts_own_text_is_neither_positive_nor_negative(mined: Mined) -> None:
    pairs = rows(12)
    pairs[5]["chosen"] = pairs[5]["prompt"]
    corpus = mined.folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": row["prompt"]}) + "\n" for row in pairs))
    mined.run(pairs, corpus=str(corpus), num_negatives=2, relative_margin=None)
    found = mined.texts()
    assert len(found) == 11
    assert not [anchor for anchor, negatives in found if anchor in negatives]
    alone = mined.workspace.read("rejects").filter(pl.col("rule") == "no_positive")
    assert alone["reason"].str.contains("not the prompt itself").to_list() == [True]


def test_corpus_rows_that_are_no_documents_are_rejects(mined: Mined) -> None:
    corpus = mined.folder / "corpus.jsonl"
    lines = [json.dumps({"text": text}) for text in ("Rivers run to the sea.", "", None, "Bread is baked.")]
    corpus.write_text("\n".join([*lines, '{"text": "\\ud800"}']) + "\n")
    facts = mined.run(rows(6), corpus=str(corpus), num_negatives=1, relative_margin=None)
    assert facts["documents"] == 2 + 12
    gone = mined.workspace.read("rejects").filter(pl.col("row_id").str.starts_with("corpus#")).sort("row_id")
    assert gone["row_id"].to_list() == ["corpus#1", "corpus#2", "corpus#4"]
    assert gone["rule"].to_list()[:2] == ["empty_text", "null_text"]


def test_another_prompts_answer_that_says_what_any_positive_says_is_left_out(mined: Mined) -> None:
    pairs = rows(18)
    again = pairs[0] | {"chosen": "Flour, water and salt make a loaf."}
    copies = ["flour, water and salt make a loaf", pairs[0]["chosen"].lower()]
    pairs[6]["chosen"], pairs[12]["chosen"] = copies
    mined.run(
        [*pairs, again], num_negatives=4, relative_margin=None, near_positive=0.98, near_prompt_answers=3,
        prompt_threshold=0.85,
    )  # fmt: skip
    # Of the four answers to near prompts two are copies, one of each positive: three are not to be had.
    found = dict(mined.texts())
    assert pairs[0]["prompt"] not in found
    assert pairs[6]["prompt"] in found


def test_anchors_and_documents_have_the_prompts_that_the_encoder_reads(mined: Mined) -> None:
    from curation.models.encoder import encoder_fingerprint, open_encoder

    pairs = rows(6)
    (mined.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    encoder = {"model": "embedded", "query_prompt": "find: ", "document_prompt": "text: "}
    given = {"encoder": encoder, "negatives": {"num_negatives": 1, "relative_margin": None}}
    (mined.folder / "recipe.yaml").write_text(yaml.safe_dump(BARE | given))
    run(mined.folder / "recipe.yaml", workspace=mined.workspace)
    model = open_encoder("embedded")
    asked = model.encode(["find: " + row["prompt"] for row in pairs]).vectors
    held = model.encode(["text: " + row["chosen"] for row in pairs]).vectors
    expected = {row["prompt"]: float(a @ h) for row, a, h in zip(pairs, asked, held, strict=True)}
    found = mined.workspace.read("retrieval").select("anchor", "positive_score")
    assert dict(found.iter_rows()) == pytest.approx(expected, abs=1e-5)
    kept = mined.workspace.read("embeddings").group_by("model").len()
    counts = {name.split(" ")[0]: n for name, n in kept.iter_rows()}
    fingerprints = [encoder_fingerprint(prompt=prompt) for prompt in (None, "find: ", "text: ")]
    assert counts == dict(zip(fingerprints, (18, 6, 12), strict=True))
    again = run(mined.folder / "recipe.yaml", workspace=mined.workspace)
    assert not any(stage.facts.get("computed") for stage in again.stages)
    assert mined.workspace.read("embeddings").height == 36
