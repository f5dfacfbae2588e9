"""``curation refusals categories``: the categories of a taxonomy by name."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from curation.cli import app


def test_the_mapping_between_releases_is_listed() -> None:
    done = CliRunner().invoke(app, ["refusals", "categories", "sorry_bench"])
    assert done.exit_code == 0
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert rows["name"][-2:] == ["2024-06", "2025-03"]
    assert rows["self_harm"][-3:] == ["crimes_and_torts", "6", "6"]
    assert rows["malware"][-2:] == ["14", "13"]
    assert rows["impersonation"][-2:] == ["crimes_and_torts", "12"]
    assert "requests are sorted into 45 of 49 categories" in done.stdout
    newer = CliRunner().invoke(app, ["refusals", "categories", "sorry_bench_2025_03"]).stdout
    assert "impersonation" not in newer


def test_a_file_of_ones_own_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("categories: [{name: a, parent: b}, {name: b, parent: a}]")
    done = CliRunner().invoke(app, ["refusals", "categories", str(path)])
    assert "go round in a circle" in str(done.exception)
    path.write_text("name: ours\ncategories: [{name: doors}, {name: mail, title: Post}]")
    assert "Post" in CliRunner().invoke(app, ["refusals", "categories", str(path)]).stdout
