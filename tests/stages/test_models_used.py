"""The models that a card, the report and the changelog name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.recipe import Recipe
from curation.stages.context import Context
from curation.stages.facts import models_used
from curation.workspace import Workspace

SERVER = "http://localhost:1/v1#writer"


@pytest.mark.parametrize(
    ("sections", "step", "named"),
    [
        ({"mutations": {"kinds": ["technical_terms"], "model": {"model": SERVER}}}, "rewriting", "writer"),
        ({"constructed": {"word_errors": {"model": {"model": SERVER}}}}, "rewriting", "writer"),
        ({"label_noise": {}}, "label-noise", "minilm"),
        ({"label_noise": {"language_model": "embedded"}}, "label-noise language model", "bfloat16/states"),
        ({"negatives": {"guides": [{}]}, "encoder": {}}, "guide", "minilm"),
        (
            {"negatives": {"rescorer": {"model": "embedded", "kind": "reward"}}, "encoder": {}},
            "rescoring",
            "heads",
        ),
    ],
)
def test_every_model_that_has_a_say_is_named(
    tmp_path: Path, sections: dict[str, Any], step: str, named: str
) -> None:
    bare = {"sources": [{"path": "rows.jsonl"}], "encoder": None, "rewards": [], "refusals": None, "policy": None}
    publish = {"datasets": ["preference", *(["retrieval"] if "negatives" in sections else [])]}
    context = Context(Workspace(tmp_path), Recipe.model_validate(bare | {"publish": publish} | sections))
    found = {row["step"]: row["producer"] for row in models_used(context)}
    assert named in found[step]
    assert not {"rewriting", "guide", "rescoring", "label-noise"} & set(found) - {
        step.removesuffix(" language model")
    }
