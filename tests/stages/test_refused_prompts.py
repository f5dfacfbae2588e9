"""A served model whose chat template has no place for a system message: the far end answers 400 to such prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from curation.workspace import Workspace
from tests.scripted_server import scripted
from tests.stages.conftest import run_recipe, with_rows

SAID = "System role not supported"
"""As Gemma's template raises it, and vLLM passes it on."""


def answer(text: str, seed: int) -> tuple[str, str]:
    return f"An answer to: {text}", "stop"


def without_system(messages: list[dict[str, Any]]) -> str | None:
    return SAID if messages[0]["role"] == "system" else None


def recipe(model: str, **generation: Any) -> dict[str, Any]:
    return {
        "name": "served", "sources": [{"path": "pairs.jsonl"}], "encoder": None, "rewards": [], "refusals": None,
        "policy": None, "generation": [{"model": model, "samples": 1, **generation}],
        "gates": {"max_tie_rate": 1.0, "max_duplicate_rate": 1.0},
    }  # fmt: skip


def rows(*, with_system: int) -> list[dict[str, Any]]:
    """Four pairs; so many have a prompt with a system message."""
    found = []
    for number in range(4):
        prompt = [{"role": "user", "content": f"What is the {number + 2}. prime number?"}]
        own = [{"role": "system", "content": "You are terse."}] if number < with_system else []
        found.append(
            {"prompt": own + prompt, "chosen": f"Look it up: {number}.", "rejected": f"No idea, {number}."}
        )
    return found


def refused(workspace: Workspace) -> pl.DataFrame:
    return workspace.read("failures").filter(pl.col("step") == "generations")


def test_prompts_with_a_system_message_are_rejects_and_the_others_are_answered(tmp_path: Path) -> None:
    with scripted(answer, refusal=without_system) as server:
        workspace = run_recipe(with_rows(tmp_path, rows(with_system=2)), recipe(server.model()))
        assert len(server.asked) == 4, "a refusal is not tried again"
        prompts = workspace.read("prompts").with_columns(first=pl.col("messages").list.first().struct.field("role"))
        wanted = set(prompts.filter(pl.col("first") == "system")["prompt_id"])
        found = refused(workspace)
        assert set(found["item_id"]) == wanted
        assert found.height == 2
        assert found["rule"].unique().to_list() == ["system_prompt_unsupported"]
        assert found["reason"].unique().to_list() == ["the model's template has no place for a system message"]
        assert set(workspace.read("generations")["prompt_id"]) == set(prompts["prompt_id"]) - wanted
        again = run_recipe(tmp_path, recipe(server.model()))
        assert len(server.asked) == 4
        assert refused(again).height == 2


def test_a_system_prompt_of_the_recipe_that_no_request_can_have_is_a_reject_of_each_prompt(tmp_path: Path) -> None:
    with scripted(answer, refusal=without_system) as server:
        place = with_rows(tmp_path, rows(with_system=0))
        workspace = run_recipe(place, recipe(server.model(), system_prompt="Be brief."))
        assert refused(workspace)["rule"].to_list() == ["system_prompt_unsupported"] * 4
        # Without it they are other requests, and nothing stands in their way.
        workspace = run_recipe(place, recipe(server.model()))
        assert workspace.read("generations").height == 4
        assert len(server.asked) == 8
