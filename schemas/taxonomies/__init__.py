"""Taxonomies of requests, as YAML files beside this module; curation/refusals/taxonomy.py reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["RELEASES", "TAXONOMIES", "taxonomy_path"]

RELEASES: Final = {
    "sorry_bench_2024_06": ("sorry_bench", "2024-06"),
    "sorry_bench_2025_03": ("sorry_bench", "2025-03"),
}
"""A release of a taxonomy by name: its categories alone, which go by that release's numbers as well."""
TAXONOMIES: Final = ("sorry_bench", *RELEASES, "coconot")


def taxonomy_path(name: str) -> Path:
    """The file of a taxonomy that ships with the package."""
    file, _ = RELEASES.get(name, (name, ""))
    return Path(__file__).parent / f"{file}.yaml"
