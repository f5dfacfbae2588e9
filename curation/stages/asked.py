"""Which requests a recipe makes of its models: prompts, samples, the pool's draw, and system messages by sample.

Every draw depends on the seed and on the identifiers of what is drawn for, and on nothing else: a prompt more, a
model more or a principle more leaves the other draws as they were, and so pays for nothing again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from curation.recipe import Generation
from curation.text import content_hash

__all__ = ["prompts_of", "requests", "requests_for", "requests_of", "with_request_ids"]


def requests(prompts: pl.DataFrame, samples: int) -> pl.DataFrame:
    """One row for each prompt and sample index: request_id, prompt_id, messages, sample_index, system_prompt."""
    asked = prompts.select("prompt_id", "messages")
    if samples == 1:  # nothing to multiply, so that the messages are not copied
        crossed = asked.with_columns(sample_index=pl.lit(0, dtype=pl.Int64))
    else:
        indices = pl.DataFrame({"sample_index": range(samples)}, schema={"sample_index": pl.Int64})
        crossed = asked.join(indices, how="cross")
    return with_request_ids(crossed.with_columns(system_prompt=pl.lit(None, dtype=pl.String)))


def with_request_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``request_id``: a hash of prompt, sample index and the sample's own system message, if it has one."""
    keys = rows.select("prompt_id", "sample_index", "system_prompt").iter_rows()
    ids = [content_hash("request", p, str(i), *(() if s is None else (s,))) for p, i, s in keys]
    return rows.with_columns(request_id=pl.Series(ids, dtype=pl.String))


def requests_of(
    step: Any, steps: Sequence[Any], prompts: pl.DataFrame, *, models_per_prompt: int | None = None
) -> pl.DataFrame:
    """The requests that one step of a pool makes: ``samples`` for each of its prompts.

    Args:
        step: one of ``steps``.
        steps: all generation steps of the recipe.
        models_per_prompt: how many steps answer each prompt; all where it is None.
    """
    mine = prompts_of(step, steps, prompts, models_per_prompt=models_per_prompt)
    return _with_systems(step, requests(mine, step.options.samples))


def prompts_of(
    step: Any, steps: Sequence[Any], prompts: pl.DataFrame, *, models_per_prompt: int | None = None
) -> pl.DataFrame:
    """The prompts that one step of a pool answers; see :func:`requests_of`."""
    if models_per_prompt is None or models_per_prompt >= len(steps):
        return prompts
    names = _distinct([s.key.producer for s in steps])
    mine = names[next(i for i, one in enumerate(steps) if one is step)]
    return prompts.filter(_drawn(prompts["prompt_id"], names, mine, step.seed, models_per_prompt))


def requests_for(step: Any, prompts: pl.DataFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    """The requests of one step for samples with ``prompt_id`` and ``sample_index``; see ``requests_of``."""
    rows = wanted.select("prompt_id", "sample_index").join(
        prompts.select("prompt_id", "messages"), on="prompt_id", maintain_order="left"
    )
    rows = rows.select("prompt_id", "messages", "sample_index", system_prompt=pl.lit(None, dtype=pl.String))
    return _with_systems(step, with_request_ids(rows))


def _with_systems(step: Any, found: pl.DataFrame) -> pl.DataFrame:
    options: Generation = step.options
    if not options.system_prompts and not options.principles:
        return found
    rows = found.select("prompt_id", "sample_index", "messages").iter_rows()
    systems = [_system(options, p, i, m, step.seed) for p, i, m in rows]
    return with_request_ids(found.with_columns(system_prompt=pl.Series(systems, dtype=pl.String)))


def _distinct(producers: Sequence[str]) -> list[str]:
    """Names of the steps: one model that is asked with other system messages is another member of the pool."""
    before = [producers[:place].count(one) for place, one in enumerate(producers)]
    return [f"{one} {count}" if count else one for one, count in zip(producers, before, strict=True)]


def _drawn(prompt_ids: pl.Series, producers: Sequence[str], mine: str, seed: int, count: int) -> pl.Series:
    """Whether ``mine`` is among the ``count`` producers with the lowest hashes with a prompt."""

    def is_drawn(prompt: str) -> bool:
        own = content_hash("pool", str(seed), prompt, mine)
        return sum(content_hash("pool", str(seed), prompt, other) < own for other in producers) < count

    return pl.Series([is_drawn(prompt) for prompt in prompt_ids], dtype=pl.Boolean)


def _system(options: Generation, prompt: str, index: int, messages: list[dict[str, str]], seed: int) -> str | None:
    """A sample's own system message: the prompt's or a drawn one, with a drawn principle after it."""

    def draw(texts: Sequence[str]) -> str:
        return min(texts, key=lambda text: content_hash("draw", str(seed), prompt, str(index), text))

    own = messages[0]["content"] if messages[0]["role"] == "system" else None
    base = own
    if base is None:
        base = draw(options.system_prompts) if options.system_prompts else options.system_prompt
    if not options.principles:
        return None if own is not None else base
    principle = draw(options.principles)
    return principle if base is None else f"{base}\n\n{principle}"
