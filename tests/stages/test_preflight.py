"""What a recipe names is looked for before anything is computed: the key that is wrong, and nothing done yet."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.errors import InputError
from curation.models import identity
from curation.pipeline import run
from curation.workspace import Workspace
from tests.hub_server import WRITER, Hub

PAIR = {"prompt": "Why?", "chosen": "So that it holds.", "rejected": "No."}
BASE: dict[str, Any] = {"name": "named", "sources": [{"path": "pairs.jsonl"}], "policy": None, "refusals": None}
MINED = {"publish": {"datasets": ["preference", "retrieval"]}}


def refused(folder: Path, changes: dict[str, Any]) -> str:
    """Why the run ends, before a row of any table is there."""
    (folder / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(BASE | changes))
    workspace = Workspace(folder / "workspace")
    with pytest.raises(InputError) as error:
        run(folder / "recipe.yaml", workspace=workspace)
    assert workspace.version("inputs") is None
    assert workspace.read("embeddings").is_empty()
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("rewards.1", {"rewards": [{}, {"model": "embeded"}]}),
        ("rewards.0", {"rewards": [{"model": "python:nowhere.at_all:score"}]}),
        ("rewards.0", {"rewards": [{"model": "judge:http://127.0.0.1:1/v1#m?rubric=helpfullness"}]}),
        ("rewards.0", {"rewards": [{"model": "embedded", "attributes": ["helpfulness"]}]}),
        ("encoder", {"encoder": {"model": "no-such-folder"}}),
        ("policy", {"policy": {"model": "no-such-folder"}}),
        ("refusals", {"refusals": {"model": "no-such-folder"}}),
        ("refusals", {"refusals": {"calibration": "no-such.json"}}),
        ("judge", {"judge": {"model": "judge:no-such-folder"}}),
        ("judge", {"judge": {"model": "judge:http://127.0.0.1:1/v1#m?rubric=honesty,harmlessness"}}),
        ("judge", {"judge": {"model": "judge:http://127.0.0.1:1/v1#m?low=1&high=10"}}),
        ("generation.0", {"generation": [{"model": "no-such-folder"}]}),
        ("sampling.reward", {
            "generation": [{"model": "embedded"}],
            "sampling": {"reward": {"model": "embeded"}, "choice": {"method": "best_of_n"}},
        }),
        ("sampling.budget.verifier", {
            "generation": [{"model": "embedded"}],
            "sampling": {"budget": {"kind": "uniform", "successes": 1, "verifier": "python:nowhere:f"}},
        }),
        ("label_noise.language_model", {"label_noise": {"language_model": "no-such-folder"}}),
        ("negatives.rescorer", MINED | {"negatives": {"rescorer": {"model": "embeded", "kind": "reward"}}}),
        ("negatives.guides.0", MINED | {"negatives": {"guides": [{"model": "no-such-folder"}]}}),
        ("negatives.corpus", MINED | {"negatives": {"corpus": "no-such.jsonl"}}),
        ("strength.labelled", {"strength": {"labelled": "no-such.csv"}}),
        ("publish.card_template", {"publish": {"card_template": "no-such.md"}}),
    ],
)  # fmt: skip
def test_a_name_that_stands_for_nothing_ends_the_run_before_it_begins(
    tmp_path: Path, key: str, changes: dict[str, Any]
) -> None:
    assert refused(tmp_path, changes).startswith(f"{key}: ")


def test_a_model_that_the_hub_does_not_know_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", WRITER)
    with closing(Hub()) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        # A second run in the same process asks no more, and is told the same.
        for _ in range(2):
            told = refused(tmp_path, {"rewards": [{"model": "somebody/rewrd"}]})
            assert told.startswith("rewards.0: the Hub knows no model somebody/rewrd@main")
    identity._commits.clear()
