"""What a recipe says of vLLM in this process reaches it, and nothing of it reaches another backend in silence."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from curation.errors import InputError, ModelError
from curation.models.chat import ChatOptions, chat_fingerprint, in_process_vllm
from curation.models.policy import vllm_backend, vllm_check
from curation.recipe import Generation, Policy
from curation.stages.generations import GenerationStep
from curation.stages.policy_stats import PolicyStep

PLACE: dict[str, Any] = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "max_model_len": 512}
WIDTH: dict[str, Any] = {"dtype": "bfloat16", "quantization": "fp8"}


def key_of(**options: Any) -> str:
    return GenerationStep(Generation(backend="vllm", **options), seed=0).key.producer


def given_to_vllm(monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def start(named: str, **given: Any) -> Any:
        found.update(given)
        raise ModelError(f"{named} is not started here")

    monkeypatch.setattr(in_process_vllm, "require_vllm", lambda: None)
    monkeypatch.setattr(in_process_vllm, "start_vllm", start)
    with pytest.raises(ModelError, match="embedded is not started here"):
        GenerationStep(Generation(backend="vllm", **options), seed=0).open()
    return found


def test_the_recipes_options_reach_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (PLACE | WIDTH).items() <= given_to_vllm(monkeypatch, **PLACE, **WIDTH).items()


def test_what_the_recipe_leaves_open_is_vllms_but_for_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    given = given_to_vllm(monkeypatch)
    assert given["max_model_len"] == -1
    assert not {"dtype", "quantization", "tensor_parallel_size", "gpu_memory_utilization"} & set(given)


def test_only_what_changes_answers_is_in_their_key() -> None:
    assert key_of(**PLACE) == key_of()
    assert len({key_of(), key_of(dtype="bfloat16"), key_of(dtype="float16"), key_of(quantization="fp8")}) == 4
    assert Generation(backend="vllm", **PLACE, **WIDTH).parameters.items() >= WIDTH.items()
    assert not PLACE.keys() & Generation(backend="vllm", **PLACE).parameters.keys()


def test_a_policys_place_reaches_both_engines_and_is_in_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {name: PLACE[name] for name in ("tensor_parallel_size", "gpu_memory_utilization")}
    found: list[dict[str, Any]] = []

    def start(named: str, **given: Any) -> Any:
        found.append(given)
        raise ModelError(f"{named} is not started here")

    for module in (vllm_backend, vllm_check):
        monkeypatch.setattr(module, "start_vllm", start)
    monkeypatch.setattr(vllm_backend, "require_vllm", lambda: None)
    monkeypatch.setattr(vllm_check, "engine_alive", nullcontext)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=None))
    monkeypatch.setitem(sys.modules, "vllm.config", SimpleNamespace(PoolerConfig=lambda **_: None))
    step = PolicyStep(Policy(backend="vllm", **place))
    assert step.key == PolicyStep(Policy()).key
    with pytest.raises(ModelError, match="embedded is not started here"):
        step.open()
    monkeypatch.setattr(vllm_backend, "reported_logps", lambda *_, **given: found.append(given["place"].given))
    with pytest.raises(ModelError, match="embedded is not started here"):
        step.open()
    assert len(found) == 3
    assert all(place.items() <= given.items() for given in found)
    with pytest.raises(ValidationError, match="tensor_parallel_size is of backend vllm, and this one is transf"):
        Policy(tensor_parallel_size=2)


@pytest.mark.parametrize("name", [*PLACE, *WIDTH])
def test_another_backend_does_not_take_them(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is of backend vllm, and this one is auto"):
        Generation(**{name: (PLACE | WIDTH)[name]})


@pytest.mark.parametrize("model", ["embedded", "http://localhost:1/v1#m"])
@pytest.mark.parametrize("name", list(WIDTH))
def test_a_width_for_another_backend_is_refused(model: str, name: str) -> None:
    with pytest.raises(InputError, match=f"has no {name}: it is of vllm"):
        chat_fingerprint(model, ChatOptions(**{name: WIDTH[name]}))
