"""Which model a recipe means: the MODEL argument, resolved without importing torch or loading weights.

A MODEL is a folder, a Hub id (``owner/name`` or ``owner/name@revision``), or ``embedded``.
Its *fingerprint* is part of every ledger key, so it changes exactly when the weights can.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from curation.errors import InputError

__all__ = [
    "EMBEDDED",
    "EMBEDDED_DIR",
    "ModelRef",
    "folder_fingerprint",
    "hub_commit",
    "missing_on_hub",
    "model_file",
    "named_commits",
    "pin_commits",
    "resolve_model",
]

EMBEDDED: Final = "embedded"
EMBEDDED_DIR: Final = Path(__file__).resolve().parent.parent / "embedded"

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HASHED_SUFFIXES: Final = {".safetensors", ".json", ".jinja", ".txt", ".model", ".bin", ".npz", ".parquet"}
_OF_A_MODEL: Final = {".safetensors", ".json", ".npz"}
_PICKLED: Final = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}


@dataclass(frozen=True)
class ModelRef:
    """A resolved MODEL argument.

    Attributes:
        given: what the user wrote.
        kind: where it is.
        location: the folder, or the Hub id without its revision; what ``from_pretrained`` takes.
        revision: the Hub revision, None for a folder and for the bundled model.
    """

    given: str
    kind: Literal["embedded", "folder", "hub"]
    location: str
    revision: str | None = None

    @property
    def fingerprint(self) -> str:
        """``name@revision``: a commit for the Hub where it is known, a content hash for files."""
        if self.kind == "hub":
            return f"{self.location}@{self.commit}"
        name = EMBEDDED if self.kind == "embedded" else Path(self.location).name
        return f"{name}@{folder_fingerprint(self.location)}"

    @property
    def commit(self) -> str | None:
        """The Hub's commit that the fingerprint names, and so the one to load: a branch may have moved on since."""
        return hub_commit(self.location, self.revision) if self.kind == "hub" else None


def model_file(ref: ModelRef, name: str) -> Path | None:
    """A small file of a model; None where it has none. Without the Hub, that of the copy in the cache."""
    path = _hub_file(ref.location, ref.commit, name) if ref.kind == "hub" else Path(ref.location) / name
    return path if path is not None and path.is_file() else None


@lru_cache(maxsize=4096)
def _hub_file(repo: str, commit: str | None, name: str) -> Path | None:
    """Asked once in a process: keys depend on it, and what a repository lacks would be a request each time."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repo, name, revision=commit))
    except (errors.EntryNotFoundError, errors.HTTPError, OSError):  # type: ignore[attr-defined]
        return None


def resolve_model(model: str, *, embedded: str) -> ModelRef:
    """What ``model`` means.

    Args:
        model: a folder, a Hub id, or ``embedded``.
        embedded: the folder under ``curation/embedded`` that ``embedded`` stands for here.

    Raises:
        InputError: when it is none of the three, or a folder whose weights are pickles.
    """
    if model == EMBEDDED:
        return ModelRef(model, "embedded", str(EMBEDDED_DIR / embedded))
    if Path(model).is_dir():
        _refuse_pickles(model)
        _need_some_model(Path(model))
        return ModelRef(model, "folder", str(Path(model).resolve()))
    name, _, revision = model.partition("@")
    if _HUB_ID.fullmatch(name):
        return ModelRef(model, "hub", name, revision or None)
    raise InputError(
        f"model {model!r} is not a folder that exists, not a Hub id (owner/name or owner/name@revision), "
        f"and not 'embedded'"
    )


def _refuse_pickles(model: str) -> None:
    """Loaders that find no safetensors take what there is; a pickle is a program. Parts lie in folders."""
    for folder in (Path(model), *sorted(p for p in Path(model).iterdir() if p.is_dir())):
        found = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLED)
        if found and not any(folder.glob("*.safetensors")):
            raise InputError(
                f"model {model!r}: {folder / found[0]} is no safetensors file, and files of its kind are not "
                f"opened, for they can run code: save the model again with safe_serialization=True, and remove it"
            )


def _need_some_model(folder: Path) -> None:
    """That a folder holds a model's files at all; what is missing of a whole one is known where it is loaded."""
    if any(path.suffix in _OF_A_MODEL for path in folder.iterdir()):
        return
    inner = sorted(path.parent for path in folder.glob("*/config.json"))
    there = [path.name for path in sorted(folder.iterdir())]
    found = f"found {', '.join(there[:5])}{', …' if len(there) > 5 else ''}" if there else "it is empty"
    instead = f"; name the folder inside it, {inner[-1]}" if inner else ""
    raise InputError(
        f"model {str(folder)!r} is a folder without a model ({found}): expected config.json and *.safetensors"
        f"{instead}"
    )


def folder_fingerprint(folder: str) -> str:
    """12 hex digits over the names and bytes of a model folder's files (weights, configs, templates).

    A file is read once, and again when it was written since: a notebook may train a model in place between runs.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(folder).iterdir() if p.suffix in _HASHED_SUFFIXES):
        seen = path.stat()
        inner = _file_digest(path, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        digest.update(f"{path.name}\0{inner}\n".encode())
    return digest.hexdigest()[:12]


@lru_cache(maxsize=4096)
def _file_digest(path: Path, *written: int) -> str:
    """Of the file as it stands; ``written`` tells one writing of it from the next."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_commits: dict[tuple[str, str | None], str] = {}


def named_commits() -> dict[tuple[str, str | None], str]:
    """The commits that this process has named so far, by repository and revision: for its workers elsewhere."""
    return dict(_commits)


_missing: set[str] = set()


def missing_on_hub() -> frozenset[str]:
    """What this process was told does not exist, and has no copy of: ``name@revision``, as fingerprints have it."""
    return frozenset(_missing)


def pin_commits(commits: Mapping[tuple[str, str | None], str]) -> None:
    """Take these for what their revisions stand for, whatever the Hub says by now."""
    _commits.update(commits)


def hub_commit(repo: str, revision: str | None) -> str:
    """The commit that a Hub revision stands for, the same for as long as this process lives.

    Where the Hub is out of reach, that of the copy in the cache, which is the one that is then loaded; the
    revision's own name where there is none.
    """
    known = (repo, revision)
    if known not in _commits:
        _commits[known] = _asked_commit(repo, revision)
    return _commits[known]


def _asked_commit(repo: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, errors, try_to_load_from_cache

    wanted = revision or "main"
    if re.fullmatch(r"[0-9a-f]{40}", wanted):
        return wanted
    try:
        return HfApi().model_info(repo, revision=revision).sha or wanted
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        cached = try_to_load_from_cache(repo, "config.json", revision=wanted)
        if isinstance(cached, str):
            return Path(cached).parent.name
        if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
            _missing.add(f"{repo}@{wanted}")
        return wanted
