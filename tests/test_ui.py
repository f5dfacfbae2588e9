"""What `curation ui` prepares before Dagster is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import InputError
from curation.ui import dagster_environment
from curation.workspace import Workspace


def test_a_workspace_that_is_not_there_needs_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no workspace: .*; a new one needs its recipe \(--recipe\)"):
        dagster_environment(workspace=str(tmp_path / "none"), recipe=None)


def test_a_place_in_which_no_history_can_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.yaml").write_text("sources: [{path: pairs.jsonl}]")
    (tmp_path / "file").touch()
    Workspace(tmp_path / "w")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(InputError, match="Dagster's history is kept there; set DAGSTER_HOME"):
        dagster_environment(workspace=str(tmp_path / "w"), recipe=tmp_path / "recipe.yaml")
