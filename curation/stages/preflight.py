"""What a recipe names, looked for before anything is computed or paid for. No model is loaded, no server is asked.

A misspelt name would else be found where it is first used: for a reward model, after every answer was paid for.
What the sections need of each other is checked where the recipe is loaded, in ``curation.recipe.whole``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from curation.candidates.verifiers import EXACT_MATCH
from curation.errors import InputError
from curation.functions import named_function
from curation.models.answer_states import answer_states_fingerprint
from curation.models.identity import missing_on_hub
from curation.models.rewards import reward_fingerprint
from curation.models.rewards.judge_address import check_pair_judge
from curation.publish.card import read_template
from curation.recipe import Recipe, Reward
from curation.stages.context import Context
from curation.stages.embeddings import EmbeddingStep
from curation.stages.generations import GenerationStep, generation_steps
from curation.stages.judgements import judge_step
from curation.stages.pair_scores import labelled_rows
from curation.stages.policy_stats import policy_step
from curation.stages.refusals import refusal_step
from curation.stages.requests import judges_requests, request_step
from curation.stages.rescoring import rescoring_step
from curation.stages.reward_heads import TRAINED

__all__ = ["check_named"]

_Named = Iterator[tuple[str, Callable[[], Any]]]
"""The key of the recipe, and what finds the thing that it names or raises."""


def check_named(context: Context) -> None:
    """Look for every model, function and file that the recipe names and a later stage will want.

    Raises:
        InputError: with the key of the first that is not there. Of a Hub model it is known where the Hub answers.
    """
    for key, look in (*_files(context), *_functions(context.recipe), *_models(context)):
        try:
            found = str(look())
        except InputError as error:
            raise InputError(f"{key}: {error}") from error
        lacking = [name for name in missing_on_hub() if name in found]
        if lacking:
            raise InputError(
                f"{key}: the Hub knows no model {lacking[0]}, or keeps it from whoever has no HF_TOKEN for it, and "
                "the cache has none: correct the name, or set HF_TOKEN"
            )


def _files(context: Context) -> _Named:
    recipe = context.recipe
    if recipe.negatives is not None and recipe.negatives.corpus is not None:
        corpus = recipe.negatives.corpus
        yield "negatives.corpus", partial(_there, corpus)
    if recipe.builds_pairs and recipe.strength.labelled is not None:
        yield "strength.labelled", partial(labelled_rows, context)
    yield "publish.card_template", partial(read_template, recipe.publish.card_template)


def _there(path: str) -> None:
    if "://" not in path and not Path(path).exists():
        raise InputError(f"{path}: no such file")


def _functions(recipe: Recipe) -> _Named:
    budget = recipe.sampling.budget if recipe.sampling else None
    tuning = recipe.refusal_dataset.r_tuning
    named = {
        "sampling.budget.verifier": budget.verifier if budget else None,
        "constructed.verifier": recipe.constructed.verifier if recipe.constructed else None,
    }
    if tuning is not None and tuning.by == "correctness":
        named["refusal_dataset.r_tuning.verifier"] = tuning.verifier
    for key, name in named.items():
        if name is not None and name != EXACT_MATCH:
            expected = f"{EXACT_MATCH} or python:package.module:function"
            yield key, partial(named_function, name, what="verifier", expected=expected)


def _models(context: Context) -> _Named:
    recipe, sampling = context.recipe, context.recipe.sampling
    for place, step in enumerate(generation_steps(context)):
        yield f"generation.{place}", _key(step)
    for key, options in recipe.rewriters.items():
        yield key, _key(GenerationStep(options, recipe.seed))
    if sampling is not None and (sampling.choice or (sampling.budget and sampling.budget.min_reward is not None)):
        yield "sampling.reward", partial(_reward, sampling.reward)
    if recipe.encoder is not None:
        yield "encoder", _key(EmbeddingStep(recipe.encoder))
    for place, reward in enumerate(recipe.rewards):
        yield f"rewards.{place}", partial(_reward, reward)
    if recipe.refusals is not None:
        yield "refusals", _key(refusal_step(context))
        if judges_requests(recipe):
            yield "refusals", _key(request_step(context))
    if recipe.policy is not None:
        yield "policy", _key(policy_step(context))
    yield from _models_of_pairs(context)
    yield from _models_of_negatives(recipe)


def _models_of_pairs(context: Context) -> _Named:
    recipe = context.recipe
    if not recipe.builds_pairs:
        return
    if recipe.judge is not None:
        yield "judge", partial(check_pair_judge, recipe.judge.model)
        yield "judge", _key(judge_step(context))
    reader = recipe.label_noise.language_model if recipe.label_noise else None
    if reader is not None:
        yield "label_noise.language_model", partial(answer_states_fingerprint, reader)


def _models_of_negatives(recipe: Recipe) -> _Named:
    if recipe.negatives is None:
        return
    for place, guide in enumerate(recipe.negatives.guides):
        yield f"negatives.guides.{place}", _key(EmbeddingStep(guide))
    rescorer = recipe.negatives.rescorer
    if rescorer is not None:
        yield "negatives.rescorer", lambda: rescoring_step(rescorer).key


def _key(step: object) -> Callable[[], Any]:
    return partial(getattr, step, "key")


def _reward(options: Reward) -> str:
    """Of heads that the run itself will train there is nothing yet."""
    return TRAINED if options.model == TRAINED else reward_fingerprint(options.model, **options.options)
