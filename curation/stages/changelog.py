"""A dataset's next version: what changed since the last one, and why. No stage is here; publication calls it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final, NamedTuple

import polars as pl

from curation.publish.drift import DRIFT
from curation.publish.formats import TrainerView
from curation.publish.history import MANIFEST, History, Reason, Version, data_digest, next_name
from curation.publish.report import format_number
from curation.publish.row_changes import ROW_KEYS, published_frames, row_changes
from curation.publish.writing import Draft, PublishedFile, split_counts
from curation.recipe import Recipe
from curation.stages.causes import with_reasons
from curation.stages.context import Context
from curation.stages.facts import gate_results, models_used, package_versions, table_versions, thresholds_used
from curation.stages.forms import table_of
from curation.text import content_hash

__all__ = ["Updated", "today", "updated_history"]

_PARTS: Final = 100_000
_IDS_SHOWN: Final = 3
_PLACES: Final = ("path", "corpus", "url", "endpoint", "template", "file")
_DIFFERING: Final = {
    "sources": "rows of source ",
    "recipe": "recipe ",
    "models": "model of ",
    "thresholds": "threshold of ",
    "packages": "package ",
}
_NOT_OF_THE_DATA: Final[dict[str, Any]] = {
    "workspace": True,
    "publish": {"hub", "card_template", "license", "languages"},
}


class Updated(NamedTuple):
    """The history after a publication, and the files that tell it."""

    history: History
    files: dict[str, bytes]
    """Relative path to content: the lists of changed rows, of all versions."""


def updated_history(context: Context, dataset: str, draft: Draft, view: TrainerView) -> Updated:
    """The history with a version more where the data differs from what readers see now."""
    where = f"{context.workspace.dataset_path(dataset)}/{MANIFEST}"
    before = History.from_bytes(draft.published(MANIFEST), where=where)
    made_from = _made_from(context)
    files = {f.path: f.sha256 for f in draft.files}
    digest = data_digest(files)
    lists = _lists_of(before, draft)
    if before is not None and before.latest.digest == digest:
        versions = before.versions
    else:
        counts = split_counts(view.frame)
        version = Version(
            name=next_name(before.versions if before else ()), date=today(), digest=digest, rows=counts
        )
        if before is not None:
            version, listed = _compared(context, dataset, before, draft, view, version, made_from)
            lists |= listed
        versions = (*(before.versions if before else ()), version)
    return Updated(History(dataset=dataset, versions=versions, files=files, made_from=made_from), lists)


def today() -> str:
    """The date in UTC; SOURCE_DATE_EPOCH stands for now, as everywhere."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    return now.date().isoformat()


def _lists_of(before: History | None, draft: Draft) -> dict[str, bytes]:
    """The lists of changed rows that earlier versions have, as they are."""
    paths = [v.changes_file for v in before.versions if v.changes_file] if before else []
    found = {path: draft.published(path) for path in paths}
    return {path: data for path, data in found.items() if data is not None}


def _compared(
    context: Context,
    dataset: str,
    before: History,
    draft: Draft,
    view: TrainerView,
    version: Version,
    made_from: dict[str, dict[str, Any]],
) -> tuple[Version, dict[str, bytes]]:
    old_files = [PublishedFile(path, None, 0, digest) for path, digest in sorted(before.files.items())]
    whole = view.frame if view.evidence is None else pl.concat([view.frame, view.evidence], how="horizontal")
    changes = row_changes(dataset, published_frames(old_files, draft), whole.iter_slices(_PARTS))
    rows = with_reasons(context.workspace, dataset, changes.rows, tables_before=before.made_from.get("tables", {}))
    counts = dict(rows.group_by("change").len().iter_rows())
    columns = [f"column {name}: added" for name in changes.columns_added]
    columns += [f"column {name}: removed" for name in changes.columns_removed]
    listed = {} if rows.is_empty() else {f"changes/{version.name}.parquet": _parquet(rows)}
    return version.model_copy(
        update={
            **{word: counts.get(word, 0) for word in ("added", "removed", "changed")},
            "reasons": _reasons(dataset, rows),
            "moved": _moved(context, dataset),
            "settings": (*columns, *_differences(before.made_from, made_from)),
            "changes_file": next(iter(listed), None),
        }
    ), listed


def _moved(context: Context, dataset: str) -> tuple[str, ...]:
    """What the gates measured against the version before, where they could."""
    found = gate_results(context.workspace, table_of(dataset))
    return tuple(gate.message for gate in found if gate.name in DRIFT and gate.value is not None)


def _reasons(dataset: str, rows: pl.DataFrame) -> tuple[Reason, ...]:
    """Rows by change and reason (and source, where one is known), the most first."""
    named = rows.with_columns(
        _reason=pl.when(pl.col("source").is_not_null() & pl.col("reason").str.contains("prompt is"))
        .then(pl.concat_str("reason", pl.lit(" (source "), "source", pl.lit(")")))
        .otherwise("reason")
    )
    counted = (
        named.group_by("change", "_reason", maintain_order=True)
        .agg(pl.len(), pl.col(ROW_KEYS[dataset][0]).unique(maintain_order=True).head(_IDS_SHOWN).alias("ids"))
        .sort("change", "len", "_reason", descending=[False, True, False])
    )
    return tuple(Reason(change=c, reason=r, rows=n, ids=tuple(ids)) for c, r, n, ids in counted.iter_rows())


def _made_from(context: Context) -> dict[str, dict[str, Any]]:
    """Everything that a change can come from: name to value, in a form that may be read by anyone."""
    workspace, recipe = context.workspace, context.recipe
    sources = workspace.scan("inputs").group_by("source").len().sort("source").collect()
    models: dict[str, Any] = {}
    for model in models_used(context):
        step = str(model["step"])
        models[f"{step} {sum(k.split(' ')[0] == step for k in models) + 1}" if step in models else step] = str(
            model["producer"]
        )
    return {
        "recipe": _flat(recipe),
        "models": models,
        "packages": dict(package_versions()),
        "thresholds": {f"{t.column} {t.kind}": t.value for t in thresholds_used(workspace, recipe)},
        "sources": {name: int(rows) for name, rows in sources.iter_rows()},
        "tables": dict(table_versions(workspace)),
    }


def _flat(recipe: Recipe) -> dict[str, Any]:
    """The recipe's keys with their values. Paths and addresses are hashed: they are no reader's business."""
    dumped = recipe.model_dump(mode="json", exclude=_NOT_OF_THE_DATA)
    dumped["sources"] = {source["name"]: source for source in dumped["sources"]}
    return dict(_leaves(dumped, ""))


def _leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{name}.{key}" if name else key)]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [leaf for i, item in enumerate(value, 1) for leaf in _leaves(item, f"{name}.{i}")]
    if value is not None and any(word in name.rsplit(".", 1)[-1] for word in _PLACES):
        # The same files in another folder, or on another machine, are the same data.
        place = str(value) if "://" in str(value) else os.path.basename(str(value))
        return [(name, f"#{content_hash(place)[:8]}")]
    return [(name, value)]


def _differences(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each setting, model, threshold, package or source that is not what it was."""
    lines = []
    for part, word in _DIFFERING.items():
        old, new = before.get(part, {}), after.get(part, {})
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                lines.append(f"{word}{name}: {_shown(old.get(name))} → {_shown(new.get(name))}")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return str(format_number(value))
    return "not set" if value is None else str(value)


def _parquet(rows: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    rows.write_parquet(buffer)
    return buffer.getvalue()
