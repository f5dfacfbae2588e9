"""The recipe: one YAML file, validated, that holds the whole configuration of a run. It runs nothing.

Every threshold lives here, with the source of its default in its description. A section that is left out
means that its stage is left out, except where a default is given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from curation.errors import RecipeError, closest
from curation.text import canonical_json, content_hash

__all__ = [
    "DATASETS",
    "Encoder",
    "Gates",
    "Generation",
    "Negatives",
    "Pairs",
    "Policy",
    "Publish",
    "Recipe",
    "RefusalDetection",
    "Reward",
    "Selection",
    "SelectionRule",
    "Source",
    "Splits",
    "load_recipe",
]

DATASETS: Final = ("preference", "preference_unpaired", "refusal", "retrieval")
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Section):
    """A file or a Hub dataset to read rows from."""

    path: str = Field(description="a file (relative to the recipe) or hf://owner/name[/config][:split]")
    name: str = Field(default="", description="how rows of it are called; the file's stem by default")
    format: Literal["auto", "pair", "unpaired", "responses", "response", "messages", "prompt"] = "auto"
    columns: dict[str, str] = Field(
        default_factory=dict, description="our column name → the column's name in the file"
    )
    category: str | None = Field(default=None, description="for rows without one")
    expected_behaviour: Literal["comply", "refuse"] | None = Field(default=None, description="for rows without one")
    license: str | None = Field(default=None, description="the licence of the source, for the card")

    @model_validator(mode="after")
    def _named(self) -> Source:
        if not self.name:
            stem = self.path.rstrip("/").rsplit("/", 1)[-1].split(":", 1)[0].split(".", 1)[0]
            object.__setattr__(self, "name", stem)
        return self


class Generation(_Section):
    """Answers to sample from one model."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded")
    samples: int = Field(default=2, ge=1, le=1024, description="answers for each prompt")
    temperature: float = Field(default=0.8, ge=0.0, le=5.0)
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    max_new_tokens: int = Field(default=128, ge=1)
    system_prompt: str | None = None
    batch_rows: int = Field(default=16, ge=1)


class Encoder(_Section):
    """The model that turns texts into vectors."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded (all-MiniLM-L6-v2)")
    max_length: int | None = Field(default=None, ge=8, description="tokens read of a text; the model's own")
    batch_rows: int = Field(default=512, ge=1)


class Reward(_Section):
    """A reward model, or an ensemble of heads."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded (an ensemble)")
    batch_rows: int = Field(default=256, ge=1)


class RefusalDetection(_Section):
    """The model that tells refusals from answers."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded")
    batch_rows: int = Field(default=1024, ge=1)


class Policy(_Section):
    """The model that is going to be trained: CHES, log-probabilities and difficulty are measured on it."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded")
    raw: bool = Field(default=False, description="join prompt and answer without the chat template")
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_tokens: int = Field(default=4096, ge=16, description="tokens in one forward pass")
    max_length: int | None = Field(default=None, ge=16, description="longest prompt and answer, in tokens")
    batch_rows: int = Field(default=64, ge=1, description="prompts kept in one commit")


class Pairs(_Section):
    """Which pairs are built from the candidates."""

    strategies: tuple[Literal["provided", "best_vs_worst", "best_vs_random", "all", "ches_aware"], ...] = Field(
        default=("provided",),
        min_length=1,
        description="ches_aware: each prompt's strongest pair whose length-normalised CHES is low enough",
    )
    score: Literal["rewards", "provided"] = Field(
        default="rewards", description="what ranks the candidates: the reward models, or the source's scores"
    )
    min_margin: float = Field(default=0.0, ge=0.0, description="a pair's scores must differ by more than this")
    ches_quantile: float = Field(
        default=0.15,
        gt=0.0,
        le=1.0,
        description="for ches_aware: of the strongest pairs' scores; 0.05 to 0.15 in Razin et al. 2025, section 6",
    )


class SelectionRule(_Section):
    """Keep the pairs whose score lies in a range: of values, or of quantiles of this run's pairs."""

    score: str
    min: float | None = None
    max: float | None = None
    min_quantile: float | None = Field(default=None, ge=0.0, le=1.0)
    max_quantile: float | None = Field(default=None, ge=0.0, le=1.0)
    missing: Literal["drop", "keep"] = Field(default="drop", description="what to do with a pair without it")

    @field_validator("score")
    @classmethod
    def _known(cls, score: str) -> str:
        from schemas.pairs import PairScores

        known = [name for name, column in PairScores.columns().items() if column.dtype.is_numeric()]
        if score not in known:
            raise ValueError(f"no such score; there are {', '.join(known)}{closest(score, known)}")
        return score

    @model_validator(mode="after")
    def _bounded(self) -> SelectionRule:
        if all(v is None for v in (self.min, self.max, self.min_quantile, self.max_quantile)):
            raise ValueError("give at least one of min, max, min_quantile, max_quantile")
        return self


class Selection(_Section):
    """Which pairs are kept. The rules apply in order; a dropped pair names the first that it broke."""

    rules: tuple[SelectionRule, ...] = ()
    drop_refusal_pairs: bool = Field(
        default=False,
        description="drop pairs in which both answers refuse: displacement does its harm there (Razin et al. 2025)",
    )


class Negatives(_Section):
    """Hard negatives: near the anchor, and not a positive."""

    num_negatives: int = Field(default=4, ge=1, le=256)
    corpus: str | None = Field(default=None, description="a file with a text column; all answers by default")
    range_min: int = Field(default=0, ge=0, description="skip so many of the nearest that survive the filters")
    range_max: int | None = Field(default=100, ge=1, description="look no further than so many neighbours")
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = Field(default=None, ge=0.0)
    relative_margin: float | None = Field(
        default=0.05, ge=0.0, description="NV-Retriever's TopK-PercPos 95 % (de Souza Moreira et al. 2024)"
    )
    sampling: Literal["top", "random"] = "top"


class Splits(_Section):
    """Shares of the prompts; a prompt is on one side only."""

    train: float = Field(default=0.9, ge=0.0, le=1.0)
    validation: float = Field(default=0.0, ge=0.0, le=1.0)
    test: float = Field(default=0.1, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _whole(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train, validation and test must add up to 1, they give {total:g}")
        return self


GateName = Literal[
    "min_rows",
    "max_tie_rate",
    "max_duplicate_rate",
    "max_leaking_prompts",
    "min_chosen_refusal_rate",
    "max_chosen_refusal_rate",
    "max_reward_length_correlation",
    "max_empty_categories",
]


class Gates(_Section):
    """What must hold before anything is published. The defaults are ours."""

    min_rows: int = Field(default=1, ge=0, description="rows in a dataset")
    max_tie_rate: float = Field(default=0.05, ge=0.0, le=1.0, description="share of pairs with margin 0")
    max_duplicate_rate: float = Field(
        default=0.0, ge=0.0, le=1.0, description="share of rows that repeat an earlier one"
    )
    max_leaking_prompts: int = Field(
        default=0, ge=0, description="prompts, or their families, that stand in two splits"
    )
    min_chosen_refusal_rate: float = Field(default=0.0, ge=0.0, le=1.0)
    max_chosen_refusal_rate: float = Field(
        default=1.0, ge=0.0, le=1.0, description="share of the chosen answers that refuse"
    )
    max_reward_length_correlation: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="absolute Spearman correlation of margin and length difference",
    )
    max_empty_categories: int = Field(
        default=0, ge=0, description="categories of the prompts without a published row"
    )
    warn_only: tuple[GateName, ...] = Field(
        default=("max_empty_categories",), description="gates that warn and do not block"
    )

    @property
    def thresholds(self) -> dict[str, float]:
        """Gate to threshold."""
        return {name: float(value) for name, value in self.model_dump(exclude={"warn_only"}).items()}


class Publish(_Section):
    """What is published."""

    datasets: tuple[Literal["preference", "preference_unpaired", "refusal", "retrieval"], ...] = DATASETS[:1]
    license: str = Field(default="other", description="the licence in the cards, as the Hub names it")
    languages: tuple[str, ...] = Field(default=(), description="language codes for the cards: en, de, …")
    rows_per_shard: int = Field(default=100_000, ge=1)


class Recipe(_Section):
    """The whole configuration of a run."""

    name: Annotated[str, Field(pattern=_NAME)] = "curation"
    seed: int = Field(default=0, ge=0)
    workspace: str | None = Field(
        default=None, description="a folder (relative to the recipe) or URL; --workspace overrides it"
    )
    sources: tuple[Source, ...] = Field(min_length=1)
    generation: tuple[Generation, ...] = ()
    encoder: Encoder | None = Encoder()
    rewards: tuple[Reward, ...] = (Reward(),)
    refusals: RefusalDetection | None = RefusalDetection()
    policy: Policy | None = Policy()
    pairs: Pairs = Pairs()
    selection: Selection = Selection()
    negatives: Negatives | None = None
    splits: Splits = Splits()
    gates: Gates = Gates()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two sources are called {name!r}: give one of them another name")
        if "retrieval" in self.publish.datasets and (self.negatives is None or self.encoder is None):
            raise ValueError("publish.datasets has 'retrieval', which needs the sections negatives and encoder")
        if "refusal" in self.publish.datasets and self.refusals is None:
            raise ValueError("publish.datasets has 'refusal', which needs the section refusals")
        if "ches_aware" in self.pairs.strategies and self.policy is None:
            raise ValueError("pairs.strategies has 'ches_aware', which needs the section policy")
        ranked = set(self.pairs.strategies) - {"provided"}
        if ranked and self.pairs.score == "rewards" and not self.rewards:
            raise ValueError(f"pairs.strategies has {sorted(ranked)[0]!r}, which needs the section rewards")
        return self

    @property
    def builds_pairs(self) -> bool:
        """Whether any dataset is made of pairs."""
        return not {"preference", "preference_unpaired"}.isdisjoint(self.publish.datasets)

    @property
    def content_hash(self) -> str:
        """A hash of everything in the recipe but the place of its workspace."""
        return content_hash(canonical_json(self.model_dump(mode="json", exclude={"workspace"})))

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read and validate a recipe; see :func:`load_recipe`."""
        return load_recipe(path)


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
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {file}: cannot be read: {getattr(error, 'strerror', error)}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, Mapping):
        raise RecipeError(f"recipe {file}: expected keys such as 'sources', found {type(raw).__name__}")
    try:
        recipe = Recipe.model_validate(_merged(raw, changes or {}))
    except ValidationError as error:
        raise RecipeError(f"{where}: {_first_fault(error)}") from error
    return _with_absolute_paths(recipe, file.resolve().parent)


def _merged(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with other keys in it; what is a mapping on both sides is merged in turn."""
    merged = dict(raw)
    for key, value in changes.items():
        section = merged.get(key)
        both = isinstance(section, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(dict(section or {}), value) if both else value
    return merged


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, but a key that stands twice is an error and not the later value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _first_fault(error: ValidationError) -> str:
    """The first fault of a recipe, with its field, its value and what is allowed."""
    faults = error.errors(include_url=False)
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    place = [str(part) for part in fault["loc"]]
    field = ".".join(place) or "the recipe"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        allowed = _allowed_keys(place[:-1])
        return f"unknown key {field!r}{closest(place[-1], allowed)}; allowed here: {', '.join(allowed)}{more}"
    message = fault["msg"].removeprefix("Value error, ")
    found = "" if fault["type"] in {"missing", "value_error"} and not place else f", found {_shown(fault['input'])}"
    if fault["type"] == "missing":
        return f"{field} is missing{more}"
    return f"{field}: {message}{found}{more}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed_keys(place: list[str]) -> list[str]:
    """The keys of the section at a path of field names and positions."""
    section: Any = Recipe
    for part in place:
        if part.isdigit():
            continue
        annotation = section.model_fields[part].annotation
        section = next(a for a in _flattened(annotation) if isinstance(a, type) and issubclass(a, BaseModel))
    return list(section.model_fields)


def _flattened(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation] if not inner else [leaf for part in inner for leaf in _flattened(part)]


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    def absolute(path: str | None) -> str | None:
        return path if path is None or "://" in path or os.path.isabs(path) else str(folder / path)

    sources = tuple(s.model_copy(update={"path": absolute(s.path)}) for s in recipe.sources)
    negatives = recipe.negatives and recipe.negatives.model_copy(
        update={"corpus": absolute(recipe.negatives.corpus)}
    )
    return recipe.model_copy(
        update={"sources": sources, "workspace": absolute(recipe.workspace), "negatives": negatives}
    )
