"""A dataset as it was published: its files, their hashes and its history. Reading only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from curation.errors import InputError
from curation.publish.card_header import with_keys_of
from curation.publish.history import MANIFEST, History

__all__ = ["CARD", "FileFacts", "PublishedFolder", "card_for"]

CARD: Final = "README.md"


class FileFacts(NamedTuple):
    """What identifies a file's content."""

    size: int
    sha256: str
    git_sha1: str
    """As git names the content."""


class PublishedFolder:
    """The folder of a published dataset, on the local disk or in an object store.

    Args:
        folder: where it is.
        filesystem: an fsspec file system; None for the local disk.
        replaced: relative path to content that stands for the file's own.
    """

    def __init__(self, folder: str, *, filesystem: Any = None, replaced: Mapping[str, bytes] | None = None) -> None:
        self.folder = folder.rstrip("/")
        self._fs = filesystem
        self._replaced = dict(replaced or {})

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Relative paths of all files."""
        if self._fs is None:
            root = Path(self.folder)
            return tuple(sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()))
        root_path = self._fs._strip_protocol(self.folder).rstrip("/")
        self._fs.invalidate_cache()
        found = self._fs.find(root_path) if self._fs.exists(root_path) else []
        return tuple(sorted(path[len(root_path) + 1 :] for path in found))

    def read(self, path: str) -> bytes:
        """The content of a file."""
        if path in self._replaced:
            return self._replaced[path]
        if self._fs is None:
            return (Path(self.folder) / path).read_bytes()
        return bytes(self._fs.cat_file(f"{self.folder}/{path}"))

    def source(self, path: str) -> str | bytes:
        """A file as an uploader takes it: its path on the local disk, else its content."""
        local = self._fs is None and path not in self._replaced
        return str(Path(self.folder) / path) if local else self.read(path)

    @cached_property
    def facts(self) -> dict[str, FileFacts]:
        """Relative path to what identifies the content, of all files."""
        return {path: _facts(self.read(path)) for path in self.paths}

    @cached_property
    def history(self) -> History:
        """The dataset's versions.

        Raises:
            InputError: when the folder has none, which is so where an earlier version of the package wrote it.
        """
        data = self.read(MANIFEST) if MANIFEST in self.paths else None
        found = History.from_bytes(data, where=f"{self.folder}/{MANIFEST}")
        if found is None:
            raise InputError(
                f"{self.folder} has no {MANIFEST}, so its version is not known: run the recipe again to write it"
            )
        return found

    def with_card_for(self, location: str) -> PublishedFolder:
        """The same folder with a card that loads the dataset from another place."""
        if CARD not in self.paths:
            return self
        return self._with_card(card_for(self.read(CARD), dataset=self.history.dataset, location=location))

    def with_keys_of(self, card: bytes | None) -> PublishedFolder:
        """The same folder with what only the header of the card at its destination says."""
        if card is None or CARD not in self.paths:
            return self
        mine = self.read(CARD)
        both = with_keys_of(mine, card)
        return self if both == mine else self._with_card(both)

    def _with_card(self, card: bytes) -> PublishedFolder:
        return PublishedFolder(self.folder, filesystem=self._fs, replaced={**self._replaced, CARD: card})


def card_for(card: bytes, *, dataset: str, location: str) -> bytes:
    """A card whose loading snippet names a location in place of the folder."""
    before, after = (
        f"load_dataset({json.dumps(place, ensure_ascii=False)})" for place in (f"./{dataset}", location)
    )
    return card.replace(before.encode(), after.encode())


def _facts(data: bytes) -> FileFacts:
    named = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return FileFacts(len(data), hashlib.sha256(data).hexdigest(), named.hexdigest())
