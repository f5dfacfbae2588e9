"""Where a key stands in the file of a recipe, and where it belongs. What is wrong of it is said in ``loading``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

__all__ = ["belongs", "line_of"]

_MOST_HOMES: Final = 2
"""A key of more sections than this (model, path, kind) is at home in none of them."""


def line_of(file: Path, place: Sequence[str | int]) -> int | None:
    """The line, from 1, of the key or item at a path, or of the last part of it that the file has."""
    try:
        node = yaml.compose(file.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    line = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def belongs(key: str, whole: type[BaseModel]) -> list[str]:
    """The sections that have a key of this name, where these are few."""
    homes = list(dict.fromkeys(_homes(key, whole, "")))
    return homes if len(homes) <= _MOST_HOMES else []


def _homes(key: str, section: type[BaseModel], path: str) -> list[str]:
    found = [path or "the first level"] if key in section.model_fields else []
    for name, field in section.model_fields.items():
        for part in _sections(field.annotation):
            found += _homes(key, part, f"{path}.{name}" if path else name)
    return found


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in getattr(annotation, "__args__", ()) for section in _sections(part)]
