"""Pushing to the Hub: the real client against a small server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from huggingface_hub.utils import disable_progress_bars

from curation.errors import InputError, PushError
from curation.publish.history import CHANGELOG, MANIFEST, History, Version, data_digest, render_changelog
from curation.publish.hub import HubOptions, push_to_hub
from curation.publish.published_folder import PublishedFolder
from curation.publish.pushing import PushResult
from curation.publish.writing import Draft, write_dataset
from tests.hub_server import READER, WRITER, Hub, Repo

REPO = "team/pairs"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", WRITER)
    # The server speaks Git LFS and no Xet; and a wait between two tries of the client's own decides nothing here.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    disable_progress_bars()
    server = Hub()
    yield server
    server.close()


def publish(folder: Path, rows: int, *, shard: int = 30, card: str = "A card.") -> PublishedFolder:
    """A dataset's folder with its history, as publication writes it."""
    frame = pl.DataFrame(
        {
            "pair_id": [f"{i:032x}" for i in range(rows)],
            "prompt": [[{"role": "user", "content": f"q{i}"}] for i in range(rows)],
            "split": ["test" if i % 5 == 0 else "train" for i in range(rows)],
        }
    )

    def beside(draft: Draft) -> dict[str, bytes]:
        before = History.from_bytes(draft.published(MANIFEST), where="test")
        versions = before.versions if before else ()
        files = {f.path: f.sha256 for f in draft.files}
        if not versions or versions[-1].digest != data_digest(files):
            name = f"v{len(versions) + 1}"
            counts = {"train": rows - rows // 5, "test": rows // 5}
            versions = (*versions, Version(name=name, date="2026-01-01", digest=data_digest(files), rows=counts))
        others = ("README.md", CHANGELOG, MANIFEST, "assets/waterfall.png")
        history = History(dataset="preference", versions=versions, files=files, others=others)
        text = f'---\nlicense: mit\n---\n{card}\n\ndataset = load_dataset("./preference")\n'
        return {
            "README.md": text.encode(),
            CHANGELOG: render_changelog(history, escape=str).encode(),
            MANIFEST: history.to_bytes(),
            "assets/waterfall.png": b"\x89PNG",
        }

    write_dataset(frame, folder=str(folder), rows_per_shard=shard, extra_files=beside)
    return PublishedFolder(str(folder))


def push(hub: Hub, published: PublishedFolder, repo: str = REPO, **options: Any) -> PushResult:
    return push_to_hub(published, repo, options=HubOptions(**options), endpoint=hub.url, sleep=lambda seconds: None)


def content(published: PublishedFolder) -> dict[str, bytes]:
    return {path: published.read(path) for path in published.paths if path != "README.md"}


def pushed_content(hub: Hub, revision: str = "main") -> dict[str, bytes]:
    tree = hub.tree(REPO, revision)
    return {path: data for path, data in tree.items() if path not in ("README.md", ".gitattributes")}


def test_a_first_push_makes_a_private_repository_one_commit_and_a_tag(hub, tmp_path):
    published = publish(tmp_path / "d", 50)
    result = push(hub, published)
    assert result.outcome == "pushed"
    assert hub.dataset(REPO).private
    assert len(hub.titles(REPO)) == 2  # the Hub's own, and ours
    assert list(hub.dataset(REPO).tags) == ["v1"]
    assert hub.dataset(REPO).tags["v1"] == hub.dataset(REPO).branches["main"]
    assert pushed_content(hub) == content(published)
    assert b'load_dataset("team/pairs")' in hub.tree(REPO)["README.md"]


def test_pushing_again_commits_nothing(hub, tmp_path):
    published = publish(tmp_path / "d", 50)
    push(hub, published)
    hub.log.clear()
    result = push(hub, publish(tmp_path / "d", 50))
    assert result.outcome == "unchanged"
    assert result.plan.is_empty
    assert hub.count("^POST") + hub.count("^PUT") == 0


def test_a_change_is_one_commit_with_a_tag_and_without_the_old_shards(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50, shard=10))
    hub.log.clear()
    changed = publish(tmp_path / "d", 60)
    result = push(hub, changed)
    assert hub.count("^POST /api/datasets/team/pairs/commit") == 1
    assert result.plan.deletes == tuple(f"data/train-{i:05d}-of-00004.parquet" for i in range(4))
    assert pushed_content(hub) == content(changed)
    assert list(hub.dataset(REPO).tags) == ["v1", "v2"]
    assert "data/train-00003-of-00004.parquet" in hub.tree(REPO, "v1")
    assert "## v2" in hub.tree(REPO)[CHANGELOG].decode()


def test_a_card_alone_is_a_commit_and_no_version(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50))
    result = push(hub, publish(tmp_path / "d", 50, card="Another card."))
    assert list(result.plan.uploads) == ["README.md"]
    assert len(hub.titles(REPO)) == 3
    assert list(hub.dataset(REPO).tags) == ["v1"]


def test_what_others_put_there_stays(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50))
    repo = hub.dataset(REPO)
    repo.add(hub.tree(REPO) | {"LICENSE": b"mit", "assets/photo.png": b"\x89PNG2"}, "by hand", "main")
    push(hub, publish(tmp_path / "d", 60))
    assert {"LICENSE", "assets/photo.png"} <= set(hub.tree(REPO))


def test_what_others_wrote_into_the_card_s_header_stays(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50))
    repo = hub.dataset(REPO)
    gated = b"---\nextra_gated_prompt: 'You agree: not to misuse it.'\nlicense: other\n---\nBy hand.\n"
    repo.add(hub.tree(REPO) | {"README.md": gated}, "by hand", "main")
    push(hub, publish(tmp_path / "d", 60))
    card = hub.tree(REPO)["README.md"].decode()
    meta = yaml.safe_load(card.split("---\n")[1])
    assert meta == {"license": "mit", "extra_gated_prompt": "You agree: not to misuse it."}
    assert card.endswith('A card.\n\ndataset = load_dataset("team/pairs")\n')
    assert push(hub, publish(tmp_path / "d", 60)).outcome == "unchanged"
    repo.add(hub.tree(REPO) | {"README.md": b"---\n- [\n---\n"}, "torn", "main")
    assert push(hub, publish(tmp_path / "d", 60)).outcome == "pushed"
    assert yaml.safe_load(hub.tree(REPO)["README.md"].decode().split("---\n")[1]) == {"license": "mit"}


def test_a_dry_run_changes_nothing(hub, tmp_path):
    published = publish(tmp_path / "d", 50)
    result = push(hub, published, dry_run=True)
    assert result.outcome == "would push"
    assert set(result.plan.uploads) == set(published.paths)
    assert not hub.repos
    push(hub, published)
    hub.log.clear()
    again = push(hub, publish(tmp_path / "d", 60), dry_run=True)
    assert again.plan.uploads
    assert again.notes == ("would set the tag v2",)
    assert hub.count("^POST") + hub.count("^PUT") == 0


def test_a_pull_request_leaves_main_alone_and_is_opened_once(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50))
    main = hub.tree(REPO)
    changed = publish(tmp_path / "d", 60)
    assert push(hub, changed, pull_request=True).outcome == "proposed"
    assert push(hub, changed, pull_request=True).outcome == "unchanged"
    assert hub.tree(REPO) == main
    assert pushed_content(hub, "refs/pr/1") == content(changed)
    assert len(hub.dataset(REPO).pulls) == 1
    assert list(hub.dataset(REPO).tags) == ["v1"]


def test_after_a_merge_the_next_push_sets_the_tag(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50))
    changed = publish(tmp_path / "d", 60)
    push(hub, changed, pull_request=True)
    repo = hub.dataset(REPO)
    repo.branches["main"] = repo.branches["refs/pr/1"]
    assert push(hub, changed).notes == ("tag v2",)
    assert repo.tags["v2"] == repo.branches["main"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "step",
    [
        "GET /api/datasets/team/pairs$",
        "POST /api/repos/create",
        "POST .*/preupload/",
        "POST .*/objects/batch",
        "PUT /lfs/",
        "POST /verify/",
        "POST .*/commit/",
        "POST .*/tag/",
    ],
)
def test_a_connection_that_is_cut_at_any_step_is_mended(hub, tmp_path, step, after):
    hub.fail(step, None, after=after)
    published = publish(tmp_path / "d", 50)
    assert push(hub, published).outcome == "pushed"
    assert pushed_content(hub) == content(published)
    assert len(hub.titles(REPO)) == 2
    assert list(hub.dataset(REPO).tags) == ["v1"]


@pytest.mark.parametrize("status", [409, 412, 429, 500, 503])
def test_what_passes_by_itself_is_tried_again(hub, tmp_path, status):
    waits: list[float] = []
    hub.fail("POST .*/commit/", status, times=2, retry_after="7")
    published = publish(tmp_path / "d", 50)
    result = push_to_hub(published, REPO, endpoint=hub.url, sleep=waits.append)
    assert result.outcome == "pushed"
    assert waits == [7.0, 7.0]


def test_the_window_of_a_rate_limit_is_waited_for(hub, tmp_path):
    waits: list[float] = []
    hub.fail("POST .*/commit/", 429, times=2, ratelimit='"api";r=0;t=41')
    assert push_to_hub(publish(tmp_path / "d", 50), REPO, endpoint=hub.url, sleep=waits.append).outcome == "pushed"
    assert waits == [42.0, 42.0]


@pytest.mark.parametrize(("status", "error"), [(403, InputError), (429, PushError)])
def test_why_the_hub_refuses_is_said(hub, tmp_path, status, error):
    """A 403 may be a full storage, and a 429 the commits of an hour: neither is mended by another token or try."""
    hub.fail("POST .*/commit/", status, times=99, x_error_message="Private repository storage limit reached")
    with pytest.raises(error, match=f"HTTP {status} .*Private repository storage limit reached"):
        push(hub, publish(tmp_path / "d", 50))


def test_a_page_for_people_in_place_of_an_answer_is_tried_again_and_said(hub, tmp_path):
    page = {"status": 503, "body": b"<HTML>The request could not be satisfied.</HTML>"}
    hub.fail("POST /api/validate-yaml", **page)
    assert push(hub, publish(tmp_path / "d", 50)).outcome == "pushed"
    hub.fail("POST /api/validate-yaml", times=99, **page)
    with pytest.raises(PushError, match=r"cannot commit: what .* answers is no JSON\. Nothing was committed"):
        push(hub, publish(tmp_path / "d", 50, card="Another."))


def test_a_header_that_the_hub_does_not_take_is_said_with_the_keys_of_the_recipe(hub, tmp_path):
    refused = json.dumps({"errors": [{"message": '"license" must be one of [apache-2.0, mit]'}]}).encode()
    hub.fail("POST /api/validate-yaml", 400, body=refused)
    with pytest.raises(PushError, match=r'"license" must be one of .*; see publish\.license, publish\.languages'):
        push(hub, publish(tmp_path / "d", 50))
    assert len(hub.titles(REPO)) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_the_storage_is_one_line(hub, tmp_path, monkeypatch, status):
    """Large files go by hf_xet, which raises Python's ConnectionError for whatever its far end answers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.fail("GET .*/xet-write-token/", status, times=99)
    with pytest.raises(
        PushError, match=rf"cannot commit: the Hub's storage refuses: .*\({status} .*write access"
    ) as found:
        push(hub, publish(tmp_path / "d", 50))
    assert "\n" not in str(found.value)
    assert len(hub.titles(REPO)) == 1
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    assert push(hub, publish(tmp_path / "d", 50)).outcome == "pushed"


def test_uploads_of_a_push_that_failed_are_not_done_again(hub, tmp_path):
    published = publish(tmp_path / "d", 200, shard=20)
    hub.fail("POST .*/commit/", 503, times=99)
    with pytest.raises(PushError, match=r"cannot commit: HTTP 503 .* run the same command again"):
        push(hub, published)
    assert hub.count("^PUT") == 11  # eight shards of train, two of test, and a figure
    hub.faults.clear()
    hub.log.clear()
    assert push(hub, published).outcome == "pushed"
    assert hub.count("^PUT") == 0


def test_an_upload_that_fails_for_good_commits_nothing_and_keeps_the_others(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50))
    main = hub.tree(REPO)
    changed = publish(tmp_path / "d", 200, shard=20)
    bad = changed.facts["data/train-00003-of-00008.parquet"].sha256
    hub.fail(f"PUT /lfs/{bad}", 500, times=999)
    with pytest.raises(PushError, match="HTTP 500"):
        push(hub, changed)
    assert hub.tree(REPO) == main
    hub.faults.clear()
    hub.log.clear()
    push(hub, changed)
    assert 1 <= hub.count("^PUT") < 10


def test_a_commit_of_somebody_else_in_between_is_kept(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50))
    repo = hub.dataset(REPO)
    real, calls = hub.tree(REPO), []

    def interfere(seconds: float) -> None:
        calls.append(seconds)

    hub.fail("POST .*/preupload/", 503, times=6)  # the client itself tries so often
    repo.add(real | {"NOTES.md": b"x"}, "by hand", "main")
    push_to_hub(publish(tmp_path / "d", 60), REPO, endpoint=hub.url, sleep=interfere)
    assert "NOTES.md" in hub.tree(REPO)


def test_offline_is_said(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        push(hub, publish(tmp_path / "d", 50))


def test_no_token_is_said_before_anything_is_asked(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"no token for the Hub: log in with `hf auth login`, or set HF_TOKEN"):
        push(hub, publish(tmp_path / "d", 50))
    assert not hub.log


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_wrong", "HTTP 401 .*the token is not accepted"),
        (READER, "HTTP 403 .*the token has no write access there"),
    ],
)
def test_a_token_that_does_not_do_is_said_and_never_shown(hub, tmp_path, monkeypatch, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    published = publish(tmp_path / "d", 50)
    with pytest.raises(InputError, match=message) as found:
        push(hub, published)
    assert token not in str(found.value)
    assert "\n" not in str(found.value)
    hub.repos["dataset", REPO] = Repo(private=True)
    hub.dataset(REPO).add({}, "initial commit", "main")
    with pytest.raises(InputError, match=message):
        push(hub, published)
    assert len(hub.titles(REPO)) == 1


@pytest.mark.parametrize("kind", ["model", "space"])
def test_a_repository_of_another_type_is_refused(hub, tmp_path, kind):
    hub.repos[kind, REPO] = Repo(private=False)
    hub.repos[kind, REPO].add({}, "initial commit", "main")
    with pytest.raises(InputError, match=f"team/pairs is a {kind} on the Hub, and no dataset"):
        push(hub, publish(tmp_path / "d", 50))
    assert list(hub.repos) == [(kind, REPO)]


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("team/pa irs", "expected|allows"),
        ("team/pairs?", "allows"),
        ("team/-pairs", "allows"),
        ("team/a--b", "allows"),
        ("pairs", "expected owner/name"),
        ("a/b/c", "expected owner/name"),
        ("models/team/pairs", "one of the Hub's models"),
        ("https://huggingface.co/spaces/team/pairs", "one of the Hub's spaces"),
        ("team/" + "x" * 120, "at most 96"),
    ],
)
def test_an_id_that_cannot_be_is_refused(hub, tmp_path, repo, message):
    with pytest.raises(InputError, match=message):
        push(hub, publish(tmp_path / "d", 50), repo)
    assert not hub.log


def test_a_public_repository_needs_public(hub, tmp_path):
    published = publish(tmp_path / "d", 50)
    push(hub, published, private=False)
    assert not hub.dataset(REPO).private
    with pytest.raises(InputError, match=r"team/pairs is public, and this push is private: add --public"):
        push(hub, published)


def test_a_history_of_another_workspace_is_not_lost(hub, tmp_path):
    push(hub, publish(tmp_path / "d", 50))
    other = publish(tmp_path / "other", 70)
    with pytest.raises(InputError, match=r"holds a history .*that this workspace has not written"):
        push(hub, other)
    with pytest.raises(InputError, match="has the tag v1 already"):
        push(hub, other, force=True)
    assert push(hub, other, force=True, tag="again").outcome == "pushed"
    assert list(hub.dataset(REPO).tags) == ["v1", "again"]


def test_the_token_is_in_no_file_and_no_result(hub, tmp_path):
    published = publish(tmp_path / "d", 50)
    result = push(hub, published)
    assert WRITER not in repr(result)
    assert not [p for p, data in hub.tree(REPO).items() if WRITER.encode() in data]
