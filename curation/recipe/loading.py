"""Reading a recipe from YAML, with one clear line for what is wrong in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from curation.errors import RecipeError, closest
from curation.files.safe_yaml import read_yaml
from curation.recipe.generation import Costs
from curation.recipe.hygiene import Hygiene
from curation.recipe.models import Reward
from curation.recipe.places import belongs, line_of
from curation.recipe.refusals import RefusalDetection
from curation.recipe.whole import Recipe
from curation.validation_words import fault_words, kind_of, shown_value
from schemas.taxonomies import TAXONOMIES

__all__ = ["load_costs", "load_recipe", "load_rewards"]

_Part = TypeVar("_Part", bound=BaseModel)
_SECRET_NAME: Final = re.compile(r"(?i)authorization|password|secret|(access|auth)[_-]?token|(x-)?api[_-]?key")
_SECRET: Final = re.compile(
    r"(?:judge:)?(?:[a-z0-9+.-]+://[^/@\s]*:[^/@\s]+@\S*"
    r"|\S*[?&](?:body\.[\w.]*?)?(?:api[_-]?key|key|\w*token|sig|\w*signature|password|secret)=\S+)",
    re.IGNORECASE,
)


def load_recipe(path: str | os.PathLike[str], *, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe; paths in it become absolute, from the recipe's own folder.

    Args:
        path: of the YAML file.
        changes: keys that replace the file's; a mapping is merged into the file's section key by key.

    Raises:
        RecipeError: one line naming the file, the field, what was found and what is allowed.
    """
    file = Path(path)
    where = f"recipe {file}" + (", with the changes for this run" if changes else "")
    raw = read_yaml(file, what=f"recipe {file}", wrong=RecipeError)
    if raw is None:
        raise RecipeError(f"recipe {file} is empty: expected keys such as 'sources'")
    if not isinstance(raw, Mapping):
        raise RecipeError(f"recipe {file}: expected keys such as 'sources', found {kind_of(raw)}")
    merged = _merged(raw, changes or {})
    _check_no_secret(merged, where, "")
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        line = None if changes else line_of(file, _fault_of(error)["loc"])
        place = where if line is None else f"{where}, line {line}"
        raise RecipeError(f"{place}: {_first_fault(error)}") from error
    return _with_absolute_paths(recipe, file.resolve().parent)


def load_rewards(path: str | os.PathLike[str]) -> tuple[Reward, ...]:
    """The section ``rewards`` of a recipe, or of a file that has nothing else.

    Raises:
        RecipeError: one line naming the file, the field, what was found and what is allowed.
    """
    rewards = _section(path, "rewards", "a list of models", _Rewards).rewards
    return tuple(_reward(reward, Path(path).resolve().parent) for reward in rewards)


def load_costs(path: str | os.PathLike[str]) -> Costs:
    """The section ``costs`` of a recipe, or of a file that has nothing else; raises as :func:`load_rewards`."""
    return _section(path, "costs", "prices and max_cost", _Costs).costs


class _Rewards(BaseModel):
    """The part of a recipe that a command on a file reads."""

    rewards: tuple[Reward, ...] = Field(min_length=1)


class _Costs(BaseModel):
    """Another one."""

    costs: Costs


def _section(path: str | os.PathLike[str], name: str, holds: str, part: type[_Part]) -> _Part:
    where = f"{name} of {path}"
    raw = read_yaml(Path(path), what=where, wrong=RecipeError)
    if not isinstance(raw, Mapping) or name not in raw:
        raise RecipeError(f"{where}: expected the key {name!r} with {holds}, as in a recipe")
    _check_no_secret(raw[name], where, name)
    try:
        return part.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_first_fault(error)}") from error


def _merged(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with other keys in it; what is a mapping on both sides is merged in turn."""
    merged = dict(raw)
    for key, value in changes.items():
        section = merged.get(key)
        both = isinstance(section, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(dict(section or {}), value) if both else value
    return merged


def _check_no_secret(value: Any, where: str, field: str) -> None:
    """An address with a password or key in it would end up in tables, cards and logs. It is not repeated here."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            here = f"{field}.{key}" if field else str(key)
            if isinstance(part, str) and _SECRET_NAME.fullmatch(str(key)):
                raise RecipeError(
                    f"{where}: {here}: a key stands in the recipe, and what a recipe says is published with its "
                    f"datasets; take it out and give it by an environment variable (see api_key_variable)"
                )
            _check_no_secret(part, where, here)
    elif isinstance(value, list):
        for position, part in enumerate(value):
            _check_no_secret(part, where, f"{field}.{position}")
    elif isinstance(value, str) and _SECRET.fullmatch(value.strip()):
        raise RecipeError(
            f"{where}: {field}: a password or key stands in the address, and what a recipe says is published with "
            f"its datasets; take it out and give it by an environment variable (see api_key_variable), or by the "
            f"storage's own"
        )


def _fault_of(error: ValidationError) -> ErrorDetails:
    """The fault to speak of: an unknown key before what is missing because of it."""
    faults = error.errors(include_url=False)
    return next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])


def _hint(key: str, allowed: list[str]) -> str:
    """What an unknown key was meant to be: written together with its value, of another section, or misspelt."""
    name, colon, _ = key.partition(":")
    if colon and name in allowed:
        return f" (a space is missing after {name}:)"
    homes = belongs(key, Recipe)
    return f" (it is a key of {' and of '.join(homes)})" if homes else closest(key, allowed)


def _first_fault(error: ValidationError) -> str:
    """The first fault of a recipe, with its field, its value and what is allowed."""
    faults = error.errors(include_url=False)
    fault = _fault_of(error)
    place = [str(part) for part in fault["loc"]]
    field = ".".join(place) or "the recipe"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        allowed = _allowed_keys(place[:-1])
        return f"unknown key {field!r}{_hint(place[-1], allowed)}; allowed here: {', '.join(allowed)}{more}"
    unsaid = fault["type"] in {"missing", "value_error"} and not place
    found = "" if unsaid else f", found {shown_value(fault['input'])}"
    if fault["type"] == "missing":
        return f"{field} is missing{more}"
    return f"{field}: {fault_words(fault)}{found}{more}"


def _allowed_keys(place: list[str]) -> list[str]:
    """The keys of the section at a path of field names, positions and keys of the user's own."""
    section: Any = Recipe
    their_own = False
    for part in place:
        if their_own or part.isdigit():
            their_own = False
            continue
        annotation = section.model_fields[part].annotation
        their_own = get_origin(annotation) is dict
        section = next(a for a in _flattened(annotation) if isinstance(a, type) and issubclass(a, BaseModel))
    return list(section.model_fields)


def _flattened(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation] if not inner else [leaf for part in inner for leaf in _flattened(part)]


def _absolute(path: str | None, folder: Path) -> str | None:
    if path is None or "://" in path:
        return path
    return str(folder / os.path.expanduser(path))


def _reward(reward: Reward, folder: Path) -> Reward:
    return reward.model_copy(update={"references": _absolute(reward.references, folder)})


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    absolute = partial(_absolute, folder=folder)
    sources = tuple(s.model_copy(update={"path": absolute(s.path)}) for s in recipe.sources)
    negatives = recipe.negatives and recipe.negatives.model_copy(
        update={
            "corpus": absolute(recipe.negatives.corpus),
            "rescorer": recipe.negatives.rescorer and _reward(recipe.negatives.rescorer, folder),
        }
    )
    return recipe.model_copy(
        update={
            "sources": sources,
            "rewards": tuple(_reward(reward, folder) for reward in recipe.rewards),
            "workspace": absolute(recipe.workspace),
            "negatives": negatives,
            "hygiene": _hygiene(recipe.hygiene, absolute),
            "refusals": recipe.refusals and _refusals(recipe.refusals, absolute),
            "strength": recipe.strength.model_copy(update={"labelled": absolute(recipe.strength.labelled)}),
            "publish": recipe.publish.model_copy(update={"card_template": absolute(recipe.publish.card_template)}),
        }
    )


def _refusals(refusals: RefusalDetection, absolute: Callable[[str | None], str | None]) -> RefusalDetection:
    named = refusals.taxonomy is None or refusals.taxonomy in TAXONOMIES
    return refusals.model_copy(
        update={
            "taxonomy": refusals.taxonomy if named else absolute(refusals.taxonomy),
            "calibration": absolute(refusals.calibration),
        }
    )


def _hygiene(hygiene: Hygiene, absolute: Callable[[str | None], str | None]) -> Hygiene:
    def all_absolute(section: Any) -> Any:
        return section.model_copy(update={"against": tuple(absolute(path) for path in section.against)})

    return hygiene.model_copy(
        update={
            "contamination": hygiene.contamination and all_absolute(hygiene.contamination),
            "prompts": tuple(all_absolute(step) for step in hygiene.prompts),
            "select": hygiene.select
            and hygiene.select.model_copy(update={"target": absolute(hygiene.select.target)}),
        }
    )
