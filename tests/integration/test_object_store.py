"""Workspaces in an object store: a whole run, a killed one, two at once, and what is wrong with bucket or key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml

from curation import lease
from curation.errors import WorkspaceError
from curation.forgetting.forget import forget, what_would_go
from curation.ledger import Ledger, LedgerKey
from curation.stored import read_file, stored_files
from curation.workspace import Workspace
from tests.s3_server import S3Server, s3_server
from tests.stages.conftest import ROOT, SMALL_RECIPE, sentences

KEY = LedgerKey("embeddings", "text_id", "model", "a model")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as found:
        yield found


@pytest.fixture
def store(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, known to this process through its environment alone."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


def command(server: S3Server, *args: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **server.environment, **changes}
    return subprocess.run(
        [sys.executable, "-m", *args], cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        timeout=1200,
    )  # fmt: skip


def rows(*ids: str) -> pl.DataFrame:
    vector = pl.Series("vector", [[1.0]] * len(ids), dtype=pl.List(pl.Float32))
    return pl.DataFrame({"text_id": ids}).with_columns(vector, truncated=pl.lit(value=False))


def no_failures() -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(("row_id", "item_id", "rule", "value", "reason"), pl.String))


def test_only_one_of_many_conditional_puts_succeeds(store: S3Server) -> None:
    filesystem, won, lost = Workspace(f"{store.bucket}/puts").filesystem(), [], []

    def put(number: int) -> None:
        try:
            filesystem.pipe_file(f"{store.bucket}/puts/one", b"%d" % number, mode="create")
            won.append(number)
        except FileExistsError:
            lost.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 11)
    assert filesystem.cat_file(f"{store.bucket}/puts/one") == b"%d" % won[0]


APPENDING = """
import sys
from curation.ledger import Ledger
from curation.workspace import Workspace
from tests.integration.test_object_store import KEY, no_failures, rows
ledger = Ledger(Workspace(sys.argv[1]))
for number in range(8):
    ledger.append(KEY, rows(*(f"{sys.argv[2]}{number:x}{i:030x}" for i in range(3))), no_failures())
"""


def test_two_processes_append_at_once_and_nothing_is_lost_or_doubled(store: S3Server) -> None:
    url = f"{store.bucket}/appending"
    Workspace(url)
    Ledger(Workspace(url)).append(KEY, rows("f" * 32), no_failures())
    processes = [
        subprocess.Popen([sys.executable, "-c", APPENDING, url, name], cwd=ROOT, stderr=subprocess.PIPE)
        for name in ("a", "b")
    ]
    errors = [process.communicate(timeout=900)[1] for process in processes]
    assert [p.returncode for p in processes] == [0, 0], errors
    found = Workspace(url).read("embeddings")["text_id"]
    expected = {f"{name}{n:x}{i:030x}" for name in "ab" for n in range(8) for i in range(3)} | {"f" * 32}
    assert len(found) == len(expected)
    assert set(found) == expected


def test_only_one_holds_a_workspace_and_a_dead_holder_does_not_hold_it(store: S3Server) -> None:
    workspace = Workspace(f"{store.bucket}/held")
    with workspace.lock(), pytest.raises(WorkspaceError, match=f"in use by process {os.getpid()}"):  # noqa: SIM117
        with Workspace(workspace.url).lock():
            pass
    assert workspace.locks_held() == []
    dying = "import os, sys\nfrom curation.workspace import Workspace\nlock = Workspace(sys.argv[1]).lock()\n"
    subprocess.run(
        [sys.executable, "-c", dying + "lock.__enter__()\nos._exit(9)", workspace.url], cwd=ROOT, check=False
    )
    assert len(workspace.locks_held()) == 1
    with workspace.lock():
        assert workspace.locks_held()[0]["holder"].startswith(f"process {os.getpid()} ")


def test_a_holder_on_another_machine_is_believed_until_it_is_silent(
    store: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(f"{store.bucket}/elsewhere")
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease.platform, "node", lambda: "elsewhere")
    with workspace.lock():
        monkeypatch.setattr(lease.platform, "node", lambda: "here")
        with pytest.raises(WorkspaceError, match="on elsewhere"), Workspace(workspace.url).lock():
            pass
        monkeypatch.setattr(lease, "SILENT_SECONDS", 0.0)
        held = workspace._leases[0]

        def until_it_spoke(seconds: float) -> None:
            """On a busy machine it takes the holder longer than two beats; the second one follows a whole one."""
            beats = held._mine.beats
            while held._mine.beats < beats + 2 and not held.lost.is_set():
                time.sleep(0.01)

        monkeypatch.setattr(lease, "time", SimpleNamespace(**vars(time) | {"sleep": until_it_spoke}))
        # The clocks differ, and it still says that it lives.
        with pytest.raises(WorkspaceError, match="on elsewhere"), Workspace(workspace.url).lock():
            pass


def test_a_run_whose_lease_was_taken_writes_no_more(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    workspace = Workspace(f"{store.bucket}/taken")
    with workspace.lock():
        held = workspace._leases[0]
        workspace.append("embeddings", rows("1" * 32).with_columns(model=pl.lit("m")))
        path = f"{workspace.path('locks')}/workspace.000002.lease"
        workspace.filesystem().pipe_file(path, read_file(workspace, "locks/workspace.000001.lease"))
        assert held.lost.wait(300)
        with pytest.raises(WorkspaceError, match="another run took"):
            workspace.append("embeddings", rows("2" * 32).with_columns(model=pl.lit("m")))
    assert workspace.read("embeddings").height == 1


def test_a_store_that_cannot_be_reached_for_long_ends_the_lease(
    store: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore's errors are no OSErrors: they once ended the thread that keeps the lease, and nobody knew."""
    from botocore.exceptions import EndpointConnectionError

    def unreachable(*_: Any, **__: Any) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1")

    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    workspace = Workspace(f"{store.bucket}/unreachable")
    with workspace.lock():
        held = workspace._leases[0]
        with monkeypatch.context() as broken:
            broken.setattr(held._filesystem, "pipe_file", unreachable)
            held.beat()
            assert not held.is_lost()
            broken.setattr(lease, "SILENT_SECONDS", 0.2)
            assert held.lost.wait(300)
        with pytest.raises(WorkspaceError, match="another run took"):
            workspace.append("embeddings", rows("1" * 32).with_columns(model=pl.lit("m")))


def test_a_holder_that_slept_looks_whether_the_lease_is_its_own(
    store: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)
    workspace = Workspace(f"{store.bucket}/slept")
    with workspace.lock():
        held = workspace._leases[0]
        monkeypatch.setattr(held, "_said", held._said - lease.SILENT_SECONDS - 1)
        assert not held.is_lost()
        path = f"{workspace.path('locks')}/workspace.000002.lease"
        workspace.filesystem().pipe_file(path, read_file(workspace, "locks/workspace.000001.lease"))
        monkeypatch.setattr(held, "_said", held._said - lease.SILENT_SECONDS - 1)
        assert held.is_lost()


def test_a_run_that_is_killed_goes_on_and_equals_a_local_one(store: S3Server, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"rewards": [], "refusals": None, "policy": None, "selection": {"rules": []}}
    changes |= {"pairs": {"strategies": ["provided"]}, "encoder": {"batch_rows": 8}, "generation": []}
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sentences(12)))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SMALL_RECIPE | changes))
    url, log, recipe = f"{store.bucket}/run", str(tmp_path / "calls"), str(tmp_path / "recipe.yaml")
    killed = command(store, "tests.stages.counting", recipe, url, log, "embeddings", "2")
    assert killed.returncode == -9, killed.stderr
    done = command(store, "curation.cli", "run", recipe, "--workspace", url)
    assert done.returncode == 0, done.stderr
    assert "28 model results computed, 8 reused" in done.stdout
    again = command(store, "curation.cli", "run", recipe, "--workspace", url)
    assert "Nothing to do" in again.stdout
    workspace = Workspace(url, create=False)
    stored = workspace.read("embeddings")["text_id"]
    assert stored.n_unique() == len(stored) == 36
    local = command(store, "curation.cli", "run", recipe, "--workspace", str(tmp_path / "w"))
    assert local.returncode == 0, local.stderr
    files = {
        p: s for p, s in stored_files(workspace).items() if p.startswith("datasets/") and p.endswith(".parquet")
    }
    assert files
    for path in files:
        assert read_file(workspace, path) == (tmp_path / "w" / path).read_bytes(), path
    assert "report.html" in stored_files(workspace)
    shown = command(store, "curation.cli", "status", url)
    assert "preference" in shown.stdout
    plan, _ = what_would_go(workspace, [workspace.read("prompts")["prompt_id"][0]])
    searched = forget(workspace, plan).searched
    assert searched is not None
    assert searched.left == []


@pytest.mark.parametrize(("url", "changes", "said"), [
    ("s3://no-such-bucket/w", {}, "bucket"),
    ("s3://curation-tests/w", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
    ("s3://curation-tests/w", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    ("nowhere://bucket/w", {}, "cannot lie at nowhere://"),
])  # fmt: skip
def test_what_is_wrong_is_one_line_without_secrets(
    store: S3Server, url: str, changes: dict[str, str], said: str
) -> None:
    quick = {"AWS_MAX_ATTEMPTS": "1", "AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none"}
    done = command(store, "curation.cli", "status", url, **quick, **changes)
    assert done.returncode in (1, 2), done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "planted" not in done.stderr
