"""Secrets stay where they are, models are no pickles, and text of others is only text."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.errors import InputError, RecipeError
from curation.files.spreadsheets import neutral_cells
from curation.models.chat import ChatOptions, open_chat
from curation.models.encoder import open_encoder
from curation.models.identity import resolve_model
from curation.models.policy import open_policy
from curation.models.refusals import open_refusal_detector
from curation.models.rewards import open_reward
from curation.publish.card import CardData, render_card
from curation.recipe import load_recipe
from tests.chat_server import running
from tests.faults.place import write_sources

ROOT = Path(__file__).resolve().parents[1]
PLANTED = {
    "OPENAI_API_KEY": "sk-planted-5b1e9a77c0",
    "HF_TOKEN": "hf_planted_0c77a9e15b",
    "AWS_SECRET_ACCESS_KEY": "planted+aws/9e15b0c77a",
    "AWS_SESSION_TOKEN": "planted-session-77a9e1",
}


def sources() -> list[Path]:
    return [path for folder in ("curation", "schemas", "assets") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_nothing_in_the_package_reads_pickles() -> None:
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").split(".")[0]}
            elif isinstance(node, ast.Call):
                text = ast.unparse(node.func)
                allows = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
                names = (
                    {"pickle"} if text in {"torch.load", "pl.read_pickle", "pd.read_pickle"} or allows else set()
                )
            if names & modules:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []


class Executed:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


OPENERS: dict[str, Callable[[str], object]] = {
    "policy": open_policy, "reward": open_reward, "encoder": open_encoder, "refusals": open_refusal_detector,
    "chat": lambda model: open_chat(model, ChatOptions()),
}  # fmt: skip


@pytest.mark.parametrize("opened", OPENERS)
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pkl", "2_Dense/pytorch_model.bin"])
def test_a_model_folder_with_pickled_weights_is_refused_and_not_opened(
    tmp_path: Path, opened: str, file: str
) -> None:
    folder, mark = tmp_path / "model", tmp_path / "executed"
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_bytes(pickle.dumps(Executed(mark)))
    if opened == "encoder" and "Dense" in file:
        (folder / "model.safetensors").touch()
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(InputError, match=rf"{file} is no safetensors file.*can run code: save the model again"):
        OPENERS[opened](str(folder))
    assert not mark.exists()
    pickle.loads((folder / file).read_bytes())  # noqa: S301 - to see that it would have left its mark
    assert mark.exists()


def test_a_checkpoint_of_a_trainer_beside_safetensors_is_fine(tmp_path: Path) -> None:
    for name in ("model.safetensors", "training_args.bin", "optimizer.pt"):
        (tmp_path / name).write_bytes(b"x")
    assert resolve_model(str(tmp_path), embedded="x").kind == "folder"


@pytest.mark.parametrize("name", ["api_key", "Authorization", "x-api-key", "access_token", "password"])
def test_a_key_among_a_requests_fields_is_refused_and_not_repeated(tmp_path: Path, name: str) -> None:
    path = tmp_path / "recipe.yaml"
    fields = f"{{top_k: 20, {name}: planted-secret}}"
    path.write_text(
        f"sources: [{{path: a.jsonl}}]\ngeneration:\n- {{model: 'http://h/v1#m', extra_body: {fields}}}\n"
    )
    with pytest.raises(RecipeError, match=rf"extra_body\.{name}: a key stands in the recipe") as caught:
        load_recipe(path)
    assert "planted-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "http://user:planted-secret@127.0.0.1:8000/v1#m"),
        ("model", "https://host/v1?api_key=planted-secret#m"),
        ("model", "https://host/v1?x=1&access_token=planted-secret"),
        ("model", "localhost:8000/v1?api_key=planted-secret#m"),
        ("model", "judge:http://user:planted-secret@127.0.0.1:8000/v1#m?rubric=honesty"),
        ("model", "judge:https://host/v1#m?max_new_tokens=9&body.api_key=planted-secret"),
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(tmp_path: Path, field: str, value: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"sources: [{{path: a.jsonl}}]\ngeneration:\n- {field}: '{value}'\n")
    with pytest.raises(RecipeError, match=r"generation.0.model: a password or key stands in the address") as caught:
        load_recipe(path)
    assert "planted" not in str(caught.value)


def test_an_address_without_a_secret_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    judge = "judge:http://h/v1#m?key_variable=MY_KEY&max_new_tokens=4000&body.reasoning_effort=low"
    path.write_text(
        "sources: [{path: hf://a/b:train}]\ngeneration: [{model: 'http://127.0.0.1:8000/v1#m'}]\n"
        f"rewards: [{{model: '{judge}'}}]\n"
    )
    assert load_recipe(path).generation[0].model.startswith("http://127")
    assert load_recipe(path).rewards[0].model == judge


def test_planted_secrets_are_in_nothing_that_a_run_writes(tmp_path: Path) -> None:
    """Once with a server that takes the key, once (with --debug) with one that does not."""
    home = tmp_path / "home"
    environment = {**os.environ, **PLANTED, "HOME": str(home), "DAGSTER_HOME": str(home)}
    home.mkdir()
    statuses = []
    for number, key in enumerate((PLANTED["OPENAI_API_KEY"], "another")):
        with running(tmp_path / f"server-{number}", "--key", key) as server:
            recipe = write_sources(tmp_path / f"recipe-{number}", server, rows=4)
            command = [sys.executable, "-m", "curation.cli", "--debug", "run", str(recipe)]
            done = subprocess.run(
                [*command, "--workspace", str(tmp_path / f"w{number}")],
                cwd=ROOT, env=environment, capture_output=True, check=False,
            )  # fmt: skip
        (tmp_path / f"out-{number}").write_bytes(done.stdout + done.stderr)
        statuses.append(done.returncode)
    assert statuses[0] == 0, (tmp_path / "out-0").read_text()[-2000:]
    assert statuses[1] != 0
    assert b"OPENAI_API_KEY" in (tmp_path / "out-1").read_bytes()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix in {".parquet", ".json", ".md", ".html"}]) > 20
    leaks = [(path.name, name) for path in files for name, secret in PLANTED.items()
             if secret.encode() in path.read_bytes()]  # fmt: skip
    assert leaks == []
    texts = [path for path in files if path.suffix == ".parquet" and "_delta_log" not in path.parts]
    for path in texts:
        values = pl.read_parquet(path, hive_partitioning=False).write_json()
        assert not any(secret in values for secret in PLANTED.values()), path


SCRIPT = "<script>alert(1)</script>"


def test_no_markup_of_others_is_in_a_card() -> None:
    card = render_card(
        CardData(
            dataset="preference",
            name=SCRIPT,
            license="mit",
            splits={"train": 1},
            facts={SCRIPT: SCRIPT},
            sources={SCRIPT: 1},
            models=[{"step": SCRIPT, "producer": SCRIPT}],
            versions={SCRIPT: SCRIPT},
            columns=[(SCRIPT, SCRIPT)],
            limitations=[SCRIPT],
            left_out=[SCRIPT],
        )
    )
    body = card.split("\n---\n", 1)[1]
    assert "<script" not in body
    assert body.count("&lt;script&gt;") >= 6


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_of_a_sheet_is_a_formula(text: str) -> None:
    (cell,) = neutral_cells(pl.DataFrame({"a": [text]}))["a"]
    assert cell == "'" + text


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "/etc", "a\\b", "", ".hidden"])
def test_a_recipes_name_is_no_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: '{name}'\nsources: [{{path: a.jsonl}}]\n")
    with pytest.raises(RecipeError, match="name"):
        load_recipe(path)
