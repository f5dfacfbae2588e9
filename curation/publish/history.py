"""The history of a dataset: ``curation.json`` in its folder, and CHANGELOG.md, which is made from it.

A version is a state of the data; a card that says something else over the same data is no new version. What
has changed and why is found elsewhere; here it is kept and put into words. It holds ids, counts and names of
rules and settings, never texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curation.errors import WorkspaceError
from curation.publish.writing import PublishedFile
from curation.text import content_hash
from curation.validation_words import fault_words

__all__ = ["CHANGELOG", "MANIFEST", "History", "Reason", "Version", "data_digest", "next_name", "render_changelog"]

MANIFEST: Final = "curation.json"
CHANGELOG: Final = "CHANGELOG.md"
_FORMAT: Final = 1
_DATA: Final = ("data/", "evidence/")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Reason(_Part):
    """Rows that changed for one reason."""

    change: Literal["added", "removed", "changed"]
    reason: str
    rows: int
    ids: tuple[str, ...] = ()
    """The first few of them."""


class Version(_Part):
    """A state of the data."""

    name: str
    date: str
    """UTC, year-month-day."""
    digest: str
    """See :func:`data_digest`."""
    rows: dict[str, int]
    """Split to rows."""
    added: int = 0
    removed: int = 0
    changed: int = 0
    reasons: tuple[Reason, ...] = ()
    moved: tuple[str, ...] = ()
    """What the gates that watch for drift measured against the version before."""
    settings: tuple[str, ...] = ()
    """What else differs from the version before: settings, models, thresholds, columns."""
    changes_file: str | None = None
    """Every row that was added, removed or changed, with its reason."""


class History(_Part):
    """What ``curation.json`` holds."""

    format: int = _FORMAT
    dataset: str
    versions: tuple[Version, ...]
    """Oldest first."""
    files: dict[str, str]
    """The data files of the last version: path to SHA-256."""
    others: tuple[str, ...] = ()
    """Paths of the files beside the data, such as the card's figures."""
    made_from: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Recipe, models, table versions, thresholds, sources: name to value."""

    @property
    def latest(self) -> Version:
        """The last version."""
        return self.versions[-1]

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes | None, *, where: str) -> History | None:
        """Read the file's content; None for None.

        Raises:
            WorkspaceError: when it is not what :meth:`to_bytes` writes.
        """
        if data is None:
            return None
        try:
            found = cls.model_validate_json(data)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in fault["loc"]) or "the file"
            raise WorkspaceError(
                f"{where}: {place}: {fault_words(fault)}. It holds the dataset's history: restore it, or move the "
                f"folder away to start a new one"
            ) from error
        if found.format > _FORMAT or not found.versions:
            raise WorkspaceError(f"{where} was written by a newer version of this package: upgrade it")
        return found

    def continues(self, earlier: History) -> bool:
        """Whether every version of an earlier history is among this one's, in order."""
        mine = [(version.name, version.digest) for version in self.versions]
        return mine[: len(earlier.versions)] == [(version.name, version.digest) for version in earlier.versions]


def data_digest(files: Sequence[PublishedFile] | Mapping[str, str]) -> str:
    """A hash of the data files alone: equal exactly when the data is."""
    hashes = files if isinstance(files, Mapping) else {file.path: file.sha256 for file in files}
    ours = {path: digest for path, digest in hashes.items() if path.startswith(_DATA)}
    return content_hash("data", *(part for path in sorted(ours) for part in (path, ours[path])))


def next_name(versions: Sequence[Version]) -> str:
    """The name of the version after these: v1, v2, …"""
    return f"v{len(versions) + 1}"


def render_changelog(history: History, *, escape: Any) -> str:
    """CHANGELOG.md, the newest version first.

    Args:
        history: what it says.
        escape: makes any text one line of markdown that reads as itself.
    """
    lines = [
        "# Changelog",
        "",
        "A version is a state of the data. Rows are named by their ids, never by their texts.",
    ]
    for version in reversed(history.versions):
        rows = ", ".join(f"{count:,} in {split}" for split, count in version.rows.items())
        lines += [
            "",
            f"## {escape(version.name)} ({version.date})",
            "",
            f"{sum(version.rows.values()):,} rows: {rows}.",
        ]
        if version is history.versions[0]:
            lines += ["", "The first version."]
            continue
        counts = [f"{getattr(version, word):,} {word}" for word in ("added", "removed", "changed")]
        lines += ["", f"Rows: {', '.join(counts)}."]
        if version.reasons:
            lines += ["", "| rows | change | why | for instance |", "|---:|---|---|---|"]
            lines += [
                f"| {r.rows:,} | {r.change} | {escape(r.reason)} | {' '.join(f'`{i}`' for i in r.ids)} |"
                for r in version.reasons
            ]
        elif not (version.added or version.removed or version.changed):
            lines += ["", "No row differs: the same rows stand in other files, in another order or other columns."]
        if version.changes_file:
            lines += ["", f"Every one of them: [{version.changes_file}]({version.changes_file})."]
        if version.moved:
            lines += ["", "What moved, by the gates that watch for it:", ""]
            lines += [f"- {escape(line)}" for line in version.moved]
        if version.settings:
            lines += ["", "Also different from the version before:", ""]
            lines += [f"- {escape(line)}" for line in version.settings]
    return "\n".join(lines) + "\n"
