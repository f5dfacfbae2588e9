"""The files of a workspace, wherever it lies: which there are, reading and removing them."""

from __future__ import annotations

import contextlib
from typing import Any

from curation.errors import WorkspaceError
from curation.workspace import Workspace

__all__ = ["read_file", "remove_file", "remove_folder", "stored_files"]


def stored_files(workspace: Workspace, folder: str = "") -> dict[str, int]:
    """Bytes of every file in the workspace, or in one folder of it, by path relative to the workspace.

    Raises:
        WorkspaceError: when the place cannot be listed.
    """
    filesystem: Any = workspace.filesystem()
    root = filesystem._strip_protocol(workspace.url).rstrip("/")
    place = f"{root}/{folder}" if folder else root
    try:
        filesystem.invalidate_cache()
        found = filesystem.find(place, detail=True) if filesystem.exists(place) else {}
    except OSError as error:
        raise WorkspaceError(
            f"cannot list {workspace.path(folder)}: {' '.join(str(error).split())[:300]}"
        ) from error
    return {path[len(root) + 1 :]: int(facts.get("size") or 0) for path, facts in sorted(found.items())}


def read_file(workspace: Workspace, path: str) -> bytes:
    """The content of a file, by its path relative to the workspace."""
    return bytes(workspace.filesystem().cat_file(workspace.path(path)))


def remove_file(workspace: Workspace, path: str) -> None:
    """Remove a file; one that is not there is as good as removed."""
    with contextlib.suppress(FileNotFoundError):
        workspace.filesystem().rm_file(workspace.path(path))


def remove_folder(workspace: Workspace, folder: str) -> bool:
    """Remove a folder with all that is in it. Returns whether there was one."""
    filesystem: Any = workspace.filesystem()
    filesystem.invalidate_cache()
    if not filesystem.exists(workspace.path(folder)):
        return False
    filesystem.rm(workspace.path(folder), recursive=True)
    return True
