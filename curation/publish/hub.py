"""Pushing a dataset to the Hugging Face Hub: one commit for data, card and changelog, and a tag for each version.

Nothing is committed when the repository already holds the same bytes. A push that was cut off goes on from the
uploads that are there, and the next one sets a tag that is missing. The token comes from the environment or the
login; it goes to ``huggingface_hub`` and nowhere else.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from curation.errors import InputError
from curation.publish.history import MANIFEST, History
from curation.publish.hub_errors import (
    check_repo_id,
    is_of_the_hub,
    passes_by_itself,
    refusal,
    wait_asked_for,
)
from curation.publish.published_folder import CARD, PublishedFolder
from curation.publish.pushing import PushPlan, PushResult, check_lineage, plan_push
from curation.text import content_hash

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["HubOptions", "push_to_hub"]

_WAITS: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
_DATASET: Final = "dataset"


class HubOptions(NamedTuple):
    """How to push."""

    private: bool = True
    """For a repository that is created. One that exists and is public is refused."""
    pull_request: bool = False
    tag: str | None = None
    """In place of the version's name."""
    dry_run: bool = False
    force: bool = False
    """Push over a history that is not the dataset's own."""


class _Remote(NamedTuple):
    """A repository as it stands."""

    sha: str | None
    private: bool
    files: Mapping[str, Any]
    """Path to what the Hub says of the file."""
    tags: Mapping[str, str]
    """Tag to commit."""
    history: History | None
    card: bytes | None = None


def push_to_hub(
    published: PublishedFolder,
    repo_id: str,
    *,
    options: HubOptions = HubOptions(),  # noqa: B008 - immutable
    endpoint: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> PushResult:
    """Bring a dataset's repository up to date.

    Args:
        published: the dataset.
        repo_id: ``owner/name``.
        options: see there.
        endpoint: of the Hub; ``HF_ENDPOINT`` or huggingface.co by default.
        sleep: how to wait between tries.

    Raises:
        InputError: the id, the token or the options do not do.
        PushError: the Hub refused, or could not be reached.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    repo_id = check_repo_id(repo_id)
    if constants.HF_HUB_OFFLINE:
        raise InputError("HF_HUB_OFFLINE is set, so that the Hub cannot be asked: unset it to push")
    if get_token() is None:
        raise InputError(
            "there is no token for the Hub: log in with `hf auth login`, or set HF_TOKEN to one with write access"
        )
    import httpx2

    api = HfApi(endpoint=endpoint, library_name="preference-curation")
    push = _Push(api, published.with_card_for(repo_id), repo_id, options)
    for wait in (*_WAITS, None):
        try:
            return push.run()
        except (HfHubHTTPError, httpx2.TransportError, RuntimeError, ValueError, OSError) as error:
            # huggingface_hub raises RuntimeError from a failed upload, ValueError for a card's header, and lets
            # through what hf_xet raises.
            if not is_of_the_hub(error):
                raise
            if wait is None or not passes_by_itself(error):
                raise refusal(error, repo_id=repo_id, endpoint=api.endpoint, doing=push.doing) from error
            sleep(wait_asked_for(error) or wait)
    raise AssertionError("the last try returns or raises")


class _Push:
    """One push; :meth:`run` may be called again after a failure, and does what is left."""

    def __init__(self, api: HfApi, published: PublishedFolder, repo_id: str, options: HubOptions) -> None:
        self._api, self._repo_id, self._options = api, repo_id, options
        self._folder = self._published = published
        self._on_repo: dict[str, Any] = {"repo_id": repo_id, "repo_type": _DATASET}
        self.doing = "read the repository"
        self._commit: str | None = None
        self._tried = False

    def run(self) -> PushResult:
        options = self._options
        self.doing = "read the repository"
        remote = self._remote()
        notes: list[str] = []
        if remote is None:
            self._no_other_kind()
            visibility = "private" if options.private else "public"
            notes.append(f"{'would create' if options.dry_run else 'created'} the {visibility} repository")
            if not options.dry_run:
                self.doing = "create the repository"
                self._api.create_repo(self._repo_id, repo_type=_DATASET, private=options.private, exist_ok=True)
                remote = self._remote()
        if remote is None:
            remote = _Remote(None, options.private, {}, {}, None)
        self._published = self._folder.with_keys_of(remote.card)
        self._check_visibility(remote)
        check_lineage(self._published, remote.history, where=self._repo_id, force=options.force)
        plan = plan_push(self._published, self._same(remote), earlier=remote.history)
        tag = self._tag(remote, plan)
        if options.dry_run:
            notes += [f"would set the tag {tag}"] if tag and not options.pull_request else []
            outcome = "unchanged" if plan.is_empty and not tag else "would push"
            return self._result(outcome, plan, notes)
        if not plan.is_empty and options.pull_request:
            return self._propose(remote, plan, notes)
        if not plan.is_empty:
            self.doing, self._tried = "commit", True
            info = self._create_commit(remote, plan, create_pr=False)
            self._commit = info.oid
            notes.append(f"commit {info.oid[:12]}")
        if tag:
            self.doing = f"set the tag {tag}"
            revision = self._commit or remote.sha
            self._api.create_tag(**self._on_repo, tag=tag, revision=revision, exist_ok=True)
            notes.append(f"tag {tag}")
        # A commit whose answer was lost is found in the repository by the next try.
        return self._result("pushed" if self._tried else "unchanged", plan, notes)

    def _remote(self) -> _Remote | None:
        """The repository as it stands, None where there is none."""
        from huggingface_hub import RepoFile
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self._api.dataset_info(self._repo_id)
        except RepositoryNotFoundError as error:
            if error.response is not None and error.response.status_code == 401:
                raise
            return None
        if info.sha is None:
            return _Remote(None, bool(info.private), {}, {}, None)
        tree = self._api.list_repo_tree(**self._on_repo, recursive=True, revision=info.sha)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        tags = {ref.name: ref.target_commit for ref in self._api.list_repo_refs(**self._on_repo).tags}
        manifest, card = (self._file(info.sha, files, path) for path in (MANIFEST, CARD))
        history = History.from_bytes(manifest, where=f"{self._repo_id}/{MANIFEST}")
        return _Remote(info.sha, bool(info.private), files, tags, history, card)

    def _file(self, revision: str, files: Mapping[str, Any], name: str) -> bytes | None:
        """A file of the repository; None where there is none, or the very one that we have."""
        facts = self._folder.facts
        if name not in files or (name == CARD and CARD in facts and _is(files[CARD], facts[CARD])):
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = self._api.hf_hub_download(
                **self._on_repo, filename=name, revision=revision, cache_dir=folder, force_download=True
            )
            return Path(path).read_bytes()

    def _no_other_kind(self) -> None:
        """Refuse an id that is a model's or a space's: it was hardly meant for a dataset."""
        from huggingface_hub.errors import RepositoryNotFoundError

        for kind, ask in (("model", self._api.model_info), ("space", self._api.space_info)):
            try:
                ask(self._repo_id)
            except RepositoryNotFoundError:
                continue
            raise InputError(
                f"{self._repo_id} is a {kind} on the Hub, and no dataset: give a dataset's id, or a new one"
            )

    def _check_visibility(self, remote: _Remote) -> None:
        if remote.sha is not None and not remote.private and self._options.private:
            raise InputError(
                f"{self._repo_id} is public, and this push is private: add --public to push there all the same, or "
                f"make it private in its settings first"
            )

    def _same(self, remote: _Remote) -> dict[str, bool]:
        """Path to whether the content is ours, of every file of the repository."""
        facts = self._published.facts
        return {path: path in facts and _is(entry, facts[path]) for path, entry in remote.files.items()}

    def _tag(self, remote: _Remote, plan: PushPlan) -> str | None:
        """The tag to set, None where it is there already.

        Raises:
            InputError: when it stands at other data.
        """
        tag = self._options.tag or self._published.history.latest.name
        if tag not in remote.tags:
            return tag
        earlier, mine = remote.history, self._published.history
        same_data = earlier is not None and earlier.latest.digest == mine.latest.digest
        if plan.is_empty or (same_data and self._options.tag is None):
            return None
        raise InputError(
            f"{self._repo_id} has the tag {tag} already, at commit {remote.tags[tag][:12]} with other data: give "
            f"another one with --tag"
        )

    def _create_commit(self, remote: _Remote, plan: PushPlan, *, create_pr: bool) -> Any:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations: list[Any] = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=self._published.source(path))
            for path in plan.uploads
        ]
        operations += [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in plan.deletes]
        return self._api.create_commit(
            **self._on_repo,
            operations=operations,
            commit_message=self._title(),
            commit_description=self._description(),
            parent_commit=remote.sha,
            create_pr=create_pr,
        )

    def _propose(self, remote: _Remote, plan: PushPlan, notes: list[str]) -> PushResult:
        """Open a pull request, unless one with the same content is open."""
        self.doing = "read the pull requests"
        for open_one in self._api.get_repo_discussions(
            **self._on_repo, discussion_type="pull_request", discussion_status="open"
        ):
            if open_one.title == self._title():
                return self._result("unchanged", plan, [*notes, f"pull request {open_one.num} proposes the same"])
        self.doing = "open a pull request"
        info = self._create_commit(remote, plan, create_pr=True)
        after = "push again without --pr when it is merged, which sets the tag"
        return self._result("proposed", plan, [*notes, f"pull request {info.pr_url}", after])

    def _title(self) -> str:
        history = self._published.history
        files = (part for path, facts in sorted(self._published.facts.items()) for part in (path, facts.sha256))
        return f"{history.dataset} {history.latest.name} ({content_hash('push', *files)[:8]})"

    def _description(self) -> str:
        latest = self._published.history.latest
        counts = ", ".join(f"{getattr(latest, word):,} {word}" for word in ("added", "removed", "changed"))
        return f"{sum(latest.rows.values()):,} rows; {counts} since the version before. See CHANGELOG.md."

    def _result(self, outcome: str, plan: PushPlan, notes: list[str]) -> PushResult:
        url = f"{self._api.endpoint}/datasets/{self._repo_id}"
        return PushResult(url, self._published.history.latest.name, outcome, plan, tuple(notes))


def _is(entry: Any, facts: Any) -> bool:
    """Whether a file on the Hub holds a content: by SHA-256 for large files, as git hashes it for the others."""
    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == facts.sha256)
    return bool(entry.blob_id == facts.git_sha1)
