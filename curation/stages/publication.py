"""Stages ``publish_*``: write each dataset's folder with its card, unless a gate refuses it."""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

import polars as pl

from curation.models.identity import EMBEDDED
from curation.pairs.margin_scales import scale_count
from curation.publish.card import (
    CardData,
    card_figures,
    column_rows,
    escape_markdown,
    read_template,
    render_card,
)
from curation.publish.card_header import data_tables
from curation.publish.drift import DRIFT
from curation.publish.formats import TrainerView, strength_column, trainer_view
from curation.publish.gates import raise_if_blocked
from curation.publish.history import CHANGELOG, MANIFEST, render_changelog
from curation.publish.writing import Draft, split_counts, write_dataset
from curation.recipe import DATASETS, Recipe
from curation.stages import gates
from curation.stages.changelog import updated_history
from curation.stages.context import Context, Stage, StageResult
from curation.stages.evidence import pair_evidence
from curation.stages.facts import gate_results, models_used, package_versions, table_versions, thresholds_used
from curation.stages.forms import published_rows, table_of
from curation.stages.policy_stats import policy_step
from curation.workspace import Workspace
from schemas.columns import SPLITS

__all__ = ["STAGES"]

_LOG = logging.getLogger(__name__)

_OF_PAIRS: Final = frozenset({"preference", "preference_unpaired", "reward", "reward_augmented", "sft"})

_NEGATIVE_MARGINS: Final = (
    "margin is the mean margin of the reward models, unchanged: it is below 0 where they contradict the label, and "
    "the trainer then asks for less than equality. Drop the column to train without margins."
)
_SCORES_OF_SOURCES: Final = (
    "margin is the difference of the sources' own scores, unchanged: it is below 0 where they contradict the "
    "label. Drop the column to train without margins."
)
_SEVERAL_SCALES: Final = (
    "margin is the difference of the sources' own scores, which are on several scales: each is divided by the "
    "spread of its scale, 1.4826 × the median of the absolute margins. Drop the column to train without margins."
)
_REFERENCE: Final = (
    "ref_chosen_logps and ref_rejected_logps are of the policy named here and of no other model. TRL 0.12 to 0.28, "
    "and what is built on it, takes them for the reference of whatever is trained. Later versions compute "
    "their own, and fail with precompute_ref_log_probs where they find the columns. Remove both to train another "
    "model, or in that way."
)
_BUNDLED_REFERENCE: Final = (
    "%s: ref_chosen_logps and ref_rejected_logps are of the small bundled policy, which nobody trains, and TRL "
    "0.12 to 0.28 takes them for your model's reference: name that model as policy.model, or set "
    "publish.reference_logps to false"
)


def run(context: Context, *, dataset: str) -> StageResult:
    workspace = context.workspace
    if not context.gates_measured:
        # Somebody runs this stage alone: what the gates said last may be of other rows.
        gates.STAGE.run(context)
    raise_if_blocked(gate_results(workspace, table_of(dataset)))
    frame = published_rows(context, dataset)
    view = trainer_view(dataset, frame, reference_logps=context.recipe.publish.reference_logps)
    folder = workspace.dataset_path(dataset)
    waterfall = workspace.read("waterfall").filter(pl.col("dataset") == _waterfall_of(dataset))
    pairs = pair_evidence(context, texts=False) if dataset in _OF_PAIRS else None
    figures, captions = card_figures(waterfall=waterfall, pairs=pairs)
    path = context.recipe.publish.card_template
    template = read_template(path)

    def beside_the_data(draft: Draft) -> dict[str, bytes]:
        updated = updated_history(context, dataset, draft, view)
        card = _card(context, dataset, view, waterfall, captions)
        card = card._replace(history=updated.history, tables=data_tables(draft.files, view.frame, view.evidence))
        changelog = render_changelog(updated.history, escape=escape_markdown)
        beside = {
            "README.md": render_card(card, template=template, template_path=path or "").encode(),
            CHANGELOG: changelog.encode(),
            **updated.files,
            **figures,
        }
        others = tuple(sorted([*beside, MANIFEST]))
        beside[MANIFEST] = updated.history.model_copy(update={"others": others}).to_bytes()
        return beside

    written = write_dataset(
        view.frame,
        folder=folder,
        filesystem=None if workspace.is_local else workspace.filesystem(),
        rows_per_shard=context.recipe.publish.rows_per_shard,
        evidence=view.evidence,
        extra_files=beside_the_data,
    )
    facts = {"folder": folder, "changed": "yes" if written.changed else "no"}
    if "ref_chosen_logps" in view.frame.columns:
        facts["ref_chosen_logps and ref_rejected_logps are of"] = policy_step(context).key.producer
        if policy_step(context).options.model == EMBEDDED:
            _LOG.warning(_BUNDLED_REFERENCE, dataset)
    wanted = context.recipe.splits.model_dump(include=set(SPLITS))
    if frame.height and (
        empty := [name for name in SPLITS if wanted[name] > 0 and name not in set(frame["split"])]
    ):
        facts["splits without rows"] = ", ".join(empty)
    return StageResult(f"publish_{dataset}", frame.height, 0, facts)


def _waterfall_of(dataset: str) -> str:
    """The dataset whose waterfall leads to this one."""
    return "preference" if dataset in _OF_PAIRS else table_of(dataset)


def _card(
    context: Context, dataset: str, view: TrainerView, waterfall: pl.DataFrame, captions: dict[str, str]
) -> CardData:
    workspace, recipe = context.workspace, context.recipe
    sources = dict(workspace.scan("inputs").group_by("source").len().sort("source").collect().iter_rows())
    licences = {s.name: s.license for s in recipe.sources if s.license}
    facts = {f"licence of {name}": licence for name, licence in licences.items()}
    return CardData(
        dataset=dataset,
        name=f"{recipe.name}: {dataset}",
        license=recipe.publish.license,
        splits=split_counts(view.frame),
        languages=recipe.publish.languages,
        facts={"recipe": recipe.name, "seed": str(recipe.seed)} | facts,
        sources=sources,
        waterfall=waterfall,
        thresholds=thresholds_used(workspace, recipe) if dataset in _OF_PAIRS else (),
        models=models_used(context),
        versions=package_versions() | {f"table {name}": str(v) for name, v in table_versions(workspace).items()},
        # What a gate says of drift depends on when it is asked, and not on the data: it is in the changelog.
        gates=[gate for gate in gate_results(workspace, table_of(dataset)) if gate.name not in DRIFT],
        columns=column_rows(view.frame),
        figures=captions,
        evidence=view.evidence is not None,
        left_out=view.left_out,
        limitations=_warnings(workspace, dataset, view.frame.columns),
    )


def _warnings(workspace: Workspace, dataset: str, columns: list[str]) -> tuple[str, ...]:
    """What somebody who trains on the files has to know of their columns."""
    margin = (_margins(workspace),) if dataset == "reward" and "margin" in columns else ()
    return margin + (_REFERENCE,) * ("ref_chosen_logps" in columns)


def _margins(workspace: Workspace) -> str:
    if strength_column(workspace.scan("preference").select("^strength_mean$").collect()) == "strength_mean":
        return _NEGATIVE_MARGINS
    built = workspace.scan("pairs").select("^margin(_scale)?$").collect()
    return _SEVERAL_SCALES if scale_count(built) > 1 else _SCORES_OF_SOURCES


def _publishes(recipe: Recipe, *, dataset: str) -> bool:
    return dataset in recipe.publish.datasets


STAGES: Final = tuple(
    Stage(
        name=f"publish_{dataset}",
        group="publication",
        description=f"The folder of the dataset {dataset}, in the Hub's layout with its card.",
        needs=(table_of(dataset), "gates"),
        run=partial(run, dataset=dataset),
        table=None,
        enabled=partial(_publishes, dataset=dataset),
    )
    for dataset in DATASETS
)
