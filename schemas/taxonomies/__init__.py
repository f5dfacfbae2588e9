"""Taxonomies of requests, as YAML files beside this module; curation/refusals/taxonomy.py reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["TAXONOMIES", "taxonomy_path"]

TAXONOMIES: Final = ("sorry_bench", "coconot")


def taxonomy_path(name: str) -> Path:
    """The file of a taxonomy that ships with the package."""
    return Path(__file__).parent / f"{name}.yaml"
