"""The words that the rules know, from ``words.yaml``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["words"]


@cache
def words() -> dict[str, Any]:
    """Lists and tables by name."""
    text = files("curation.prompts.mutations").joinpath("words.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found
