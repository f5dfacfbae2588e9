"""Secrets are not in Dagster's event log: neither of a run that goes well, nor of one whose key is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.assets.conftest import PLAIN, Location
from tests.chat_server import running
from tests.test_safety import PLANTED


@pytest.mark.parametrize("key", [PLANTED["OPENAI_API_KEY"], "another"])
def test_planted_secrets_are_not_in_the_event_log(
    location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("assets.stages._RETRY", None)  # it waits half a minute
    for name, secret in PLANTED.items():
        monkeypatch.setenv(name, secret)
    with running(tmp_path / "server", "--key", key) as server:
        model = {"model": server.model, "revision": "v1", "samples": 1, "max_new_tokens": 8}
        location.write({**PLAIN, "generation": [model]}, rows=3)
        result = location.materialize()
    assert result.success == (key in PLANTED.values())
    records = location.instance.all_logs(result.run_id)
    said = "\n".join(repr(record) + record.to_json() for record in records)
    run = location.instance.get_run_by_id(result.run_id)
    said += repr(run)
    assert len(records) > 100
    assert "generations" in said
    assert result.success or "OPENAI_API_KEY" in said
    assert [name for name, secret in PLANTED.items() if secret in said] == []
