"""Whether the sources have changed, without reading them. Reading is in ``sources``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from curation.errors import InputError
from curation.recipe import Recipe
from curation.text import content_hash

__all__ = ["Fingerprints", "source_fingerprints"]


class Fingerprints(NamedTuple):
    """What the sources look like now."""

    sources: dict[str, str]
    """path or address → size and time of a file or of a folder's files, commit of a Hub dataset."""

    @property
    def digest(self) -> str:
        """One value for all of them."""
        return content_hash(*(part for item in sorted(self.sources.items()) for part in item))


def source_fingerprints(recipe: Recipe) -> Fingerprints:
    """What a recipe reads rows from, as it is now: sources, corpus, and what hygiene compares with.

    Raises:
        InputError: when a file is not there, or the Hub does not answer.
    """
    paths = [source.path for source in recipe.sources]
    if recipe.negatives is not None and recipe.negatives.corpus is not None:
        paths.append(recipe.negatives.corpus)
    hygiene = recipe.hygiene
    paths += [path for step in hygiene.prompts for path in step.against]
    paths += hygiene.contamination.against if hygiene.contamination is not None else ()
    if hygiene.select is not None and hygiene.select.target is not None:
        paths.append(hygiene.select.target)
    return Fingerprints({path: _hub_commit(path) if path.startswith("hf://") else _file(path) for path in paths})


def _file(path: str) -> str:
    try:
        if os.path.isdir(path):
            inside = sorted(entry for entry in Path(path).rglob("*") if entry.is_file())
            return " ".join(f"{entry.relative_to(path)} {_state(entry)}" for entry in inside)
        return _state(path)
    except OSError as error:
        raise InputError(f"source {path}: {error.strerror}; what was published before stays") from error


def _state(path: str | Path) -> str:
    found = os.stat(path)
    return f"{found.st_size} {found.st_mtime_ns}"


def _hub_commit(address: str) -> str:
    from huggingface_hub import HfApi, errors

    repository = "/".join(address.removeprefix("hf://").split(":", 1)[0].split("/")[:2])
    try:
        return str(HfApi().dataset_info(repository, timeout=20).sha)
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"source {address}: the Hub did not say its commit: {reason}") from error
