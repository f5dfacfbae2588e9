"""Taking rows out of published datasets, in place: a version more, which says how many rows went and no more."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import polars as pl

from curation.forgetting.matching import Needles
from curation.publish.card import escape_markdown
from curation.publish.card_header import data_tables
from curation.publish.history import (
    CHANGELOG,
    MANIFEST,
    History,
    Reason,
    Version,
    data_digest,
    next_name,
    render_changelog,
)
from curation.publish.published_folder import PublishedFolder
from curation.publish.writing import Draft, split_counts, write_dataset
from curation.stages.changelog import today
from curation.stages.facts import table_versions
from curation.workspace import Workspace

__all__ = ["withdraw_rows"]

_REASON: Final = "removed with `curation forget`"
_CARD: Final = "README.md"
_NOTE: Final = "> Rows were removed after this card was written; the next run writes it anew.\n"


def withdraw_rows(
    workspace: Workspace, dataset: str, needles: Needles, *, dry_run: bool = False
) -> tuple[int, int]:
    """Take the rows out of a published dataset. Returns how many go, and how many there were.

    A dataset of which nothing is left goes whole. Nothing is touched where nothing is found.
    """
    where = workspace.dataset_path(dataset)
    filesystem = None if workspace.is_local else workspace.filesystem()
    folder = PublishedFolder(where, filesystem=filesystem)
    rows, evidence, largest = _rows(folder)
    if rows is None:
        return 0, 0
    both = rows if evidence is None else pl.concat([rows, evidence.drop("split")], how="horizontal")
    gone = needles.rows(both)
    others = {path: folder.read(path) for path in folder.paths if not path.startswith(("data/", "evidence/"))}
    mentions = any(
        needles.in_bytes(content) or _in_parquet(path, content, needles) for path, content in others.items()
    )
    if dry_run or not (gone.any() or mentions):
        return int(gone.sum()), both.height
    if gone.all():
        workspace.filesystem().rm(where, recursive=True)
        return both.height, both.height
    kept, proof = rows.filter(~gone), None if evidence is None else evidence.filter(~gone)

    def beside(draft: Draft) -> dict[str, bytes]:
        return _others(workspace, draft, others, kept, proof, needles, removed=int(gone.sum()))

    write_dataset(
        kept, folder=where, filesystem=filesystem, rows_per_shard=largest, evidence=proof, extra_files=beside
    )
    return int(gone.sum()), both.height


def _rows(folder: PublishedFolder) -> tuple[pl.DataFrame | None, pl.DataFrame | None, int]:
    """Data, evidence, and the rows of the largest file; each split in its order."""
    frames: dict[str, list[pl.DataFrame]] = {"data": [], "evidence": []}
    for path in folder.paths:
        part, _, name = path.partition("/")
        if part in frames and name.endswith(".parquet"):
            rows = pl.read_parquet(BytesIO(folder.read(path)))
            frames[part].append(rows.with_columns(split=pl.lit(name.split("-", 1)[0])))
    if not frames["data"]:
        return None, None, 1
    largest = max(frame.height for frame in frames["data"])
    return pl.concat(frames["data"]), pl.concat(frames["evidence"]) if frames["evidence"] else None, largest


def _others(
    workspace: Workspace,
    draft: Draft,
    others: dict[str, bytes],
    data: pl.DataFrame,
    evidence: pl.DataFrame | None,
    needles: Needles,
    *,
    removed: int,
) -> dict[str, bytes]:
    """The files beside the data, without what is forgotten."""
    found: dict[str, bytes] = {}
    for path, content in others.items():
        if path.endswith(".parquet"):
            rows = pl.read_parquet(BytesIO(content))
            found[path] = _parquet(rows.filter(~needles.rows(rows))) if needles.rows(rows).any() else content
        elif path not in (MANIFEST, CHANGELOG, _CARD) and not needles.in_bytes(content):
            found[path] = content
    if _CARD in others:
        found[_CARD] = _card(others[_CARD].decode(), draft, data, evidence)
    history = History.from_bytes(others.get(MANIFEST), where=f"{workspace.url} {MANIFEST}")
    if history is not None:
        history = _history(workspace, history, draft, data, needles, removed=removed)
        found[CHANGELOG] = render_changelog(history, escape=escape_markdown).encode()
        paths = tuple(sorted([*found, MANIFEST]))
        found[MANIFEST] = history.model_copy(update={"others": paths}).to_bytes()
    return found


def _history(
    workspace: Workspace, history: History, draft: Draft, data: pl.DataFrame, needles: Needles, *, removed: int
) -> History:
    """A version more, and in the older ones no identifier that is forgotten."""
    gone = set(needles.identifiers)
    older = tuple(
        version.model_copy(
            update={
                "reasons": tuple(
                    reason.model_copy(update={"ids": tuple(i for i in reason.ids if i not in gone)})
                    for reason in version.reasons
                )
            }
        )
        for version in history.versions
    )
    files = {file.path: file.sha256 for file in draft.files}
    digest = data_digest(files)
    if removed:
        reason = Reason(change="removed", reason=_REASON, rows=removed)
        version = Version(
            name=next_name(older), date=today(), digest=digest, rows=split_counts(data), removed=removed,
            reasons=(reason,),
        )  # fmt: skip
        older = (*older, version)
    # The next run looks for reasons in the tables as they are now: older versions of them are gone.
    made_from = history.made_from | {"tables": dict(table_versions(workspace))}
    return history.model_copy(update={"versions": older, "files": files, "made_from": made_from})


def _card(card: str, draft: Draft, data: pl.DataFrame, evidence: pl.DataFrame | None) -> bytes:
    """The card with the sizes of the files that are there now: readers check them."""
    import yaml

    _, fence, rest = card.partition("---\n")
    header, closing, body = rest.partition("\n---\n")
    if not (fence and closing):
        return card.encode()
    meta: dict[str, Any] = yaml.safe_load(header)
    tables = data_tables(draft.files, data, evidence)
    info = meta.get("dataset_info")
    if info:
        facts = [
            {
                "config_name": t.config, "features": t.features, "splits": t.splits,
                "download_size": t.download_size,
                "dataset_size": sum(split["num_bytes"] for split in t.splits),
            }
            for t in tables
        ]  # fmt: skip
        meta["dataset_info"] = (
            facts if len(facts) > 1 else {k: v for k, v in facts[0].items() if k != "config_name"}
        )
    splits = set(split_counts(data))
    for config in meta.get("configs", ()):
        config["data_files"] = [one for one in config["data_files"] if one["split"] in splits]
    if _NOTE not in body:
        body = f"\n{_NOTE}{body}"
    dumped = yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")
    return f"---\n{dumped}\n---\n{body}".encode()


def _in_parquet(path: str, content: bytes, needles: Needles) -> bool:
    return path.endswith(".parquet") and bool(needles.rows(pl.read_parquet(BytesIO(content))).any())


def _parquet(rows: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    rows.write_parquet(buffer)
    return buffer.getvalue()
