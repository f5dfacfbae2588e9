"""Imports flow one way, heavy packages are imported late, and the public API is complete."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import curation

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {"schemas": {"curation", "assets", "dagster"}, "curation": {"assets", "dagster"}}
HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "vllm",
    "ray",
    "openai",
    "datasets",
    "faiss",
    "sklearn",
)


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_imports_flow_one_way(layer: str) -> None:
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / layer).rglob("*.py")
        for name in imported(path) & FORBIDDEN[layer]
    }
    assert not found


def test_the_command_line_and_the_graph_start_without_heavy_packages() -> None:
    code = (
        "import sys, curation, curation.cli, curation.pipeline, assets.definitions\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_public_is_there_and_documented() -> None:
    assert set(curation.__all__) <= set(dir(curation))
    for name in curation.__all__:
        assert getattr(curation, name).__doc__, name


def test_the_names_of_the_contract_are_public() -> None:
    contract = {
        "ches", "preference_strength", "label_noise", "detect_refusals", "mine_hard_negatives", "deduplicate",
        "decontaminate", "build_pairs", "Recipe", "run",
    }  # fmt: skip
    assert contract <= set(curation.__all__)


@pytest.mark.parametrize("package", ["curation", "schemas"])
def test_all_is_complete(package: str) -> None:
    """Every module that defines ``__all__`` names all its public functions and classes there."""
    for path in (ROOT / package).rglob("*.py"):
        tree = ast.parse(path.read_text())
        listed = [
            n for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"
        ]
        if not listed:
            continue
        names = set(ast.literal_eval(listed[0].value))
        public = {
            n.name
            for n in tree.body
            if isinstance(n, ast.FunctionDef | ast.ClassDef)
            and not n.name.startswith("_")
            and not any("command" in ast.dump(decorator) for decorator in n.decorator_list)
        }
        allowed = {"run"} if path.parent.name == "stages" else set()
        assert public - names - allowed <= set(), path
