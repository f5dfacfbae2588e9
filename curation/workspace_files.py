"""The files and locks of a workspace, local or in an object store, and what to say when they cannot be used.

Its tables are in :mod:`curation.workspace`, which is what the rest of the package knows.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from curation.errors import InputError, WorkspaceError, missing_file_system

if TYPE_CHECKING:
    from curation.lease import Held

__all__ = ["FORMAT_VERSION", "WorkspaceFiles"]

FORMAT_VERSION: Final = 1
_MARKER: Final = "workspace.json"
_NO_FOLDER: Final = re.compile(r"[\[\]^|\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")
"""What delta-rs 1.x cannot have in a table's path: what it panics at, and what reads as an encoded character."""
_STORES: Final = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "file", "memory")
"""Where both delta-rs and fsspec read and write; fsspec alone knows many more, on which no table can lie."""


class WorkspaceFiles:
    """A folder or an fsspec URL with files that are written whole, and locks."""

    def __init__(
        self, url: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None, create: bool
    ) -> None:
        self.url = str(url).rstrip("/")
        self.is_local = "://" not in self.url
        if self.is_local:
            self.url = str(Path(self.url).expanduser().resolve())
            self._check_name()
            if Path(self.url).is_file():
                raise InputError(f"{self.url} is a file, expected the folder of a workspace")
        self.storage_options: dict[str, str] = dict(storage_options or {})
        self._leases: list[Held] = []
        self._check_format(create=create)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_leases": []}

    def path(self, *parts: str) -> str:
        """The path or URL of something inside the workspace."""
        return "/".join((self.url, *parts))

    def filesystem(self) -> Any:
        """The fsspec file system that :meth:`path` is on."""
        import fsspec

        if self.is_local:
            return fsspec.filesystem("file")
        scheme = self.url.partition("://")[0]
        if scheme not in _STORES:
            raise InputError(
                f"{self.url}: a workspace cannot lie at {scheme}://, expected a folder or a URL such as "
                f"s3://bucket/w (there are {', '.join(_STORES)})"
            )
        try:
            return fsspec.filesystem(scheme, **self.storage_options)
        except ImportError as error:
            raise missing_file_system(self.url, error) from error

    def read_text(self, *parts: str) -> str | None:
        """The text of a file, or None where there is none."""
        try:
            with self.filesystem().open(self.path(*parts), "rb") as file:
                return bytes(file.read()).decode()
        except FileNotFoundError:
            return None

    def write_bytes(self, data: bytes, *parts: str) -> None:
        """Write a file, whole or not at all."""
        filesystem, target = self.filesystem(), self.path(*parts)
        try:
            if self.is_local:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                temporary = f"{target}.{os.getpid()}.tmp"
                Path(temporary).write_bytes(data)
                os.replace(temporary, target)
            else:
                filesystem.pipe_file(target, data)
        except self._store_errors() as error:
            raise self._cannot("write", target, error) from error

    def _store_errors(self) -> tuple[type[Exception], ...]:
        """What a file system raises: botocore's own errors are no OSErrors."""
        if self.is_local or not self.url.startswith("s3"):
            return (OSError,)
        try:
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:  # then filesystem() says which extra to install
            return (OSError,)
        return (OSError, BotoCoreError, ClientError)

    def _check_name(self) -> None:
        found = _NO_FOLDER.search(self.url)
        if found is not None:
            raise InputError(
                f"{self.url}: a workspace cannot lie in a folder with {found[0]!r} in its path, for Delta tables "
                f"cannot; choose another one with --workspace (spaces and letters of any script are fine)"
            )

    def _check_format(self, *, create: bool) -> None:
        text = self._reading(lambda: self.read_text(_MARKER))
        if text is None:
            if not create:
                raise InputError(
                    f"{self.url} is no workspace: expected a folder that `curation run` has written, "
                    f"with a file {_MARKER}"
                )
            marker = {"format_version": FORMAT_VERSION, "made_by": "preference-curation"}
            self.write_bytes((json.dumps(marker, indent=1) + "\n").encode(), _MARKER)
            return
        try:
            found = int(json.loads(text)["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                f"{self.path(_MARKER)} is not a workspace marker; restore it or choose another folder"
            ) from error
        if found > FORMAT_VERSION:
            raise WorkspaceError(
                f"{self.url} was written by a newer version of this package (workspace format {found}, this one "
                f"reads up to {FORMAT_VERSION}): upgrade with `pip install -U preference-curation`"
            )

    # ---- errors ------------------------------------------------------------------------------------------

    def _reading(self, read: Any) -> Any:
        wrong: tuple[type[Exception], ...] = (*self._store_errors(), pl.exceptions.ComputeError)
        try:
            return read()
        except wrong as error:
            raise self._cannot("read", self.url, error) from error

    def _cannot(self, verb: str, path: str, error: BaseException) -> WorkspaceError:
        found = " ".join(str(error).split())[:300]
        check = (
            "the disk has room" if self.is_local else "the bucket is there, the environment holds your credentials"
        )
        return WorkspaceError(
            f"cannot {verb} {path}: {found}. Check that {check} and that you may {verb} there; "
            f"what was written before is whole, and a new run goes on from it"
        )

    # ---- locks -------------------------------------------------------------------------------------------

    @property
    def is_taken(self) -> bool:
        """Whether another run may have taken what this one holds: then nothing more is written or paid for."""
        return any(lease.is_lost() for lease in self._leases)

    def check_ours(self) -> None:
        """Before what another run might do as well.

        Raises:
            WorkspaceError: when another run took the workspace.
        """
        if self.is_taken:
            raise WorkspaceError(
                f"another run took {self.url}, for this one was not heard of for long; nothing more is written. "
                f"What was written is whole; when the other run is done, the same command goes on from there"
            )

    @contextmanager
    def lock(self, name: str = "workspace") -> Iterator[None]:
        """Hold a lock of this workspace; it is let go when the process ends, however it ends.

        Object stores have no locks: there it is a lease, which ends when its holder is silent (``curation.lease``).

        Raises:
            WorkspaceError: when another process holds it.
        """
        if not self.is_local:
            with self._leased(name):
                yield
            return
        from curation.file_locks import file_locked

        folder = self.path("locks")
        with ExitStack() as locked:
            try:
                locked.enter_context(file_locked(Path(folder), name, url=self.url))
            except OSError as error:
                raise self._cannot("write", folder, error) from error
            yield

    @contextmanager
    def _leased(self, name: str) -> Iterator[None]:
        from curation.lease import leased

        errors = self._store_errors()
        lease = leased(self.filesystem(), self.path("locks"), name, url=self.url, errors=errors)
        held = self._reading(lease.__enter__)
        self._leases.append(held)
        try:
            yield
        finally:
            self._leases.remove(held)
            lease.__exit__(None, None, None)

    def locks_held(self) -> list[dict[str, Any]]:
        """The locks that somebody holds now: name and holder."""
        if not self.is_local:
            from curation.lease import lease_holder, lease_names

            filesystem, folder = self.filesystem(), self.path("locks")
            found = {name: lease_holder(filesystem, folder, name) for name in lease_names(filesystem, folder)}
            return [{"name": name, "holder": lease.text} for name, lease in found.items() if lease is not None]
        from curation.file_locks import file_locks_held

        return file_locks_held(Path(self.path("locks")))
