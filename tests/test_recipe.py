"""Recipes: what is allowed, and what the message says when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import RecipeError
from curation.recipe import Recipe, load_recipe

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(tmp_path: Path, text: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file)


def message(tmp_path: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)
    found = str(caught.value)
    assert "\n" not in found
    assert str(tmp_path / "recipe.yaml") in found
    return found


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_examples_are_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert all(Path(source.path).is_file() for source in recipe.sources)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, "sources: [{path: a/pairs.jsonl.gz}, {path: 'hf://owner/name:train'}]\nworkspace: w")
    assert recipe.sources[0].path == str(tmp_path / "a/pairs.jsonl.gz")
    assert recipe.sources[0].name == "pairs"
    assert recipe.sources[1].path == "hf://owner/name:train"
    assert recipe.sources[1].name == "name"
    assert recipe.workspace == str(tmp_path / "w")
    labelled = load(tmp_path, "sources: [{path: a}]\nstrength: {labelled: right.csv}").strength.labelled
    assert labelled == str(tmp_path / "right.csv")


def test_every_file_is_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    recipe = load(
        tmp_path,
        "sources: [{path: ~/pairs.jsonl}]\nworkspace: ~/w\nstrength: {labelled: reviewed.csv}\n"
        "negatives: {corpus: corpus.jsonl}\npublish: {card_template: card.jinja, datasets: [retrieval]}\n"
        "refusals: {taxonomy: mine.yaml, calibration: calibration.json}\n"
        "hygiene: {contamination: {against: [tests]}, prompts: [{against: [old.csv]}],\n"
        "  select: {method: dsir, count: 1, target: like.jsonl}}\n",
    )
    assert recipe.sources[0].path == "/home/me/pairs.jsonl"
    assert recipe.workspace == "/home/me/w"
    assert recipe.negatives is not None
    assert recipe.refusals is not None
    assert recipe.hygiene.contamination is not None
    assert recipe.hygiene.select is not None
    files = [
        recipe.strength.labelled, recipe.negatives.corpus, recipe.publish.card_template, recipe.refusals.taxonomy,
        recipe.refusals.calibration, recipe.hygiene.contamination.against[0], recipe.hygiene.prompts[0].against[0],
        recipe.hygiene.select.target,
    ]  # fmt: skip
    names = ["reviewed.csv", "corpus.jsonl", "card.jinja", "mine.yaml", "calibration.json", "tests", "old.csv"]
    assert files == [str(tmp_path / name) for name in [*names, "like.jsonl"]]


def test_none_is_null_where_a_key_may_be_null(tmp_path: Path) -> None:
    text = (
        "sources: [{path: none}]\ngeneration: [{model: none, system_prompt: NONE}]\npolicy: NONE\n"
        "refusals: {taxonomy: NONE}\nsplits: {near_duplicates: NONE}\nworkspace: NONE"
    )
    recipe = load(tmp_path, text.replace("NONE", "none"))
    assert recipe == load(tmp_path, text.replace("NONE", "null"))
    assert recipe.generation[0].model == "none"
    assert recipe.generation[0].system_prompt is None
    assert recipe.sources[0].path == str(tmp_path / "none")


def test_the_hash_is_of_the_content_and_not_of_the_workspace(tmp_path: Path) -> None:
    one = load(tmp_path, "sources: [{path: /a}]\nworkspace: one")
    two = load(tmp_path, "workspace: two\nsources:\n  - path: /a\n")
    other = load(tmp_path, "sources: [{path: /a}]\nseed: 1")
    assert one.content_hash == two.content_hash != other.content_hash


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "sorces: [{path: a}]",
            ["unknown key 'sorces'", "did you mean 'sources'?", "allowed here: name, seed"],
        ),
        ("sources: [{path: a}]\nrewards: [{modle: x}]", ["'rewards.0.modle'", "did you mean 'model'?"]),
        (
            "sources: [{path: a}]\nsplits: {trian: 1}",
            ["'splits.trian'", "allowed here: train, validation, test"],
        ),
        ("sources: [{}]", ["sources.0.path is missing"]),
        ("sources: []", ["sources", "at least 1"]),
        ("sources: [{path: a}]\nseed: -1", ["seed", "greater than or equal to 0", "found -1"]),
        ("sources: [{path: a}]\nsources: [{path: b}]", ["the key 'sources' stands twice", "line 2"]),
        ("sources: [{path: a}, {path: b/a.csv}]", ["two sources are called 'a'"]),
        ("sources: [{path: a}]\nsplits: {train: 0.5}", ["must add up to 1", "0.6"]),
        (
            "sources: [{path: a}]\nselection: {rules: [{score: strenght_mean, min: 0}]}",
            ["selection.rules.0.score", "did you mean 'strength_mean'?", "ln_ches"],
        ),
        ("sources: [{path: a}]\nselection: {rules: [{score: ches}]}", ["give at least one of min, max"]),
        ("sources: [{path: a}]\nselection: {rules: [{score: ches, min: .nan}]}", ["rules.0.min", "finite number"]),
        (
            "sources: [{path: a}]\nselection: {rules: [{score: ches, min_quantile: 0.9, max_quantile: 0.1}]}",
            ["the least, 0.9, is more than the most, 0.1"],
        ),
        (
            "sources: [{path: a}]\nray: {steps: {rewards: {gpuz: 1}}}",
            ["'ray.steps.rewards.gpuz'", "did you mean 'gpus'?"],
        ),
        (
            "sources: [{path: a}]\ncosts: {prices: {'7': {promt: 1, completion: 1}}}",
            ["'costs.prices.7.promt'", "allowed here: prompt, completion"],
        ),
        (
            "sources: [{path: a}]\npairs: {strategies: [worst]}",
            ["pairs.strategies.0", "'best_vs_worst'", '"worst"'],
        ),
        (
            "sources: [{path: a}]\npublish: {datasets: [retrieval]}",
            ["'retrieval'", "needs the sections negatives"],
        ),
        (
            "sources: [{path: a}]\nnegatives: {num_negatives: 2}",
            ["section negatives is set", "publish.datasets is preference", "nothing would be mined"],
        ),
        (
            "sources: [{path: a}]\nconstructed: {word_errors: {model: {model: x, system_prompts: [a]}}}",
            ["constructed.word_errors.model", "system_prompts is not for a model that rewrites"],
        ),
        (
            "sources: [{path: a}]\nmutations: {kinds: [slang], model: {model: x, principles: [a]}}",
            ["mutations.model", "principles is not for a model that rewrites"],
        ),
        (
            "sources: [{path: a}]\nmutations: {kinds: [translate_fr], model: {model: 'http://h/v1#m'}}\n"
            "costs: {max_cost: 1}",
            ["costs.prices has no price for mutations.model, 'http://h/v1#m'"],
        ),
        (
            "sources: [{path: a}]\nconstructed: {refinement: {model: {model: 'http://h/v1#m'}}}\n"
            "costs: {max_cost: 1}",
            ["costs.prices has no price for constructed.refinement.model, 'http://h/v1#m'"],
        ),
        (
            "sources: [{path: a}]\nmutations: {kinds: [slang], sources: [none]}",
            ["mutations.sources: there is no source 'none'"],
        ),
        (
            "sources: [{path: a}]\ngeneration: [{model: x}, {model: y}, {model: x, samples: 4}]",
            ["generation 2 asks 'x' with the options of generation 0", "raise samples there"],
        ),
        ("sources: [{path: a}]\ngeneration: {model: x}", ["generation: expected a list, found"]),
        ("sources: [{path: a}]\nencoder: 3", ["encoder: expected keys with values, found 3"]),
        ("sources: [{path: a}]\nseed: x", ["seed: expected a whole number", '"x"']),
        ("sources: [{path: a}]\nname: ../evil", ["name", "expected text of the form"]),
        ("- a", ["expected keys such as 'sources', found a list"]),
        ("", ["is empty: expected keys such as 'sources'"]),
        ("a: [", ["not YAML"]),
        ("sources:\n  - {path: a}\nseed:\n\t3", ["not YAML", "line 4", "indent with spaces"]),
        ("name: a: b", ["not YAML", "line 1", "put quotes around a text that holds ': '"]),
        (
            "sources: [{path: a}]\n\nselection:\n  rules:\n    - {score: ches, maximum: 1}",
            [", line 5: ", "'selection.rules.0.maximum'"],
        ),
        (
            "sources: [{path: a}]\ndrop_refusal_pairs: true",
            [", line 2: ", "'drop_refusal_pairs' (it is a key of selection)"],
        ),
        ("sources: [{path: a}]\ngates: {max_per_prompt: 3}", ["(it is a key of selection)"]),
        ("sources: [{path:a}]", ["(a space is missing after path:)"]),
        ("sources: [{path: a}]\nselection:", ["line 2: selection: ", "leave the key out for its defaults"]),
        ("sources: [{path: a}]\nrewards: none", ["rewards: expected a list ([] for none)"]),
        (
            "sources: [{path: a, better: {column: x, values: {1: a}}}]",
            ["sources.0.better", "two columns of answers"],
        ),
        (
            "sources: [{path: a}]\ngeneration:\n  - model: localhost:8000/v1#qwen",
            [", line 3: generation.0.model", "write http://localhost:8000/v1#qwen"],
        ),
        (
            "sources: [{path: a}]\nrewards: [{model: 'judge:10.0.0.7:8000/v1#m?rubric=safety'}]",
            ["rewards.0.model", "write judge:http://10.0.0.7:8000/v1#m?rubric=safety"],
        ),
        (
            "sources: [{path: a, score_scale: s, lower_is_better: true}, {path: b, score_scale: s}]",
            ["score_scale 's' differ in lower_is_better", "give them two names"],
        ),
        ("sources: [{path: a}]\nrefusals: {model: api.example.com/v1#m}", ["refusals.model", "without http://"]),
        ("a: !!python/object/apply:os.system [id]", ["not YAML"]),
    ],
)
def test_an_error_names_the_field_and_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    found = message(tmp_path, text)
    for part in parts:
        assert part in found


@pytest.mark.parametrize(
    "model",
    ["embedded", "owner/name@v1", "my.org/v1", "./localhost-3", "vllm:owner/name", "python:a.b:c", "http://h:1/v1#m",
     "judge:https://h/v1#m", "judge:owner/name", "/models/a:b"],
)  # fmt: skip
def test_what_is_no_address_is_left_as_it_is(tmp_path: Path, model: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"sources: [{{path: a}}]\nrewards: [{{model: '{model}'}}]")
    assert load_recipe(path).rewards[0].model == model


def test_a_source_may_take_the_keys_of_another(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("sources:\n  - &first {path: a.jsonl, license: mit}\n  - {<<: *first, path: b.jsonl}")

    sources = load_recipe(path).sources

    assert [(source.name, source.license) for source in sources] == [("a", "mit"), ("b", "mit")]


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "none.yaml")


def test_bytes_that_are_not_utf8_say_so(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="not YAML: it is no text in UTF-8"):
        load_recipe(tmp_path / "r.yaml")
