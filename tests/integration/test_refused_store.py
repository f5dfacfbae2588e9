"""An object store that refuses a key, for everything or for some of it: one line, and nothing of the key in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from curation.workspace import Workspace
from schemas import TABLES
from tests.s3_server import S3Server, refusing, s3_server
from tests.stages.conftest import ROOT, SMALL_RECIPE, sentences, with_rows


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as found:
        yield found


@pytest.mark.parametrize(("refused", "words"), [
    (lambda method, path: True, ("status",)),
    (lambda method, path: "_delta_log" in path, ("explain", "000000")),
    (lambda method, path: method in ("PUT", "POST", "DELETE"), ("run",)),
])  # fmt: skip
def test_a_store_that_refuses_the_key_is_one_line_without_secrets(
    server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[[str, str], bool],
    words: tuple[str, ...],
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    url = f"{server.bucket}/refused"
    Workspace(url).append("prompts", TABLES["prompts"].create_empty())
    quick = {"AWS_MAX_ATTEMPTS": "1", "AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none"}
    if words == ("run",):
        with_rows(tmp_path, sentences(4))
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SMALL_RECIPE))
        args = ("run", str(tmp_path / "recipe.yaml"), "--workspace", url)
    else:
        args = (words[0], url, *words[1:])
    with refusing(server, refused) as address:
        done = subprocess.run(
            [sys.executable, "-m", "curation.cli", *args],
            env={**os.environ, **quick, "AWS_ENDPOINT_URL": address},
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert url in line
    assert "credentials" in line
    assert "planted" not in done.stdout + done.stderr
