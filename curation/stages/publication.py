"""Stages ``publish_*``: write each dataset's folder, unless a gate refuses it."""

from __future__ import annotations

from functools import partial
from typing import Final

from curation.publish.formats import trainer_view
from curation.publish.writing import write_dataset
from curation.recipe import DATASETS, Recipe
from curation.stages.context import Context, Stage, StageResult
from curation.stages.gates import refuse_if_blocked

__all__ = ["STAGES"]


def run(context: Context, *, dataset: str) -> StageResult:
    refuse_if_blocked(context, dataset)
    frame = context.workspace.read(dataset)
    view = trainer_view(dataset, frame)
    folder = context.workspace.dataset_path(dataset)
    write_dataset(
        view.frame,
        folder=folder,
        filesystem=None if context.workspace.is_local else context.workspace.filesystem(),
        rows_per_shard=context.recipe.publish.rows_per_shard,
        evidence=view.evidence,
    )
    return StageResult(f"publish_{dataset}", frame.height, 0, {"folder": folder})


def _publishes(recipe: Recipe, *, dataset: str) -> bool:
    return dataset in recipe.publish.datasets


STAGES: Final = tuple(
    Stage(
        name=f"publish_{dataset}",
        group="publication",
        description=f"The folder of the dataset {dataset}, in the Hub's layout with its card.",
        needs=(dataset, "gates"),
        run=partial(run, dataset=dataset),
        table=None,
        enabled=partial(_publishes, dataset=dataset),
    )
    for dataset in DATASETS
)
