"""Messy sources and a recipe of their own from a seed. What is true of an answer stands in its text.

``(grade 7)`` is how good it is, and the words of a refusal are always the same ones: so a checker knows what a run
must say without reading anything that the run wrote. No model is loaded: rewards are the function below, refusals
are judged by a server that reads the same words.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["grade", "judge_reply", "refuses", "reward", "write_case"]

_TOPICS: Final = ("bread", "rivers", "chess", "tides", "bicycles", "maps", "bees", "clocks", "sails", "kites")
_WORDS: Final = ("amber", "basin", "candle", "drift", "ember", "gravel", "island", "kettle", "marble", "orchard")
_STRATEGIES: Final = (
    "best_vs_worst", "best_vs_random", "best_vs_each", "all", "first_round", "tournament", "diverse",
    "refusal_vs_compliance", "refusal_faults",
)  # fmt: skip
_ACTIONS: Final = ("drop", "flip", "soft_label", "margin", "weight")
_ODD: Final = (None, "", " \n", "half \ud800", "nul \x00", "long " * 20_000, "\u202eright to left", "\u200b", 7)


def grade(text: str) -> float:
    found = re.search(r"\(grade (\d+)\)", text)
    return float(found[1]) if found else 0.0


def refuses(text: str) -> bool:
    return "I can't help with" in text


def reward(prompts: list[Any], responses: list[str]) -> list[float]:
    """The recipe's reward model."""
    return [grade(text) for text in responses]


def judge_reply(question: str, seed: int) -> tuple[str, str]:
    """What the server says of an answer: whether it refuses."""
    answer = question.split("ANSWER BEGINS]", 1)[1].split("ANSWER ENDS]", 1)[0]
    return json.dumps({"verdict": "C" if refuses(answer) else "A", "kind": None}), "stop"


def _answer(draw: random.Random) -> str:
    topic, level = draw.choice(_TOPICS), draw.randint(0, 8)
    if draw.random() < 0.3:
        return f"I'm sorry, but I can't help with the {draw.choice(_WORDS)} {topic}. (grade {level})"
    words = " and the ".join(draw.sample(_WORDS, draw.randint(2, 6)))
    return f"Take the {words} to the {topic}, and wait {draw.randint(2, 90)} minutes. (grade {level})"


def _prompts(draw: random.Random) -> list[list[dict[str, str]]]:
    found = []
    for number in range(16):
        what = f"{draw.choice(_WORDS)} {draw.choice(_TOPICS)} that {draw.choice(('is', 'is not'))} mine"
        turns = [{"role": "user", "content": f"What do I do with the {what}, number {number}?"}]
        if draw.random() < 0.2:
            turns.insert(0, {"role": "system", "content": f"You keep {draw.choice(_TOPICS)}."})
        elif draw.random() < 0.2:
            before = {"role": "user", "content": f"Good day, {draw.choice(_WORDS)} {number}."}
            turns = [before, {"role": "assistant", "content": "Good day."}, *turns]
        found.append(turns)
    return found


def _row(kind: str, prompt: list[dict[str, str]], answers: list[str], draw: random.Random) -> dict[str, Any]:
    first, second = draw.sample(answers, 2)
    turn = [{"role": "assistant", "content": first}], [{"role": "assistant", "content": second}]
    match kind:
        case "pair":
            return {"prompt": prompt, "chosen": turn[0], "rejected": turn[1]}
        case "implicit":
            return {"chosen": [*prompt, *turn[0]], "rejected": [*prompt, *turn[1]]}
        case "better":
            return {"prompt": prompt, "left": first, "right": second, "winner": draw.choice([1, 0, 1, 0, 2, None])}
        case "scored":
            return {"prompt": prompt, "responses": answers, "scores": [grade(text) for text in answers]}
        case "ranked":
            return {"prompt": prompt, "responses": answers, "scores": [9 - grade(text) for text in answers]}
    return {"prompt": prompt, "completion": first, "label": grade(first) > 4}


def _source(kind: str, prompts: list[Any], answers: list[list[str]], draw: random.Random) -> list[dict[str, Any]]:
    rows = []
    for _ in range(24):
        place = draw.randrange(len(prompts))
        row = _row(kind, prompts[place], answers[place], draw)
        asked = prompts[place][-1]["content"]
        row["expected_behaviour"] = "refuse" if "is not mine" in asked else "comply"
        rows.append(row)
    rows += [dict(row) for row in draw.sample(rows, 2)]
    for row in draw.sample(rows, 3):
        row[draw.choice([name for name in row if name not in ("expected_behaviour", "label", "winner")])] = (
            draw.choice(_ODD)
        )
    return rows


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_case(folder: Path, seed: int, *, server: str, recipe_seed: int | None = None) -> dict[str, Any]:
    """Sources and ``recipe.yaml`` in a folder; another ``recipe_seed`` gives the same sources another recipe."""
    draw = random.Random(seed)
    prompts = _prompts(draw)
    answers = [[_answer(draw) for _ in range(4)] for _ in prompts]
    sources: list[dict[str, Any]] = []
    for kind in ("pair", *draw.sample(["implicit", "better", "scored", "ranked", "unpaired"], 2)):
        _write_rows(folder / f"{kind}.jsonl", _source(kind, prompts, answers, draw))
        sources.append({"path": f"{kind}.jsonl"})
        if kind == "better":
            sources[-1]["better"] = {"column": "winner", "values": {1: "left", 0: "right", 2: "tie"}}
        if kind == "ranked":
            sources[-1]["lower_is_better"] = True
    recipe = _recipe(random.Random(seed if recipe_seed is None else recipe_seed), server)
    recipe["sources"] = sources
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return recipe


def _recipe(draw: random.Random, server: str) -> dict[str, Any]:
    bands = ("likely_flipped", "ambiguous", "normal", "very_strong")
    recipe: dict[str, Any] = {
        "name": "messy",
        "encoder": None,
        "policy": None,
        "rewards": [{"model": "python:tests.whole.messy:reward"}],
        "refusals": {"judge": {"model": server}, "taxonomy": None},
        "pairs": {"strategies": ["provided", *draw.sample(_STRATEGIES, 2)], "min_margin": draw.choice([0.0, 0.5])},
        "strength": {
            "actions": {band: draw.sample(_ACTIONS, draw.choice([0, 0, 1, 2])) for band in bands},
            "cycles": draw.choice(["keep", "drop"]),
        },
        "selection": {"drop_refusal_pairs": draw.random() < 0.3},
        "hygiene": {},
        "splits": {"train": 0.6, "test": 0.4, "stratify": None},
        "refusal_dataset": {"per_prompt": draw.randint(1, 2)},
        "publish": {"datasets": ["preference", "preference_unpaired", "refusal", "reward", "sft"]},
        "gates": {"max_tie_rate": 1.0, "max_refusal_rate_change": 1.0},
    }
    if draw.random() < 0.5:
        recipe["selection"]["max_per_prompt"] = draw.randint(1, 3)
    if draw.random() < 0.5:
        recipe["hygiene"]["pairs"] = [{"method": "minhash", "threshold": 0.8, "keep": "best"}]
    if draw.random() < 0.4:
        recipe["constructed"] = {"subtle_errors": {}, "template_refusals": True}
        recipe["pairs"]["strategies"].append("constructed")
    return recipe
