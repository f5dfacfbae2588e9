"""Which model a key names: the one that is there now, and the one that is then loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from curation.errors import InputError
from curation.models import identity
from curation.models.identity import model_file, named_commits, resolve_model
from curation.models.policy import policy_fingerprint
from curation.models.policy.transformers_backend import load_model
from curation.ray_worker import StepWorker
from tests.engine.steps import Thirds
from tests.tiny_policies import save_policy, tiny_model

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a machine that cannot reach the Hub: one repository, two commits, main at the older one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--somebody--policy"
    for seed, commit in enumerate((OLD, NEW)):
        save_policy(repo / "snapshots" / commit, "llama", seed=seed)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(OLD)
    identity._commits.clear()
    identity._hub_file.cache_clear()
    return repo


def test_the_hub_is_asked_for_a_small_file_once(offline_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are made for every batch, and most models lack most of the files that are looked for."""
    asked: list[str] = []
    download = huggingface_hub.hf_hub_download

    def counted(repo: str, name: str, **options: Any) -> str:
        asked.append(name)
        return str(download(repo, name, **options))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", counted)
    ref = resolve_model("somebody/policy", embedded="policy")
    for _ in range(3):
        assert model_file(ref, "config.json") == offline_hub / "snapshots" / OLD / "config.json"
        assert model_file(ref, "adapter_config.json") is None
    assert asked == ["config.json", "adapter_config.json"]


def test_a_model_that_was_trained_in_place_has_another_key(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    save_policy(folder, "llama", seed=0)
    first = policy_fingerprint(str(folder))
    assert policy_fingerprint(str(folder)) == first
    before = os.stat(folder / "model.safetensors")
    save_policy(tmp_path / "trained", "llama", seed=1)
    shutil.copyfile(tmp_path / "trained" / "model.safetensors", folder / "model.safetensors")
    assert os.stat(folder / "model.safetensors").st_size == before.st_size
    assert policy_fingerprint(str(folder)) != first


def test_offline_the_key_names_the_commit_in_the_cache(offline_hub: Path) -> None:
    assert resolve_model("somebody/policy", embedded="policy").fingerprint == f"somebody/policy@{OLD}"
    identity._commits.clear()
    (offline_hub / "refs" / "main").write_text(NEW)
    assert resolve_model("somebody/policy", embedded="policy").fingerprint == f"somebody/policy@{NEW}"


def test_offline_what_is_not_in_the_cache_goes_by_its_name(offline_hub: Path) -> None:
    assert resolve_model("somebody/else@v2", embedded="policy").fingerprint == "somebody/else@v2"


def test_a_branch_that_moves_on_is_loaded_where_the_key_says(offline_hub: Path) -> None:
    ref = resolve_model("somebody/policy", embedded="policy")
    assert ref.fingerprint.endswith(OLD)
    (offline_hub / "refs" / "main").write_text(NEW)
    found = load_model(ref, dtype="float32").get_input_embeddings().weight
    old, new = (tiny_model("llama", seed=seed).get_input_embeddings().weight for seed in (0, 1))
    assert torch.equal(found.cpu(), old)
    assert not torch.equal(found.cpu(), new)


def test_a_worker_of_a_cluster_loads_the_commit_that_the_run_has_named(
    offline_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = resolve_model("somebody/policy", embedded="policy").fingerprint
    named = named_commits()
    # From here on as in a worker's process, which begins after the branch has moved on.
    (offline_hub / "refs" / "main").write_text(NEW)
    identity._commits.clear()
    assert resolve_model("somebody/policy", embedded="policy").commit == NEW
    StepWorker(Thirds(str(tmp_path / "log")), gate=None, commits=named)
    assert resolve_model("somebody/policy", embedded="policy").fingerprint == key
    identity._commits.clear()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ((), r"\(it is empty\)"),
        (("README.md", "notes.txt"), r"\(found README.md, notes.txt\)"),
        (("out/config.json",), r"\(found out\).*; name the folder inside it, .*out$"),
    ],
)
def test_a_folder_without_a_model_is_told_in_one_line(tmp_path: Path, files: tuple[str, ...], found: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=rf"is a folder without a model {found}") as told:
        resolve_model(str(tmp_path), embedded="policy")
    assert "\n" not in str(told.value)
