"""The YAML header of a card, as the Hub and ``datasets`` read it: configs, splits, features and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from curation.publish.writing import PublishedFile, arrow_schema

__all__ = ["ConfigTable", "card_header", "data_tables", "with_keys_of"]

_SIZES: Final = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")
_CONFIGS: Final = {"default": "data", "evidence": "evidence"}
_OURS: Final = frozenset(
    {"pretty_name", "license", "language", "task_categories", "tags", "size_categories", "dataset_info", "configs"}
)


class ConfigTable(NamedTuple):
    """What one config of a dataset holds."""

    config: str
    features: list[dict[str, Any]]
    """As ``datasets`` writes them under ``dataset_info.features``."""
    splits: list[dict[str, Any]]
    """``name``, ``num_bytes`` (in memory) and ``num_examples``."""
    download_size: int
    """Bytes of its files."""


def data_tables(
    files: Sequence[PublishedFile],
    frame: pl.DataFrame,
    evidence: pl.DataFrame | None,
    *,
    split_column: str = "split",
) -> list[ConfigTable]:
    """Features and sizes of each config of a dataset that is being written.

    Args:
        files: its data files, with rows and sizes.
        frame, evidence: as given to :func:`curation.publish.writing.write_dataset`.
    """
    found = []
    for config, folder in _CONFIGS.items():
        rows = frame if config == "default" else evidence
        if rows is None:
            continue
        mine = [file for file in files if file.path.startswith(f"{folder}/")]
        sizes: dict[str, list[PublishedFile]] = {}
        for file in mine:
            sizes.setdefault(file.path.split("/", 1)[1].split("-", 1)[0], []).append(file)
        splits = [
            {
                "name": split,
                "num_bytes": sum(file.memory for file in of_split),
                "num_examples": sum(file.rows or 0 for file in of_split),
            }
            for split, of_split in sizes.items()
        ]
        schema = arrow_schema(rows.drop(split_column, strict=False))
        found.append(ConfigTable(config, _features(schema), splits, sum(file.bytes for file in mine)))
    return found


def card_header(
    *,
    name: str,
    license: str,
    languages: Sequence[str],
    task: Mapping[str, Sequence[str]],
    splits: Mapping[str, int],
    evidence: bool,
    tables: Sequence[ConfigTable],
) -> str:
    """The header, without its fences.

    Args:
        name, license, languages: as the Hub names them.
        task: ``task_categories`` and ``tags``.
        splits: split to rows.
        evidence: whether there is a config of that name.
        tables: features and sizes; none are said where there are none.
    """
    import yaml

    meta: dict[str, Any] = {"pretty_name": name, "license": license}
    if languages:
        meta["language"] = list(languages)
    meta["task_categories"] = list(task["task_categories"])
    meta["tags"] = [*task["tags"], "preference-curation"]
    meta["size_categories"] = [_size(sum(splits.values()))]
    folders = {config: folder for config, folder in _CONFIGS.items() if config == "default" or evidence}
    if tables:
        info = [
            {
                "config_name": table.config,
                "features": table.features,
                "splits": table.splits,
                "download_size": table.download_size,
                "dataset_size": sum(split["num_bytes"] for split in table.splits),
            }
            for table in tables
        ]
        meta["dataset_info"] = info if len(info) > 1 else {k: v for k, v in info[0].items() if k != "config_name"}
    meta["configs"] = [
        {
            "config_name": config,
            "data_files": [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in splits],
        }
        for config, folder in folders.items()
    ]
    return str(yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=1000)).rstrip("\n")


def with_keys_of(card: bytes, theirs: bytes) -> bytes:
    """A card with the keys that only the header of another version of it has, such as ``extra_gated_prompt``.

    People write them on the Hub, and no card of ours has them. A header that cannot be read adds nothing.
    """
    import yaml

    try:
        found = yaml.safe_load(theirs.split(b"---\n", 2)[1]) if theirs.startswith(b"---\n") else None
    except (yaml.YAMLError, UnicodeDecodeError):
        return card
    added = {key: value for key, value in found.items() if key not in _OURS} if isinstance(found, dict) else {}
    if not added or not card.startswith(b"---\n"):
        return card
    fence, header, body = card.split(b"---\n", 2)
    more = yaml.safe_dump(added, sort_keys=False, allow_unicode=True, width=1000).encode()
    return b"---\n".join((fence, header + more, body))


def _size(rows: int) -> str:
    return next((name for power, name in enumerate(_SIZES) if rows < 10 ** (power + 3)), _SIZES[-1])


def _features(schema: Any) -> list[dict[str, Any]]:
    return [{"name": field.name, **_feature(field.type)} for field in schema]


def _feature(kind: Any) -> dict[str, Any]:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"struct": _features(kind)}
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": next(iter(inner.values()))}
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(kind), str(kind))}
