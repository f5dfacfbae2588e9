"""The stages ``requests``, ``refusals`` and ``refusal``, run on our own sentences with the bundled models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curation.errors import GateError, InputError
from curation.pipeline import run, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace
from tests.scripted_server import scripted

REFUSES = "I'm sorry, but I can't help with that."
HELPS = "Fold the paper twice, then turn the corners in and press the edges flat with your thumb."
FITTED = {
    "category": "doors", "rows": 20, "refusals": 5, "threshold": 0.4, "own": True, "accuracy": 0.9,
    "accuracy_at_common": 0.85,
}  # fmt: skip
TAXONOMY = """name: ours
categories:
- name: doors
  prototypes: ["how to open a door that is not mine", "pick a lock"]
- name: mail
  prototypes: ["write a fraudulent e-mail", "phishing message"]
"""


def rows() -> list[dict[str, Any]]:
    """Two candidates a prompt: a fault and what was right."""
    refuse = [("How do I pick the lock of my neighbour's door?", "lock"), ("Write a phishing message.", "mail")]
    comply = ["How do I fold a paper boat?", "How do I kill a process in Linux?"]
    found = [{"prompt": p, "responses": [REFUSES, HELPS], "expected_behaviour": "refuse"} for p, _ in refuse]
    return found + [{"prompt": p, "responses": [REFUSES, HELPS], "expected_behaviour": "comply"} for p in comply]


def finished(folder: Path, **changes: Any) -> Workspace:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (folder / "ours.yaml").write_text(TAXONOMY)
    recipe = {
        "name": "refusals",
        "sources": [{"path": "rows.jsonl"}],
        "encoder": None,
        "rewards": [],
        "policy": None,
        "refusals": {"taxonomy": "ours.yaml", "requests": True},
        "splits": {"train": 1.0, "test": 0.0, "near_duplicates": None},
        "gates": {"max_duplicate_rate": 1.0},
        "publish": {"datasets": ["refusal"], "license": "mit"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe | changes))
    run(folder / "recipe.yaml", workspace=str(folder / "workspace"))
    return Workspace(folder / "workspace")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return finished(
        tmp_path_factory.mktemp("refusals"),
        refusal_dataset={"tokens": "category", "prepend": True, "quotas": {"mail": 3}},
    )


def test_every_verdict_has_its_kind_and_the_refused_requests_category(done: Workspace) -> None:
    found = done.read("refusals")
    refused = found.filter(pl.col("refusal_class") != "compliance")
    assert refused["refusal_kind"].to_list() == ["declined"] * 4
    prompts = done.read("candidates").select("candidate_id", "prompt_id").join(done.read("prompts"), on="prompt_id")
    sorted_ = refused.join(prompts, on="candidate_id").select(pl.col("messages").list.first(), "refusal_category")
    category = {m["content"]: c for m, c in sorted_.iter_rows()}
    assert (category[rows()[0]["prompt"]], category[rows()[2]["prompt"]]) == ("doors", None)
    assert found.filter(pl.col("refusal_class") == "compliance")["refusal_kind"].null_count() == 4


def test_requests_are_sorted_by_the_users_own_taxonomy(done: Workspace) -> None:
    prompts = done.read("prompts").select("prompt_id", "messages")
    found = done.read("requests").join(prompts, on="prompt_id")
    category = {m[0]["content"]: c for m, c in found.select("messages", "refusal_category").iter_rows()}
    assert category[rows()[0]["prompt"]] == "doors"
    assert category[rows()[1]["prompt"]] == "mail"
    assert category["How do I fold a paper boat?"] is None


def test_each_prompt_gives_its_right_answer_with_its_token(done: Workspace) -> None:
    built = done.read("refusal")
    by_prompt = {
        m[0]["content"]: (m[-1]["content"], t) for m, t in built.select("messages", "refusal_token").rows()
    }
    assert by_prompt[rows()[0]["prompt"]] == (f"[doors] {REFUSES}", "[doors]")
    assert by_prompt["How do I fold a paper boat?"] == (f"[respond] {HELPS}", "[respond]")
    assert built["kind"].value_counts().sort("kind").rows() == [("contrast", 2), ("refusal", 2)]


def test_faults_are_rejected_with_their_rule_and_turned_round(done: Workspace) -> None:
    rejects = done.read("rejects").filter(pl.col("stage") == "refusal")
    assert rejects["rule"].value_counts().sort("rule").rows() == [("over_refusal", 2), ("unsafe_compliance", 2)]
    pairs = done.read("refusal_pairs")
    candidates = done.read("candidates").select("candidate_id", "response")
    sides = pairs.join(candidates, left_on="chosen_id", right_on="candidate_id").select("fault", "response")
    assert dict(sides.unique().iter_rows()) == {"over_refusal": HELPS, "unsafe_compliance": REFUSES}


def test_a_quota_that_cannot_be_met_is_reported_and_not_padded(tmp_path: Path) -> None:
    from curation.recipe import load_recipe
    from curation.stages import refusal
    from curation.stages.context import Context

    workspace = finished(tmp_path, refusal_dataset={"quotas": {"mail": 3}})
    context = Context(workspace, load_recipe(tmp_path / "recipe.yaml"))
    assert refusal.run(context).facts["short of mail"] == "2 of 3"
    assert workspace.read("refusal").filter(pl.col("category") == "mail").height == 1
    html = workspace.read_text(*workspace.report_parts) or ""
    assert "<b>2 rows are missing</b>: 1 category does not meet its quota. Nothing was padded." in html


def test_a_quota_that_leaves_no_room_for_contrast_is_told(tmp_path: Path) -> None:
    from curation.stages import refusal

    given = [{**row, "category": "mail"} for row in rows()]
    (tmp_path / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    workspace = finished(
        tmp_path,
        sources=[{"path": "given.jsonl"}],
        refusal_dataset={"quotas": {"mail": 1}, "contrast_per_refusal": 1},
    )
    facts = refusal.run(Context(workspace, load_recipe(tmp_path / "recipe.yaml"))).facts
    assert facts["quotas without room for contrast"] == "1 (mail): from 2 rows on there is"
    html = workspace.read_text(*workspace.report_parts) or ""
    assert "<b>1 quota has no room for contrast</b>: it takes refusals alone, and from 2 rows on both." in html


def test_the_report_tells_who_wrote_the_answers_of_sources(tmp_path: Path) -> None:
    first, *others = rows()
    named = [{**row, "generator": "polite-7b"} for row in others]
    again = {**others[0], "generator": "later-7b"}  # the first who is named stays
    (tmp_path / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (first, *named, again)))
    workspace = finished(tmp_path, sources=[{"path": "named.jsonl", "generator": "some-1b"}])
    told = workspace.read("candidates")["generator"].value_counts().sort("generator")
    assert dict(told.iter_rows()) == {"polite-7b": 2 * len(others), "some-1b": 2}
    html = workspace.read_text(*workspace.report_parts) or ""
    assert "<td>polite-7b</td>" in html
    assert "<td>some-1b</td>" in html


def test_a_misspelt_quota_ends_the_run_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"quotas: no prompt can have the category 'mial' \(did you mean 'mail'"):
        finished(tmp_path, refusal_dataset={"quotas": {"mial": 3}})
    assert Workspace(tmp_path / "workspace").version("prompts") is None


def test_a_category_of_a_source_goes_by_the_name_that_the_taxonomy_has_for_it(tmp_path: Path) -> None:
    from curation.recipe import load_recipe
    from curation.stages import refusal
    from curation.stages.context import Context

    given = [{**row, "category": "MAIL" if "phishing" in row["prompt"] else "Boats"} for row in rows()]
    (tmp_path / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    workspace = finished(
        tmp_path,
        sources=[{"path": "given.jsonl"}],
        refusal_dataset={"quotas": {"mail": 1, "Boats": 2}, "tokens": "category"},
    )
    assert workspace.read("refusal_quotas").rows() == [("Boats", 2, 2, 0, None), ("mail", 1, 1, 0, None)]
    assert set(workspace.read("refusal")["category"]) == {"Boats", "mail"}
    empty = workspace.read("gates").filter(pl.col("name") == "max_empty_categories")
    assert empty["value"].to_list() == [0.0]
    assert set(workspace.read("prompts")["category"]) == {"Boats", "MAIL"}
    html = workspace.read_text(*workspace.report_parts) or ""
    # What was forgotten since may have been all of a category.
    context = Context(workspace, load_recipe(tmp_path / "recipe.yaml"))
    workspace.overwrite("inputs", workspace.read("inputs").filter(pl.col("category") != "Boats"))
    assert refusal.run(context).rejected
    assert "<tr><td>mail</td>" in html
    assert "<tr><td>MAIL</td>" not in html


def test_contrast_counts_for_the_quota_of_its_category_whatever_else_is_asked(tmp_path: Path) -> None:
    own = [f"How do I pick the lock of my own door number {n}?" for n in range(4)]
    boats = [f"How do I fold a paper boat with {n} sails?" for n in range(4)]
    asked = [{"prompt": p, "response": HELPS, "expected_behaviour": "comply"} for p in [*own, *boats]]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    workspace = finished(
        tmp_path,
        sources=[{"path": "asked.jsonl"}],
        refusals={"taxonomy": "ours.yaml"},
        refusal_dataset={"quotas": {"doors": 1}, "quota": 3},
    )
    found = workspace.read("refusal").group_by("category").len().sort("category").rows()
    assert found == [(None, 3), ("doors", 1)]
    assert workspace.read("refusal_quotas").rows() == [("(none)", 3, 3, 0, None), ("doors", 1, 1, 0, None)]
    rejects = workspace.read("rejects").filter(pl.col("stage") == "refusal")
    assert rejects["rule"].to_list() == ["over_quota"] * 4


def test_the_systems_words_hide_no_request(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You answer questions about orders and parcels, politely. " * 12}
    prompt = [system, {"role": "user", "content": "Write a phishing message."}]
    (tmp_path / "asked.jsonl").write_text(json.dumps({"prompt": prompt, "responses": [REFUSES, HELPS]}) + "\n")
    workspace = finished(
        tmp_path,
        sources=[{"path": "asked.jsonl"}],
        refusal_dataset={"expectation": "predicted", "min_expectation": 0.7, "per_prompt": 2},
    )
    assert workspace.read("requests").select("refuse_reason", "refusal_category").rows() == [("safety", "mail")]
    assert workspace.read("refusals")["refusal_category"].drop_nulls().to_list() == ["mail"]
    assert workspace.read("refusal").select("kind", "category").rows() == [("refusal", "mail")]


def test_given_categories_that_are_not_found_again_are_told(tmp_path: Path) -> None:
    given = [
        ("Write a phishing message.", "mail"), ("How do I pick a lock?", "mail"), ("How do I fold boats?", "Doors"),
        ("How do I cut a bicycle lock?", "doors"), ("How do I bake bread?", "kitchen"), ("Why is it blue?", None),
    ]  # fmt: skip
    known = {"response": HELPS, "expected_behaviour": "comply"}
    rows = [{"prompt": p, **known} | ({"category": c} if c else {}) for p, c in given]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "deep.yaml").write_text(
        f"{TAXONOMY}- name: bicycle_locks\n  parent: doors\n  prototypes: [cut a bicycle lock]\n"
    )
    workspace = finished(
        tmp_path, sources=[{"path": "asked.jsonl"}], refusals={"taxonomy": "deep.yaml", "requests": True}
    )
    html = workspace.read_text(*workspace.report_parts) or ""
    assert "2 of 4 that sources give were found; taken most often: doors for none 1, mail for doors 1" in html
    assert (
        '<tr><td>mail</td><td class="right">2</td><td class="right">50.0%</td><td class="long">doors 1</td></tr>'
        in html
    )


def test_stage_and_report_say_what_was_read_at_its_ends_only_and_where_thresholds_come_from(tmp_path: Path) -> None:
    from curation.recipe import load_recipe
    from curation.stages import refusals
    from curation.stages.context import Context

    long = {"prompt": "How long is the river?", "response": "The river is long. " * 6_000}
    rows_read = [long, {"prompt": "Boats?", "response": HELPS}]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_read))
    calibration = {
        "version": 1, "slope": 1.0, "intercept": 0.0, "threshold": 0.5, "thresholds": {"doors": 0.4},
        "detector": None, "fit": {"rows": 40, "error_before": 0.2, "error_after": 0.1, "categories": [FITTED]},
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(calibration))
    workspace = finished(
        tmp_path,
        sources=[{"path": "long.jsonl", "expected_behaviour": "comply"}],
        refusals={"taxonomy": "ours.yaml", "calibration": "c.json"},
    )
    context = Context(workspace, load_recipe(tmp_path / "recipe.yaml"))
    facts = refusals.run(context).facts
    assert facts["too long, read at both ends"] == 1
    assert facts["thresholds"] == "calibrated: threshold 0.50; 1 category has its own, 0.40"
    html = workspace.read_text(*workspace.report_parts) or ""
    assert "Of 1 only the beginning and the end were read" in html
    assert "1 category has a threshold of its own." in html
    assert "Fitted to 40 labelled answers" in html
    assert '<tr><td>doors</td><td class="right">20</td><td class="right">25.0%</td>' in html


def test_rates_by_category_are_of_all_answers_or_not_in_the_report(done: Workspace) -> None:
    from curation.recipe import RefusalDataset, load_recipe
    from curation.stages import report
    from curation.stages.context import Context

    recipe = load_recipe(Path(done.url).parent / "recipe.yaml")
    assert recipe.refusals is not None

    def refusing(asked: Any) -> dict[str, float] | None:
        found = report._refusals(Context(done, asked))
        assert found is not None
        groups = dict(found.groups)
        return {row["name"]: row["refusing"] for row in groups["category"]} if "category" in groups else None

    # Each prompt has an answer that refuses and one that does not.
    assert refusing(recipe) == {"(none)": 0.5, "doors": 0.5, "mail": 0.5}
    unasked = recipe.refusals.model_copy(update={"requests": False})
    assert refusing(recipe.model_copy(update={"refusals": unasked, "refusal_dataset": RefusalDataset()})) is None


def test_faults_turned_round_are_published_with_ches_and_take_the_place_of_the_sources_own_pairs(
    tmp_path: Path,
) -> None:
    refuse, comply = rows()[0], rows()[2]
    asked = [
        # The source prefers the unsafe compliance, and rejects the over-refusal.
        {"prompt": refuse["prompt"], "chosen": HELPS, "rejected": REFUSES, "expected_behaviour": "refuse"},
        {"prompt": comply["prompt"], "chosen": HELPS, "rejected": REFUSES, "expected_behaviour": "comply"},
        {
            "prompt": "Is the sea salty?",
            "chosen": HELPS,
            "rejected": f"{HELPS} So.",
            "expected_behaviour": "comply",
        },
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    workspace = finished(
        tmp_path,
        sources=[{"path": "asked.jsonl"}],
        policy={"model": "embedded"},
        refusals={"taxonomy": None},
        pairs={"strategies": ["provided", "refusal_faults"]},
        publish={"datasets": ["refusal", "preference"], "license": "mit"},
    )
    found = workspace.read("preference")
    by_prompt = {row["prompt"][0]["content"]: row for row in found.iter_rows(named=True)}
    assert by_prompt[refuse["prompt"]]["chosen"][0]["content"] == REFUSES
    assert by_prompt[comply["prompt"]]["chosen"][0]["content"] == HELPS
    assert [by_prompt[row["prompt"]]["strategy"] for row in asked] == [
        "refusal_faults",
        "refusal_faults",
        "provided",
    ]
    assert found["ln_ches"].null_count() == 0
    assert by_prompt[refuse["prompt"]]["rejected_refusal_class"] == "compliance"
    rules = workspace.read("rejects").filter(pl.col("stage") == "pairs")["rule"].to_list()
    assert rules == ["contradictory_pair"]
    key = ["prompt_id", "chosen_id", "rejected_id"]
    turned = workspace.read("pairs").filter(pl.col("strategy") == "refusal_faults")
    assert workspace.read("refusal_pairs").join(turned, on=key).height == turned.height == 2


def test_a_fault_that_a_source_prefers_is_not_chosen_where_nothing_can_take_its_place(tmp_path: Path) -> None:
    refuse, comply = rows()[0], rows()[2]
    asked = [
        # The source calls the only answer bad that the prompt should have.
        {"prompt": comply["prompt"], "chosen": REFUSES, "rejected": HELPS, "expected_behaviour": "comply"},
        {"prompt": refuse["prompt"], "chosen": HELPS, "rejected": f"{HELPS} So.", "expected_behaviour": "refuse"},
        {"prompt": "Is the sea salty?", "chosen": REFUSES, "rejected": HELPS},
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    workspace = finished(
        tmp_path,
        sources=[{"path": "asked.jsonl"}],
        refusals={"taxonomy": None},
        pairs={"strategies": ["provided", "refusal_faults"]},
        publish={"datasets": ["preference"], "license": "mit"},
    )
    (kept,) = workspace.read("preference").iter_rows(named=True)
    assert kept["prompt"][0]["content"] == "Is the sea salty?"  # nobody said what is expected
    left = workspace.read("rejects").filter(pl.col("table") == "pairs")
    assert sorted(left.select("rule", "value").rows()) == [
        ("chosen_is_a_fault", "over_refusal"),
        ("chosen_is_a_fault", "unsafe_compliance"),
    ]
    why = left["reason"].to_list()
    assert any(said.startswith("the prompt should be answered and the chosen answer refuses") for said in why)


def test_a_servers_error_is_neither_a_refusal_nor_chosen_over_an_answer(tmp_path: Path) -> None:
    prompt = rows()[0]["prompt"]
    error = '{"error": {"code": 503, "message": "overloaded"}}'
    asked = [{"prompt": prompt, "responses": [error, HELPS, REFUSES], "expected_behaviour": "refuse"}]
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked[0]))
    workspace = finished(
        tmp_path,
        sources=[{"path": "asked.jsonl"}],
        refusals={"taxonomy": None},
        pairs={"strategies": ["refusal_vs_compliance"]},
        publish={"datasets": ["refusal", "preference"], "license": "mit"},
    )
    (pair,) = workspace.read("preference").iter_rows(named=True)
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (REFUSES, HELPS)
    (kept,) = workspace.read("refusal").iter_rows(named=True)
    assert kept["messages"][-1]["content"] == REFUSES
    assert "no_answer" in workspace.read("rejects").filter(pl.col("stage") == "refusal")["rule"].to_list()


def test_of_a_request_that_cannot_be_read_nothing_is_expected(tmp_path: Path) -> None:
    prompts = ["東京の天気を教えてください。", "Wie koche ich Nudeln für uns?", "How do I fold a paper boat?"]
    asked = [{"prompt": prompt, "responses": [REFUSES, HELPS]} for prompt in prompts]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    workspace = finished(
        tmp_path,
        sources=[{"path": "asked.jsonl"}],
        refusals={"taxonomy": None},
        refusal_dataset={"expectation": "predicted", "min_expectation": 0.55},
    )
    (kept,) = workspace.read("refusal").iter_rows(named=True)
    assert kept["messages"][0]["content"] == asked[2]["prompt"]
    unknown = workspace.read("rejects").filter(pl.col("rule") == "expected_behaviour_unknown")
    assert unknown.height == 4


def test_faults_that_are_dropped_are_not_asked_for_as_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"refusal_dataset\.faults is drop"):
        finished(
            tmp_path,
            refusal_dataset={"faults": "drop"},
            pairs={"strategies": ["refusal_faults"]},
            publish={"datasets": ["preference"], "license": "mit"},
        )


def test_faults_dropped_give_no_pairs(tmp_path: Path) -> None:
    assert finished(tmp_path, refusal_dataset={"faults": "drop"}).read("refusal_pairs").is_empty()


def test_a_source_that_expects_nothing_is_told_how_it_could(tmp_path: Path) -> None:
    bare = [{key: value for key, value in row.items() if key != "expected_behaviour"} for row in rows()]
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    with pytest.raises(GateError, match="min_rows"):
        finished(tmp_path, sources=[{"path": "bare.jsonl"}])
    context = Context(Workspace(tmp_path / "workspace"), load_recipe(tmp_path / "recipe.yaml"))
    facts = stage_named("refusal").run(context).facts
    assert facts["to prompts of which nothing is expected"] == 8
    assert "expected_behaviour of a source" in facts["nothing is left"]


def test_a_taxonomy_with_a_cycle_ends_the_run_before_any_model(tmp_path: Path) -> None:
    (tmp_path / "round.yaml").write_text("categories: [{name: a, parent: b}, {name: b, parent: a}]")
    with pytest.raises(InputError, match="circle"):
        finished(tmp_path, refusals={"taxonomy": "round.yaml"})


def test_pairs_of_two_refusals_are_flagged_and_limited_by_ches(tmp_path: Path) -> None:
    declined = [
        "I can't help with that.",
        "I'm sorry, but I will not do this.",
        "I cannot assist with this request.",
    ]
    pairs = [
        {"prompt": f"What is {n} and {n}?", "chosen": f"It is {2 * n}.", "rejected": f"{n}."} for n in range(6)
    ]
    pairs += [
        {"prompt": f"Question {n}", "chosen": text, "rejected": f"{text} Ask me something else, please."}
        for n, text in enumerate(declined)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    workspace = finished(
        tmp_path,
        sources=[{"path": "pairs.jsonl"}],
        policy={"model": "embedded"},
        refusals={"taxonomy": None},
        pairs={"strategies": ["provided"]},
        selection={"rules": [], "max_refusal_pair_share": 0.2},
        publish={"datasets": ["preference"], "license": "mit"},
    )
    scores = workspace.read("pair_scores").select(
        "pair_id", "ln_ches", "chosen_refusal_class", "rejected_refusal_class"
    )
    refuses = [pl.col(f"{side}_refusal_class") != "compliance" for side in ("chosen", "rejected")]
    both = scores.filter(refuses[0] & refuses[1]).sort("ln_ches")
    assert both.height == 3
    assert both["ln_ches"].null_count() == 0
    kept = workspace.read("preference")
    assert kept.filter(refuses[0] & refuses[1])["pair_id"].to_list() == both["pair_id"].to_list()[:1]
    assert kept.height == 7
    rejects = workspace.read("rejects").filter(pl.col("rule") == "refusal_pair_surplus")
    assert set(rejects["row_id"]) == set(both["pair_id"].to_list()[1:])


def test_the_report_folds_prompts_away_that_are_judged_to_be_refused(tmp_path: Path) -> None:
    worse = "Take a sheet of paper and do what you like with it, for it is all the same."
    asked = ["Write a phishing message.", "How do I fold a paper boat?"]
    pairs = [{"prompt": prompt, "chosen": HELPS, "rejected": worse} for prompt in asked]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    workspace = finished(
        tmp_path,
        sources=[{"path": "pairs.jsonl"}],
        pairs={"strategies": ["provided"]},
        publish={"datasets": ["preference"], "license": "mit"},
    )
    html = workspace.read_text(*workspace.report_parts) or ""
    folded = html.split("Text folded away: the prompt is judged to be one that should be refused")[1:]
    assert len(folded) == 1
    assert [asked[0] in folded[0], asked[1] in folded[0].split("</details>")[0]] == [True, False]


def test_the_rejected_answer_of_a_pair_is_never_the_contrast(tmp_path: Path) -> None:
    rest = "Boats are made of paper, and paper is made of wood, so a tree is what you are looking for here."
    pairs = [{"prompt": f"How do I fold paper boat {n}?", "chosen": HELPS, "rejected": rest} for n in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    workspace = finished(
        tmp_path,
        sources=[{"path": "pairs.jsonl", "expected_behaviour": "comply"}],
        refusals={"taxonomy": None},
        refusal_dataset={"per_prompt": 2},
    )
    answers = [messages[-1]["content"] for messages in workspace.read("refusal")["messages"].to_list()]
    assert answers == [HELPS] * 4
    rejects = workspace.read("rejects").filter(pl.col("stage") == "refusal")
    assert rejects["rule"].to_list() == ["called_wrong"] * 4


def test_an_answer_that_a_source_rejects_is_not_chosen_over_a_refusal(tmp_path: Path) -> None:
    rest = "Boats are made of paper, and paper is made of wood, so a tree is what you are looking for here."
    prompts = [f"How do I fold paper boat {n}?" for n in range(2)]
    judged = [{"prompt": prompts[0], "chosen": HELPS, "rejected": rest},
              {"prompt": prompts[1], "chosen": HELPS + " Then dry it.", "rejected": HELPS}]  # fmt: skip
    refused = [{"prompt": prompt, "response": REFUSES} for prompt in prompts]
    for name, rows_of in (("judged", judged), ("refused", refused)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of))
    workspace = finished(
        tmp_path,
        sources=[{"path": f"{name}.jsonl", "expected_behaviour": "comply"} for name in ("judged", "refused")],
        refusals={"taxonomy": None},
        pairs={"strategies": ["refusal_vs_compliance"], "per_prompt": 3},
        publish={"datasets": ["preference"], "license": "mit"},
    )
    published = workspace.read("preference")
    answers = {tuple(row[side][-1]["content"] for side in ("chosen", "rejected")) for row in published.to_dicts()}
    assert answers == {(HELPS, REFUSES), (HELPS + " Then dry it.", REFUSES)}


def sorting_judge(text: str, seed: int) -> tuple[str, str]:
    """A far end that sorts, and says nothing of use on one request."""
    if "\nWrite a phishing message.\n" in text:
        return "I would rather not say", "stop"
    request = text.split(" ENDS]", maxsplit=1)[0]
    return ('{"category": "doors"}' if "lock" in request else '{"category": "none"}'), "stop"


def test_a_judge_sorts_each_request_once_and_a_category_that_cannot_be_read_takes_nothing_else(
    tmp_path: Path,
) -> None:
    with scripted(sorting_judge) as server:
        sorting = {"judge": {"model": server.model(), "revision": "1"}}
        options = {"taxonomy": "ours.yaml", "requests": True, "sorting": sorting}
        workspace = finished(tmp_path, refusals=options)
        assert len(server.asked) == len(rows())  # stage refusals takes what stage requests was told
        finished(tmp_path, refusals=options)
        assert len(server.asked) == len(rows())
        run(tmp_path / "recipe.yaml", workspace=str(tmp_path / "workspace"), retry_failed=True)
        assert len(server.asked) == len(rows()) + 1
    prompts = workspace.read("prompts").select("prompt_id", "messages")
    found = workspace.read("requests").join(prompts, on="prompt_id")
    category = {row["messages"][-1]["content"]: row["refusal_category"] for row in found.iter_rows(named=True)}
    assert [category[row["prompt"]] for row in rows()] == ["doors", None, None, None]
    assert found["refuse_probability"].null_count() == 0
    verdicts = workspace.read("refusals")
    assert verdicts["refusal_class"].value_counts().sort("count").height == 2
    assert verdicts.height == 2 * len(rows())
    assert verdicts["refusal_category"].drop_nulls().to_list() == ["doors"]
    failures = workspace.read("failures")
    assert failures.select("step", "rule").rows() == [("requests", "unreadable_category")]


def test_without_judged_requests_too_a_verdict_outlives_a_category_that_cannot_be_read(tmp_path: Path) -> None:
    with scripted(sorting_judge) as server:
        sorting = {"judge": {"model": server.model(), "revision": "1"}}
        workspace = finished(tmp_path, refusals={"taxonomy": "ours.yaml", "sorting": sorting})
        asked = len(server.asked)
        run(tmp_path / "recipe.yaml", workspace=str(tmp_path / "workspace"), retry_failed=True)
        assert len(server.asked) == asked + 1
    verdicts = workspace.read("refusals")
    assert verdicts["candidate_id"].n_unique() == verdicts.height == 2 * len(rows())
    assert workspace.read("refusal").height == len(rows())
    (failure,) = workspace.read("failures").iter_rows(named=True)
    assert (failure["step"], failure["rule"]) == ("refusals", "unreadable_category")
    (mine,) = verdicts.filter(pl.col("candidate_id") == failure["item_id"]).iter_rows(named=True)
    assert (mine["refusal_class"], mine["refusal_category"]) == ("full_refusal", None)


class Verdicts:
    """A far end that judges answers and sorts requests; of one request it cannot tell the category for a while."""

    def __init__(self) -> None:
        self.verdicts, self.categories, self.is_off = list[str](), list[str](), True

    def __call__(self, text: str, seed: int) -> tuple[str, str]:
        if '"verdict"' in text:
            self.verdicts.append(text)
            return (
                '{"verdict": "C", "kind": "declined"}' if REFUSES in text else '{"verdict": "A", "kind": null}'
            ), "stop"
        self.categories.append(text)
        request = text.split(" ENDS]", maxsplit=1)[0]
        if "lock" not in request:
            return '{"category": "none"}', "stop"
        return ("I would rather not say" if self.is_off else '{"category": "doors"}'), "stop"


CALIBRATED_ONES = pl.col("detector").str.contains(" calibrated@", literal=True)


def verdict_on_the_lock(workspace: Workspace) -> tuple[str, str | None]:
    prompts = workspace.read("prompts").select("prompt_id", asked=pl.col("messages").list.first().struct["content"])
    verdicts = workspace.read("refusals").sort(CALIBRATED_ONES).unique("candidate_id", keep="last")
    found = verdicts.join(workspace.read("candidates"), on="candidate_id")
    found = found.join(prompts, on="prompt_id").filter(
        pl.col("asked").str.contains("lock") & (pl.col("response") == REFUSES)
    )
    ((name, category),) = found.select("refusal_class", "refusal_category").iter_rows()
    return name, category


def test_a_retry_for_a_category_does_not_ask_for_the_verdict_again(tmp_path: Path) -> None:
    far = Verdicts()
    with scripted(far) as server:
        judge = {"model": server.model(), "revision": "1"}
        options = {"taxonomy": "ours.yaml", "judge": judge, "sorting": {"judge": judge}}
        workspace = finished(tmp_path, refusals=options)
        assert verdict_on_the_lock(workspace) == ("full_refusal", None)
        verdicts, categories = len(far.verdicts), len(far.categories)
        before = workspace.read("refusals").drop("refusal_category").sort("candidate_id")
        far.is_off = False
        run(tmp_path / "recipe.yaml", workspace=str(tmp_path / "workspace"), retry_failed=True)
        assert (len(far.verdicts), len(far.categories)) == (verdicts, categories + 1)
    assert verdict_on_the_lock(workspace) == ("full_refusal", "doors")
    assert workspace.read("refusals").drop("refusal_category").sort("candidate_id").equals(before)
    assert workspace.read("failures").is_empty()


@pytest.mark.parametrize("requests", [True, False])
def test_a_verdict_is_drawn_anew_under_its_categorys_threshold_when_the_category_is_told(
    tmp_path: Path, requests: bool
) -> None:
    calibration = {
        "version": 1, "slope": 1.0, "intercept": 0.0, "threshold": 0.5, "thresholds": {"doors": 1.0},
        "detector": None,
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(calibration))
    far = Verdicts()
    with scripted(far) as server:
        judge = {"model": server.model(), "revision": "1"}
        options = {"taxonomy": "ours.yaml", "judge": judge, "sorting": {"judge": judge}, "requests": requests}
        workspace = finished(tmp_path, refusals=options | {"calibration": "c.json"})
        assert verdict_on_the_lock(workspace) == ("full_refusal", None)
        verdicts, categories = len(far.verdicts), len(far.categories)
        far.is_off = False
        run(tmp_path / "recipe.yaml", workspace=str(tmp_path / "workspace"), retry_failed=True)
        assert (len(far.verdicts), len(far.categories)) == (verdicts, categories + 1)
        run(tmp_path / "recipe.yaml", workspace=str(tmp_path / "workspace"), retry_failed=True)
        assert len(far.verdicts) == verdicts
    assert verdict_on_the_lock(workspace) == ("compliance", "doors")
    found = workspace.read("refusals")
    assert found.filter(CALIBRATED_ONES)["candidate_id"].is_unique().all()
    # The detector's own verdicts are there, too.
    assert found.group_by(CALIBRATED_ONES).len()["len"].to_list() == [2 * len(rows())] * 2


def test_a_calibration_asks_for_no_verdict_that_is_known(tmp_path: Path) -> None:
    calibration = {
        "version": 1, "slope": 0.5, "intercept": 0.2, "threshold": 0.5, "thresholds": {}, "detector": None,
    }  # fmt: skip
    far = Verdicts()
    with scripted(far) as server:
        options = {"taxonomy": None, "judge": {"model": server.model(), "revision": "1"}}
        workspace = finished(tmp_path, refusals=options)
        before = workspace.read("refusals").sort("candidate_id")
        asked = len(far.verdicts)
        for threshold in (0.5, 0.999_999):
            (tmp_path / "c.json").write_text(json.dumps(calibration | {"threshold": threshold}))
            finished(tmp_path, refusals=options | {"calibration": "c.json"})
    assert len(far.verdicts) == asked == 2 * len(rows())
    found = workspace.read("refusals").filter(~pl.col("detector").is_in(before["detector"].unique().implode()))
    strict, mild = (part.sort("candidate_id") for _, part in sorted(found.group_by("detector"), key=_refusing))
    assert strict["refusal_class"].unique().to_list() == ["compliance"]
    assert mild["refusal_class"].to_list() == before["refusal_class"].to_list()
    logits = np.log(1e6 - 1) * np.where(before["refusal_class"] == "compliance", -1.0, 1.0)
    assert mild["refusal_probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(-(0.5 * logits + 0.2))))


def test_a_run_that_is_calibrated_from_its_start_asks_once_whatever_the_calibration_is_then(tmp_path: Path) -> None:
    far = Verdicts()
    calibration = {
        "version": 1, "slope": 0.5, "intercept": 0.2, "threshold": 0.5, "thresholds": {}, "detector": None,
    }  # fmt: skip
    with scripted(far) as server:
        options = {"taxonomy": None, "judge": {"model": server.model(), "revision": "1"}}
        for threshold in (0.5, 0.7, 0.999_999):
            (tmp_path / "c.json").write_text(json.dumps(calibration | {"threshold": threshold}))
            workspace = finished(tmp_path, refusals=options | {"calibration": "c.json"})
        finished(tmp_path, refusals=options)
    assert len(far.verdicts) == 2 * len(rows())
    own = workspace.read("refusals").filter(~CALIBRATED_ONES)
    assert set(own["refusal_probability"]) == {0.0, 1.0}


def test_a_verdict_that_cannot_be_read_is_asked_for_once_where_it_would_be_calibrated(tmp_path: Path) -> None:
    asked = list[str]()

    def judge(text: str, seed: int) -> tuple[str, str]:
        asked.append(text)
        return ("hm" if REFUSES in text else '{"verdict": "A", "kind": null}'), "stop"

    calibration = {
        "version": 1, "slope": 1.0, "intercept": 0.0, "threshold": 0.5, "thresholds": {}, "detector": None,
    }  # fmt: skip
    with scripted(judge) as server:
        options = {"taxonomy": None, "judge": {"model": server.model(), "revision": "1"}, "calibration": "c.json"}
        (tmp_path / "c.json").write_text(json.dumps(calibration))
        workspace = finished(tmp_path, refusals=options)
    assert len(asked) == 2 * len(rows())
    failed = workspace.read("failures")
    assert failed["rule"].to_list() == ["unreadable_verdict"] * len(rows())
    assert workspace.read("refusals").filter(CALIBRATED_ONES).height == len(rows())


def _refusing(group: tuple[Any, pl.DataFrame]) -> int:
    return group[1].filter(pl.col("refusal_class") != "compliance").height
