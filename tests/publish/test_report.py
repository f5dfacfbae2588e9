"""The report: self-contained, escaped, deterministic, and it holds however odd the data are."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from typing import Any

import polars as pl
import pytest

from curation.publish.gates import GateResult
from curation.publish.next_steps import next_steps
from curation.publish.refusing import BuiltSummary, RefusalSummary
from curation.publish.report import ReportData, Threshold, format_number, render_report
from curation.publish.summary import group_rows, reject_rows, sample_pairs, score_summary
from curation.tables import empty_rejects, rejects_frame
from curation.text import content_hash
from schemas import TABLES


def make_pairs(count: int = 80, **fixed: object) -> pl.DataFrame:
    rng = random.Random(5)
    rows = []
    for number in range(count):
        dropped = number % 4 == 0
        row = {
            "pair_id": content_hash("pair", str(number)),
            "prompt": [{"role": "user", "content": f"prompt {number}"}],
            "chosen": "good " * rng.randint(1, 20),
            "rejected": "bad " * rng.randint(1, 20),
            "source": ("one", "two")[number % 2],
            "category": None if number % 5 == 0 else "home",
            "split": "train",
            "strategy": "provided",
            "expected_behaviour": None,
            "strength_mean": rng.gauss(0.5, 1),
            "ln_ches": rng.gauss(-1, 0.5),
            "chosen_refusal_class": "compliance",
            "rejected_refusal_class": "compliance",
            "status": "dropped" if dropped else "kept",
            "rule": f"rule_{number % 3}" if dropped else None,
            "reason": f"value {number} is too low" if dropped else None,
        }
        rows.append({**row, **fixed})
    return pl.DataFrame(rows, infer_schema_length=None)


def make_data(pairs: pl.DataFrame) -> ReportData:
    waterfall = pl.DataFrame(
        {
            "dataset": ["preference"] * 2,
            "position": [0, 1],
            "stage": ["inputs", "selection"],
            "rule": ["empty_response", "rule_1"],
            "removed": [3, 20],
            "left": [80, 60],
        }
    )
    dropped = pairs.filter(pl.col("status") == "dropped")
    rejects = rejects_frame(
        dropped,
        table="pairs",
        stage="selection",
        row_id=pl.col("pair_id"),
        rule=pl.col("rule"),
        reason=pl.col("reason"),
    )
    return ReportData(
        name="test run",
        facts={"seed": "0"},
        waterfall=waterfall,
        pairs=pairs,
        rejects=rejects,
        models=[{"step": "rewards", "producer": "m@1", "computed": 9, "reused": 0, "failed": 0, "seconds": 1.5}],
        gates=[GateResult("min_rows", "preference", 60.0, 1.0, True, True, "60 rows")],
        thresholds=[Threshold("ln_ches", "max", 0.1, "recipe")],
        versions={"pairs": "3"},
        datasets={"preference": {"train": 50, "test": 10}},
    )


NASTY = "</div></details><script>alert(1)</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Which tags, ids and addresses a page has, and which text lies outside <details>."""

    void = frozenset({"meta", "input", "br", "path", "rect", "line", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.scripts = 0
        self.in_the_open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.addresses.append(value or "")
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "details" not in self.open and "script" not in self.open and "style" not in self.open:
            self.in_the_open += data


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(make_data(make_pairs()))


def test_is_well_formed_and_its_ids_are_unique(html):
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_asks_nothing_of_any_network(html):
    assert all(address.startswith("#") for address in Page(html).addresses)
    assert "@import" not in html
    assert not [u for u in re.findall(r"url\(([^)]*)\)", html) if not u.startswith("#")]
    assert "default-src 'none'" in html


def test_equal_data_give_equal_bytes(html):
    assert render_report(make_data(make_pairs())) == html


def test_says_what_the_run_did(html):
    text = Page(html).in_the_open
    for words in ("test run", "80pairs built", "60pairs kept (75.0%)", "1 gate: 1 passed.", "m@1", "rule_2"):
        assert words in text


def test_figures_use_the_text_colour_of_the_page(html):
    assert html.count("<svg") == 7
    assert "currentColor" in html


def test_text_of_data_is_escaped():
    nasty = NASTY
    names = dict.fromkeys(("chosen", "source", "category", "strategy", "rule", "reason"), nasty)
    data = make_data(make_pairs(20, prompt=nasty, **names))._replace(name=nasty, facts={nasty: nasty})
    page = Page(render_report(data))
    assert page.scripts == 1
    assert page.open == []
    assert page.in_the_open.count(nasty) > 20


def nasty_everywhere(value: Any) -> Any:
    """The same with markup in the place of every text, in keys, too."""
    if isinstance(value, str):
        return NASTY
    if isinstance(value, pl.DataFrame):
        kept = {"status", "pair_id", "position"}
        return value.with_columns(
            pl.lit(NASTY).alias(name)
            for name, kind in value.schema.items()
            if kind in (pl.String, pl.Null) and name not in kept
        )
    if isinstance(value, dict):
        return {nasty_everywhere(k): nasty_everywhere(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_replace"):
        return type(value)(*(nasty_everywhere(part) for part in value))
    return [nasty_everywhere(part) for part in value] if isinstance(value, list | tuple) else value


def test_a_rate_of_no_answers_is_none():
    counts = dict.fromkeys(("answers", "over_refusals", "to_answer", "to_refuse", "unsafe_compliances"), 0)
    group = {"name": "g", "refusing": None, "partial": None, **counts, "to_answer": 5}
    refusals = RefusalSummary(9, 0.5, 4, 1, 5, 1, [("source", [group])], [], [])
    text = Page(render_report(make_data(make_pairs())._replace(refusals=refusals))).in_the_open
    assert "0 of 5" in text
    assert "0 of 0" not in text


def test_no_text_of_any_field_is_markup(html):
    pairs = make_pairs(20, prompt=[{"role": NASTY, "content": NASTY}], generator_chosen="g", generator_rejected="g")
    group = {
        "name": "g",
        "answers": 9,
        "refusing": 0.5,
        "partial": 0.1,
        "over_refusals": 1,
        "to_answer": 5,
        "to_refuse": 4,
        "unsafe_compliances": 2,
    }
    built = {"name": "c", "refusal": 1, "contrast": 2, "uncertain": 3, "wanted": 9, "missing": 3}
    refusals = RefusalSummary(9, 0.5, 4, 1, 5, 1, [("source", [group])], [("kind", 3)], [])
    data = make_data(pairs)._replace(
        refusals=refusals, refusal_dataset=BuiltSummary([built], 0, 3, 1, 1, 4, [("sure", 1), ("unsure", 2)])
    )
    said = nasty_everywhere(data)
    # A mapping's fields are named by the code; what they hold is not.
    models = [{key: nasty_everywhere(value) for key, value in row.items()} for row in data.models]
    groups = [(NASTY, [{key: nasty_everywhere(value) for key, value in group.items()}])]
    dataset = said.refusal_dataset._replace(categories=[{k: nasty_everywhere(v) for k, v in built.items()}])
    said = said._replace(
        models=models,
        refusals=said.refusals._replace(groups=groups),
        refusal_dataset=dataset,
        datasets=data.datasets,
    )
    text = render_report(said)
    page = Page(text)
    assert page.scripts == Page(html).scripts == 1
    assert page.open == []
    assert "<img" not in text
    assert text.count("&lt;script&gt;alert(1)") > 60


@pytest.mark.parametrize(
    ("fixed", "folded"),
    [
        ({"expected_behaviour": "refuse"}, True),
        ({"chosen_refusal_class": "full_refusal"}, True),
        ({"rejected_refusal_class": "partial_refusal"}, True),
        ({"dangerous": True}, True),
        ({"expected_behaviour": "comply"}, False),
        ({"chosen_refusal_class": None, "rejected_refusal_class": None}, False),
    ],
)
def test_text_of_dangerous_pairs_is_folded_away(fixed, folded):
    texts = {"prompt": "PROMPT-TEXT", "chosen": "CHOSEN-TEXT", "rejected": "REJECTED-TEXT"}
    page = Page(render_report(make_data(make_pairs(8, **texts, **fixed))))
    assert any(text in page.in_the_open for text in texts.values()) is not folded


def test_long_texts_are_cut_and_say_so():
    html = render_report(make_data(make_pairs(8, chosen="x" * 100_000)))
    assert "cut: the first 1,500 of 100,000 characters" in html
    assert "x" * 1_501 not in html


def test_many_turns_are_cut_and_say_so():
    turns = [{"role": "user", "content": f"turn {n}"} for n in range(9)]
    html = render_report(make_data(make_pairs(4, prompt=turns)))
    assert "earlier turns not shown: 3" in html
    assert "turn 2<" not in html


SOURCE = {"source": "mine", "kind": "pair", "rows": 10, "answers": 20, "scored": 0, "rejected": 0}


def steps(**changes):
    given = {
        "pairs": make_pairs(strength_mean=1.0),
        "bundled": [],
        "sources": [SOURCE],
        "datasets": ["preference"],
        "failed": False,
    }
    return [step.what for step in next_steps(**{**given, **changes})]


def test_what_to_do_next_names_the_rule_that_dropped_most_and_how_to_push():
    found = steps()

    assert [what.split(" ")[0] for what in found] == ["rule_0", "Give"]
    assert "dropped most, 7 pairs" in found[0]
    assert steps(failed=True) == found[:1]
    assert steps(pairs=make_pairs().clear(), datasets=[]) == []


def test_what_to_do_next_warns_of_bundled_models_and_of_labels_that_yours_contradict():
    against = make_pairs(strength_mean=-1.0)

    assert any("small bundled models" in what and "sections rewards" in what for what in steps(bundled=["rewards"]))
    assert not any("contradict" in what for what in steps(bundled=["rewards"], pairs=against))
    assert any("contradict the label of 100% of the kept" in what for what in steps(pairs=against))
    assert not any("contradict" in what for what in steps(pairs=make_pairs(strength_mean=1.0)))


def test_a_source_that_was_read_as_bare_prompts_beside_others_is_spoken_of():
    prompts = {**SOURCE, "source": "pku", "kind": "prompt", "answers": 0}

    assert any(what.startswith("pku: read as prompts without answers") for what in steps(sources=[SOURCE, prompts]))
    assert not any("without answers" in what for what in steps(sources=[prompts]))
    html = render_report(make_data(make_pairs())._replace(sources=[prompts]))
    assert "What was read" in html
    assert "<td>pku</td><td>prompt</td>" in html


def test_a_run_without_pairs_has_a_report():
    data = make_data(make_pairs())._replace(
        pairs=make_pairs().head(0),
        rejects=empty_rejects(),
        waterfall=TABLES["waterfall"].create_empty(),
        gates=[GateResult("min_rows", "preference", 0.0, 1.0, False, True, "0 rows, 1 too few")],
    )
    text = Page(render_report(data)).in_the_open
    assert "Nothing was dropped" in text
    assert "what is made from preference was not published" in text


def test_what_other_gates_let_through_is_not_said_to_be_unpublished():
    data = make_data(make_pairs())
    refused = GateResult("min_rows", "refusal", 0.0, 1.0, False, True, "0 rows, 1 too few")
    warned = GateResult("max_size_change", "preference", 0.9, 0.5, False, False, "is the change")
    text = Page(render_report(data._replace(gates=[*data.gates, refused, warned]))).in_the_open
    assert "3 gates: 1 failed, 1 warns, 1 passed; what is made from refusal was not published." in text
    of_all = refused._replace(dataset="all", name="max_leaking_prompts")
    text = Page(render_report(data._replace(gates=[*data.gates, of_all]))).in_the_open
    assert "2 gates: 1 failed, 1 passed; nothing was published." in text


def test_a_warning_is_not_shown_as_a_failure():
    data = make_data(make_pairs())
    warned = GateResult("max_size_change", "preference", 0.9, 0.5, False, False, "is the change")
    nothing = GateResult("max_tie_rate", "preference", None, 0.5, True, True, "there are no rewards")
    html = render_report(data._replace(gates=[*data.gates, warned, nothing]))
    assert '<div class="banner warned">' in html
    assert '<div class="banner failed">' not in html
    text = Page(html).in_the_open
    assert "3 gates: 1 warns, 1 passed, 1 had nothing to measure." in text
    assert "A warning keeps nothing from being published." in text
    assert "there are no rewards" in html, "it is folded away"
    assert "there are no rewards" not in text
    both = render_report(data._replace(gates=[warned, warned._replace(blocking=True, message="too much")]))
    assert '<div class="banner failed">' in both
    assert '<div class="banner warned">' in both
    assert "2 gates: 1 failed, 1 warns; what is made from preference was not published." in Page(both).in_the_open


def test_scores_that_are_not_there_or_not_finite_do_no_harm():
    pairs = make_pairs(12).with_columns(
        strength_mean=pl.lit(float("nan")), ln_ches=pl.lit(None, pl.Float64), cosine=pl.lit(0.5)
    )
    assert "cosine similarity" in render_report(make_data(pairs))


def test_pairs_without_optional_columns_have_a_report():
    needed = ["pair_id", "prompt", "chosen", "rejected", "status", "rule", "reason"]
    assert "prompt 1" in render_report(make_data(make_pairs().select(needed)))


def test_sample_takes_from_every_rule_and_is_stable():
    pairs = make_pairs(3_000)
    sample = sample_pairs(pairs)
    rules = [s.row["rule"] for s in sample]
    assert [rules.count(r) for r in (None, "rule_0", "rule_1", "rule_2")] == [60, 12, 12, 12]
    shuffled = sample_pairs(pairs.sample(fraction=1.0, shuffle=True, seed=1))
    assert [s.row["pair_id"] for s in shuffled] == [s.row["pair_id"] for s in sample]


def test_group_rows_count_by_hand():
    rows = {r["name"]: r for r in group_rows(make_pairs(), "source")}
    assert (rows["one"]["pairs"], rows["one"]["kept"]) == (40, 20)
    assert (rows["two"]["pairs"], rows["two"]["kept"]) == (40, 40)


def test_reject_rows_name_five_ids_a_rule():
    rows = reject_rows(make_data(make_pairs()).rejects)
    assert sum(r["rows"] for r in rows) == 20
    assert all(len(r["ids"]) == 5 for r in rows)


def test_thresholds_of_rejects_are_numbers_where_they_can_be():
    rejects = make_data(make_pairs()).rejects
    given = pl.when(pl.col("rule") == "rule_0").then(pl.lit("-0.6703271783965026")).otherwise(pl.lit("en, de"))
    html = render_report(make_data(make_pairs())._replace(rejects=rejects.with_columns(threshold=given)))
    assert '<td class="right">−0.670</td>' in html
    assert '<td class="right">en, de</td>' in html


def test_score_summary_ignores_what_is_not_finite():
    pairs = pl.DataFrame(
        {"s": [1.0, 3.0, float("nan"), None, 5.0], "status": ["kept", "kept", "kept", "dropped", "dropped"]}
    )
    found = score_summary(pairs, "s")
    assert (found.kept_median, found.dropped_median, found.missing) == (2.0, 5.0, 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (12345, "12,345"),
        (-0.12345, "−0.123"),
        (2.0, "2"),
        (123.456, "123.5"),
        (0.00001234, "1.2e−05"),
        (float("nan"), "not finite"),
        (True, "yes"),
        ([1.5, None], "1.500, –"),
    ],
)
def test_numbers_for_people(value, text):
    assert format_number(value) == text
