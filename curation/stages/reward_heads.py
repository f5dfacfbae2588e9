"""Stage ``reward_heads``: reward heads fitted to the pairs that the sources bring, cross-fitted by prompt.

The heads remember which prompts they have seen, so the rewards of these very pairs are out of fold.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import polars as pl

from curation.errors import InputError
from curation.models.identity import EMBEDDED
from curation.models.rewards.heads import HEADS_FILE, Heads, heads_bytes, read_heads
from curation.scores.training import TrainingOptions, train_heads, training_hash
from curation.stages.context import Context, Stage, StageResult
from curation.stages.head_features import encoder_for_heads
from curation.text import content_hash, prompt_id
from curation.workspace import Workspace

__all__ = ["HEADS", "STAGE", "TRAINED", "local_copy", "trained_folder"]

TRAINED: Final = "trained"
"""The MODEL of a recipe's reward that means these heads."""
HEADS: Final = "reward_heads"
"""The stage, the folder that it writes, and what the names of its rewards begin with."""


def run(context: Context) -> StageResult:
    options = TrainingOptions(
        context.recipe.reward_training.heads, context.recipe.reward_training.folds, context.recipe.seed
    )
    pairs = _pairs(context)
    prompts, chosen, rejected = (pairs[name].to_list() for name in ("prompt", "chosen", "rejected"))
    encoder = encoder_for_heads(context)
    key = training_hash([prompt_id(p) for p in prompts], chosen, rejected, encoder.fingerprint, options)
    before = _current(context)
    facts: dict[str, Any] = {"pairs": pairs.height, "heads": options.heads, "folds": options.folds}
    if before is None or before.trained_on != key:
        model = context.recipe.encoder.model if context.recipe.encoder else EMBEDDED
        trained = train_heads(
            prompts,
            chosen,
            rejected,
            encoder=encoder,
            encoder_name=model,
            options=options,
            progress=context.progress,
        )
        context.workspace.write_bytes(trained.card.encode(), *_parts(context), "README.md")
        context.workspace.write_bytes(heads_bytes(trained.heads), *_parts(context), HEADS_FILE)
        facts["agree with the labels, out of fold"] = round(trained.accuracy, 4)
        facts["the longer answer does"] = round(trained.length_accuracy, 4)
    return StageResult(HEADS, pairs.height, 0, facts)


def trained_folder(context: Context) -> str:
    """A local folder with the heads of this workspace.

    Raises:
        InputError: when they have not been trained yet.
    """
    workspace = context.workspace
    if workspace.is_local:
        folder = workspace.path(*_parts(context))
        if not Path(folder, HEADS_FILE).is_file():
            raise InputError(f"{folder} holds no reward heads yet: run the stage reward_heads first")
        return folder
    with workspace.filesystem().open(workspace.path(*_parts(context), HEADS_FILE), "rb") as file:
        data = bytes(file.read())
    copy = local_copy(context.workspace)
    copy.mkdir(parents=True, exist_ok=True)
    (copy / HEADS_FILE).write_bytes(data)
    return str(copy)


def local_copy(workspace: Workspace) -> Path:
    """Where the heads of a workspace in an object store are copied to, to be read."""
    place = content_hash(workspace.path(*workspace.report_parts))[:16]
    return Path(tempfile.gettempdir(), "curation-heads", place, HEADS)


def _current(context: Context) -> Heads | None:
    try:
        return read_heads(Path(trained_folder(context)))
    except (InputError, FileNotFoundError):
        return None


def _parts(context: Context) -> tuple[str, ...]:
    """Where the heads lie in the workspace; a trial has its own."""
    return (*context.workspace.report_parts[:-1], "models", HEADS)


def _pairs(context: Context) -> pl.DataFrame:
    """The sources' pairs, each once: prompt (messages), chosen, rejected."""
    rows = context.workspace.scan("inputs").filter(pl.col("kind") == "pair")
    found: pl.DataFrame = (
        rows.select(
            "prompt_id",
            prompt="messages",
            chosen=pl.col("responses").list.get(pl.col("chosen_index")),
            rejected=pl.col("responses").list.get(pl.col("rejected_index")),
        )
        .unique(["prompt_id", "chosen", "rejected"], keep="first", maintain_order=True)
        .filter(pl.col("chosen") != pl.col("rejected"))
        .collect()
    )
    if found.is_empty():
        raise InputError(
            "rewards has model 'trained', which needs sources with pairs (prompt, chosen, rejected); found none"
        )
    return found


STAGE = Stage(
    name=HEADS,
    group="scores",
    description="Reward heads fitted to the sources' own pairs, to score each pair by heads that never saw it.",
    needs=("inputs", "embeddings"),
    run=run,
    table=None,
    enabled=lambda recipe: any(reward.model == TRAINED for reward in recipe.rewards),
    uses_model=True,
)
