"""Servers that do not take every field: with each maker's own words, through the real client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import pytest

from curation.errors import InputError, ModelError
from curation.models.categories import open_judge_sorter
from curation.models.chat import ChatAnswer, ChatOptions, ChatRequest, chat_fingerprint, open_chat
from curation.models.chat.asking import Asking, read_asking, split_options
from curation.models.protocols import Fault
from curation.models.refusals import open_refusal_judge
from curation.models.rewards import open_reward
from curation.refusals.taxonomy import open_taxonomy
from tests.http_server import Handler, listening

Body = dict[str, Any]
Says = Callable[[Body], tuple[int, Body] | None]
"""What a server says of a request that it does not take; None where it takes it."""


class Strict(NamedTuple):
    model: str
    bodies: list[Body]
    """Every request, as it came."""


@contextmanager
def strict(
    says: Says, *, text: str | Callable[[], str] = "ok", ends: str = "stop", listed: Body | None = None
) -> Iterator[Strict]:
    bodies: list[Body] = []
    in_turn = threading.Lock()

    class Server(Handler):
        protocol_version = "HTTP/1.1"

        def get(self) -> None:
            self.answer(404 if listed is None else 200, listed or {})

        def post(self) -> None:
            body = self.body()
            with in_turn:  # so that the first text that there is gets there first
                self.reply_to(body)

        def reply_to(self, body: Body) -> None:
            bodies.append(body)
            refused = says(body)
            if refused is not None:
                self.answer(*refused)
                return
            message = {"role": "assistant", "content": text if isinstance(text, str) else text()}
            choice = {"index": 0, "message": message, "finish_reason": ends}
            self.answer(200, {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})

    with listening(Server) as url:
        yield Strict(f"{url}/v1#m", bodies)


def openai_reasoning(body: Body) -> tuple[int, Body] | None:
    """OpenAI's o-series and GPT-5: one field is named at a time."""

    def error(status: int, message: str, param: str | None, code: str | None) -> tuple[int, Body]:
        return status, {
            "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        }

    if "max_tokens" in body:
        said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        return error(400, said, "max_tokens", "unsupported_parameter")
    if "logprobs" in body:
        return error(403, "You are not allowed to request logprobs from this model", None, None)
    if "top_p" in body:
        said = "Unsupported parameter: 'top_p' is not supported with this model."
        return error(400, said, "top_p", "unsupported_parameter")
    if body.get("temperature", 1) != 1:
        said = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is."
        return error(400, said, "temperature", "unsupported_value")
    return None


def anthropic(body: Body) -> tuple[int, Body] | None:
    if "temperature" in body and "top_p" in body:
        said = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
    return None


def mistral(body: Body) -> tuple[int, Body] | None:
    if "seed" not in body:
        return None
    detail = [
        {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 1}
    ]
    return 422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error", "code": None}


def fewer_logprobs(body: Body) -> tuple[int, Body] | None:
    if body.get("top_logprobs", 0) <= 5:
        return None
    return 400, {"error": {"message": "top_logprobs must be between 0 and 5", "type": "invalid_request_error"}}


def no_schemas(body: Body) -> tuple[int, Body] | None:
    if "response_format" not in body:
        return None
    return 400, {
        "error": {"message": "This response_format type is unavailable now", "code": "invalid_request_error"}
    }


def no_templates(body: Body) -> tuple[int, Body] | None:
    if "chat_template_kwargs" not in body:
        return None
    said = "Unrecognized request argument supplied: chat_template_kwargs"
    return 400, {"error": {"message": said, "type": "invalid_request_error", "param": None, "code": None}}


def ask(model: str, count: int = 12, **options: Any) -> list[ChatAnswer | Fault]:
    chat = open_chat(model, ChatOptions(max_new_tokens=9, **options))
    requests = [ChatRequest(str(row), ({"role": "user", "content": f"q {row}"},)) for row in range(count)]
    return [reply.answer for reply in chat.chat(requests)]


@pytest.mark.parametrize(
    ("says", "options", "left_out"),
    [
        (openai_reasoning, {"temperature": 1.0}, {"max_tokens", "top_p"}),
        (openai_reasoning, {"temperature": 1.0, "top_logprobs": 20}, {"max_tokens", "top_p", "logprobs"}),
        (anthropic, {"temperature": 0.7}, {"top_p"}),
        (anthropic, {"temperature": 1.0, "top_p": 0.9}, {"temperature"}),
        (mistral, {"temperature": 0.7, "top_p": 0.9}, {"seed"}),
        (no_schemas, {"json_schema": {"type": "object"}, "json_schema_optional": True}, {"response_format"}),
    ],
)
def test_what_a_server_does_not_take_and_may_go_goes(
    says: Says, options: dict[str, Any], left_out: set[str]
) -> None:
    with strict(says) as server:
        answers = ask(server.model, **options)
        assert all(isinstance(answer, ChatAnswer) and answer.text == "ok" for answer in answers)
    taken = [body for body in server.bodies if says(body) is None]
    assert len(taken) == len(answers)  # every other request was refused, and nothing was answered twice
    assert all(left_out.isdisjoint(body) for body in taken)
    kept = {"temperature", "top_p", "seed"} - left_out
    assert all(kept <= set(body) for body in taken)


def test_fewer_log_probabilities_are_better_than_none() -> None:
    with strict(fewer_logprobs) as server:
        ask(server.model, top_logprobs=20)
    assert {body["top_logprobs"] for body in server.bodies if fewer_logprobs(body) is None} == {5}


@pytest.mark.parametrize(
    ("says", "options", "word"),
    [
        (openai_reasoning, {"temperature": 0.0}, "takes no temperature 0 for this model: give it temperature 1"),
        (anthropic, {"temperature": 0.7, "top_p": 0.9}, "takes no top_p 0.9 for this model: give it top_p 1"),
        (no_schemas, {"json_schema": {"type": "object"}}, "takes no response_format .* leave json_schema out"),
        (
            no_templates,
            {"template_options": {"a": 1}},
            "takes no chat_template_kwargs .* leave template_options out",
        ),
    ],
)
def test_what_may_not_go_ends_the_call_with_the_first_reply(says: Says, options: dict[str, Any], word: str) -> None:
    with strict(says) as server, pytest.raises(ModelError, match=word):
        ask(server.model, count=1000, **options)
    assert len(server.bodies) <= 5 * 64  # nothing more than what was under way


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Invalid prompt: your prompt was flagged", "code": "invalid_prompt", "param": None},
        {"message": "The prompt is not allowed", "code": "content_filter", "param": "messages"},
        {"message": "maximum context length is 4096 tokens; max_tokens must be lower. seed", "code": "x"},
    ],
)
def test_a_refusal_of_one_prompt_changes_no_other_request(error: Mapping[str, Any]) -> None:
    def says(body: Body) -> tuple[int, Body] | None:
        return (400, {"error": error}) if body["messages"][0]["content"] == "q 3" else None

    with strict(says) as server:
        answers = ask(server.model)
    assert sum(isinstance(answer, Fault) for answer in answers) == 1
    assert len(server.bodies) == len(answers)
    assert all({"temperature", "top_p", "seed", "max_tokens"} <= set(body) for body in server.bodies)


def test_further_fields_are_sent_and_are_part_of_the_fingerprint() -> None:
    extra = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    with strict(lambda body: None) as server:
        ask(server.model, extra_body=extra)
    assert all(extra.items() <= body.items() for body in server.bodies)
    plain = chat_fingerprint(server.model, ChatOptions())
    assert chat_fingerprint(server.model, ChatOptions(extra_body=extra)) != plain
    assert chat_fingerprint(server.model, ChatOptions(json_schema_optional=True)) == plain
    with pytest.raises(InputError, match="backend transformers has no extra_body"):
        chat_fingerprint("embedded", ChatOptions(extra_body=extra))
    with pytest.raises(InputError, match="'temperature', which every request has already"):
        chat_fingerprint(server.model, ChatOptions(extra_body={"temperature": 1}))
    with pytest.raises(InputError, match="extra_body has chat_template_kwargs, and template_options are the same"):
        chat_fingerprint(server.model, ChatOptions(extra_body=extra, template_options={"enable_thinking": False}))


def test_variables_of_the_template_are_sent_as_vllm_takes_them() -> None:
    with strict(lambda body: None) as server:
        ask(server.model, template_options={"enable_thinking": False})
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in server.bodies)


def test_a_field_of_the_users_own_that_is_not_taken_is_named() -> None:
    def says(body: Body) -> tuple[int, Body] | None:
        error = {"message": "Unknown parameter: 'effort'.", "param": "effort", "code": "unknown_parameter"}
        return (400, {"error": error}) if "effort" in body else None

    with strict(says) as server, pytest.raises(ModelError, match="takes no 'effort' as extra_body has it"):
        ask(server.model, extra_body={"effort": "low"})


@pytest.mark.parametrize("ending", ["", '<think>Is it a 2? {"score": 2}</think>\n'])
def test_a_reasoning_model_judges(ending: str) -> None:
    with strict(openai_reasoning, text=ending + '{"score": 4}') as server:
        options = "max_new_tokens=2000&temperature=1&body.reasoning_effort=low"
        judge = open_reward(f"judge:{server.model}?rubric=honesty&{options}")
        grades = judge.score([[{"role": "user", "content": "q"}]], ["a"])
    assert grades.tolist() == [[4.0]]
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == 2000
    assert last["reasoning_effort"] == "low"


def test_a_reasoning_model_tells_refusals() -> None:
    with strict(openai_reasoning, text='<think>A? no</think>{"verdict": "C", "kind": "declined"}') as server:
        judge = open_refusal_judge(server.model, asking=Asking(2000, 1.0))
        found = judge.detect(["q"], ["I will not."])
    assert (found.refusal_class, found.kind) == (["full_refusal"], ["declined"])
    np.testing.assert_array_equal(found.probability, [1.0])


@pytest.mark.parametrize("listed", ["models/m", "m:latest", "m-2026-01-31", "m-20260131", "other"])
def test_a_name_that_a_maker_serves_and_lists_otherwise_is_believed(listed: str) -> None:
    """A part of a list says nothing of the rest."""
    ids: Body = {"data": [{"id": listed}], "has_more": listed == "other"}
    with strict(lambda body: None, listed=ids) as server:
        assert all(isinstance(answer, ChatAnswer) for answer in ask(server.model))


@pytest.mark.parametrize("listed", ["m-large", "mm", "models/mm", "x-m", "m-2b", "m-3"])
def test_another_models_name_is_not_believed(listed: str) -> None:
    with (
        strict(lambda body: None, listed={"data": [{"id": listed}]}) as server,
        pytest.raises(ModelError, match=f"has no model 'm'.*; it has {listed}"),
    ):
        ask(server.model)
    assert not server.bodies


def test_a_judge_whose_first_replies_are_all_cut_is_asked_no_further() -> None:
    asks = [[{"role": "user", "content": f"q {row}"}] for row in range(600)]
    answers = ["a"] * len(asks)
    said = "first 20 replies were cut after 2 tokens, and none could be read: raise max_new_tokens"
    with strict(lambda body: None, text="Let me think about it", ends="length") as server:
        with pytest.raises(ModelError, match=said):
            open_reward(f"judge:{server.model}").score(asks, answers)
        assert len(server.bodies) < 300
        with pytest.raises(ModelError, match=said):
            open_refusal_judge(server.model).detect(["q"] * len(asks), answers)
        sorter = open_judge_sorter(open_taxonomy("coconot"), server.model)
        with pytest.raises(ModelError, match=said):
            sorter.assign([f"q {row}" for row in range(600)])


@pytest.mark.parametrize(
    ("replies", "ends"), [(['{"score": 3}', *["{"] * 30], "length"), (["I will not."], "stop")]
)
def test_a_judge_that_can_be_read_now_and_then_or_declines_is_asked_about_all(
    replies: list[str], ends: str
) -> None:
    asks = [[{"role": "user", "content": f"q {row}"}] for row in range(60)]
    said = cycle(replies)
    with strict(lambda body: None, text=lambda: next(said), ends=ends) as server:
        grades = open_reward(f"judge:{server.model}").score(asks, ["a"] * len(asks))
    assert len(server.bodies) == len(asks)
    assert np.isfinite(grades).sum() == (2 if ends == "length" else 0)


def test_options_behind_a_judges_name() -> None:
    name, options = split_options(
        "http://h/v1#m?max_new_tokens=900&temperature=1&key_variable=JUDGE_KEY&body.reasoning_effort=low"
        "&body.chat_template_kwargs.enable_thinking=false&body.top_k=20"
    )
    assert name == "http://h/v1#m"
    body = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}
    assert read_asking(options, max_new_tokens=48) == Asking(900, 1.0, body, "JUDGE_KEY")
    assert read_asking({}, max_new_tokens=48) == Asking(48)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("temprature=1", "'temprature' is not known .*temperature"),
        ("temperature=hot", "temperature is 'hot', expected a number"),
        ("max_new_tokens=1.5", "max_new_tokens is '1.5', expected a number"),
        ("temperature=", "has 1 values, or none"),
        ("temperature=1&temperature=0", "has 2 values"),
        ("body.a=1&body.a.b=2", "inside 'a', which another option gives a value"),
        ("body.a.b=2&body.a=1", "given twice"),
    ],
)
def test_an_option_that_is_none_is_named(query: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_asking(split_options(f"m?{query}")[1], max_new_tokens=48)


@pytest.mark.parametrize("value", ["NaN", "1e999"])
def test_a_field_that_json_has_no_form_for_is_refused(value: str) -> None:
    asking = read_asking(split_options(f"m?body.top_k={value}")[1], max_new_tokens=48)
    with pytest.raises(InputError, match="extra_body holds what JSON has no form for"):
        chat_fingerprint("http://h/v1#m", asking.chat_options(None))
