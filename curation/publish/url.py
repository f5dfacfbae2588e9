"""Pushing a dataset to a folder that fsspec knows: a disk, S3, GCS, Azure, memory.

On a disk the folder is replaced in one step. Elsewhere nothing can be replaced in one step but a file, so each
version's data gets a folder of its own, named by its digest; the card and the manifest, which point to it, are
written last. A reader who starts at either sees a whole version; the data of the version before stays until the
push after next, for those who are still reading it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from curation.errors import InputError, PushError, missing_file_system
from curation.publish.history import CHANGELOG, MANIFEST, History
from curation.publish.published_folder import PublishedFolder
from curation.publish.pushing import PushPlan, PushResult, check_lineage
from curation.publish.swapping import dataset_folder

__all__ = ["push_to_url"]

_CARD: Final = "README.md"
_DATA: Final = re.compile(r"^(data|evidence)/")
_IN_HEADER: Final = re.compile(rb"(path: )(data|evidence)/")


def push_to_url(
    published: PublishedFolder,
    url: str,
    *,
    dry_run: bool = False,
    force: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> PushResult:
    """Bring a folder up to date with a dataset; nothing is written when it is.

    Args:
        published: the dataset.
        url: such as ``s3://bucket/folder``; it must be empty, new, or of an earlier push.
        dry_run: only say what would change.
        force: push over a history that is not the dataset's own.
        storage_options: for fsspec; credentials that are left out come from the environment.

    Raises:
        InputError: the folder holds something else, or fsspec does not know the URL.
        PushError: the folder cannot be read or written.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url, **(storage_options or {}))
    except ImportError as error:
        raise missing_file_system(url, error) from error
    except ValueError as error:
        raise InputError(f"{url}: {error}") from error
    try:
        if "file" in _protocols(filesystem):
            return _replace(published, path, url, dry_run=dry_run, force=force)
        return _versioned(published, filesystem, path.rstrip("/"), url, dry_run=dry_run, force=force)
    except OSError as error:
        found = " ".join(str(error).split())[:300]
        raise PushError(f"{url}: {found}. What readers see there is whole; run the same command again") from error


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _replace(published: PublishedFolder, path: str, url: str, *, dry_run: bool, force: bool) -> PushResult:
    """A local folder: all of it at once."""
    present = PublishedFolder(path)
    there = {name: facts.sha256 for name, facts in present.facts.items()}
    manifest = present.read(MANIFEST) if MANIFEST in there else None
    earlier = _earlier(manifest, there, url, leftovers=False)
    check_lineage(published, earlier, where=url, force=force)
    uploads = {p: f.size for p, f in published.facts.items() if there.get(p) != f.sha256}
    deletes = tuple(sorted(set(there) - set(published.facts)))
    plan = PushPlan(uploads, deletes, len(published.facts) - len(uploads))
    if not plan.is_empty and not dry_run:
        with dataset_folder(path) as folder:
            for name in published.paths:
                folder.stage(name, published.read(name))
            folder.swap(published.paths)
    return _result(published, url, plan, dry_run=dry_run)


def _versioned(
    published: PublishedFolder, filesystem: Any, root: str, url: str, *, dry_run: bool, force: bool
) -> PushResult:
    """An object store: data first, then what points to it, then the data that nothing points to any more."""
    filesystem.invalidate_cache()
    found = filesystem.find(root, detail=True) if filesystem.exists(root) else {}
    there = {path[len(root) + 1 :]: int(entry["size"]) for path, entry in found.items()}
    manifest = bytes(filesystem.cat_file(f"{root}/{MANIFEST}")) if MANIFEST in there else None
    earlier = _earlier(manifest, there, url, leftovers=True)
    check_lineage(published, earlier, where=url, force=force)
    moved = _moved(published)
    ordered = sorted(moved, key=lambda path: (path == _CARD, path == MANIFEST, not _DATA.match(path), path))
    # Data lies under its digest, so that its size is enough to know it; the few other files are compared.
    uploads = {}
    for path in ordered:
        content = moved[path]
        size = len(content) if isinstance(content, bytes) else published.facts[content].size
        same = there.get(path) == size
        if same and isinstance(content, bytes):
            same = filesystem.cat_file(f"{root}/{path}") == content
        if not same:
            uploads[path] = size
    kept = set(moved) | (set(earlier.files) if earlier and uploads else set())
    known = {path for path in there if _DATA.match(path) or (earlier and path in earlier.others)}
    deletes = tuple(sorted(known - kept)) if uploads else ()
    plan = PushPlan(uploads, deletes, len(moved) - len(uploads))
    if not dry_run:
        for path in uploads:
            content = moved[path]
            filesystem.pipe_file(
                f"{root}/{path}", content if isinstance(content, bytes) else published.read(content)
            )
        for path in deletes:
            filesystem.rm_file(f"{root}/{path}")
    return _result(published, url, plan, dry_run=dry_run)


def _moved(published: PublishedFolder) -> dict[str, str | bytes]:
    """Path at the destination to content, or for data to the path in the published folder."""
    latest = published.history.latest
    place = f"{latest.name}-{latest.digest[:12]}"
    files: dict[str, str | bytes] = {}
    for path in published.paths:
        if _DATA.match(path):
            files[_DATA.sub(rf"\1/{place}/", path)] = path
        else:
            files[path] = published.read(path)
    card = files.get(_CARD)
    if isinstance(card, bytes):
        fence, header, body = card.split(b"---\n", 2)
        moved = _IN_HEADER.sub(rb"\1\2/" + place.encode() + b"/", header)
        files[_CARD] = b"---\n".join((fence, moved, body))
    history = published.history
    renamed = {_DATA.sub(rf"\1/{place}/", path): digest for path, digest in history.files.items()}
    files[MANIFEST] = history.model_copy(update={"files": renamed}).to_bytes()
    return files


def _earlier(manifest: bytes | None, there: Collection[str], url: str, *, leftovers: bool) -> History | None:
    """The history at the destination.

    Args:
        manifest: the file there, None where there is none.
        there: all paths there.
        leftovers: whether data that no history names may be of a push that was cut off.

    Raises:
        InputError: when there are files of somebody else.
    """
    earlier = History.from_bytes(manifest, where=f"{url}/{MANIFEST}")
    known = {*earlier.files, *earlier.others} if earlier else set()
    foreign = sorted(path for path in there if path not in known and not (leftovers and _ours(path)))
    if foreign:
        raise InputError(
            f"{url} holds {len(foreign)} files that no push wrote, such as {foreign[0]}: give a new or an empty "
            f"folder, or move them away"
        )
    return earlier


def _ours(path: str) -> bool:
    """Whether a push that was cut off may have left a file about."""
    return path in (CHANGELOG, _CARD) or path.startswith(("data/v", "evidence/v", "changes/v", "assets/"))


def _result(published: PublishedFolder, url: str, plan: PushPlan, *, dry_run: bool) -> PushResult:
    outcome = "unchanged" if plan.is_empty else "would push" if dry_run else "pushed"
    return PushResult(url, published.history.latest.name, outcome, plan)
