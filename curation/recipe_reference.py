"""The reference of recipe keys, made from the recipe's own models.

python -m curation.recipe_reference > docs/recipe.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from curation.recipe import Recipe

__all__ = ["recipe_reference"]

_HEAD = """# Recipe keys

One YAML file configures a run; `examples/` holds four to start from. A key that is not listed here is an error.
`none` may also be written `null`. Paths of files are relative to the recipe and may begin with `~`; the folder of a
model is, as on the command line, relative to where the command is run. Made by
`python -m curation.recipe_reference > docs/recipe.md`.
"""


def recipe_reference() -> str:
    """The reference as Markdown: a table for the recipe and one for each section."""
    return "\n".join([_HEAD, *_section("recipe", Recipe, set())])


def _section(title: str, model: type[BaseModel], done: set[tuple[str, type[BaseModel]]]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{(model.__doc__ or '').strip()}\n"
    yield "| key | what it may be | default | |\n|---|---|---|---|"
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        schema = model.model_json_schema()["properties"][name]
        yield f"| `{name}` | {_kind(schema)} | {_default(field)} | {_escaped(field.description or '')} |"
        inner += [(name, part) for part in _models(field.annotation)]
    yield ""
    for name, part in inner:
        if (name, part) not in done:
            done.add((name, part))
            place = name if title == "recipe" else f"{title}.{name}"
            yield from _section(place, part, done)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections inside a type such as ``tuple[Source, ...]`` or ``Encoder | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "$ref" in schema or "allOf" in schema:
        return "a section"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    kind = names.get(schema.get("type", ""), "none" if schema.get("type") == "null" else "mapping")
    return " ".join([kind, " and ".join(limits)]).strip()


def _default(field: Any) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required" if field.default_factory is None else "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple):
        inside = ", ".join("its defaults" if isinstance(v, BaseModel) else f"{v}" for v in value)
        return f"`[{inside}]`" if value else "`[]`"
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(recipe_reference())  # noqa: T201
