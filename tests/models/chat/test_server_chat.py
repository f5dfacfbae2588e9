"""The server adapter against a far end that misbehaves, and against one that says no."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.errors import InputError, ModelError
from curation.models.chat import (
    ChatAnswer,
    ChatModel,
    ChatOptions,
    ChatReply,
    ChatRequest,
    Connection,
    chat_fingerprint,
    open_chat,
)
from curation.models.chat.replies import Broken, answer_in
from curation.models.chat.request_body import request_seed
from curation.models.chat.usage import Tokens, counted
from curation.models.protocols import Fault
from tests.chat_server import Running, answer_text, running
from tests.http_server import Handler, listening
from tests.models.rewards.test_server import speaking, trickle

OPTIONS = ChatOptions(max_new_tokens=16, temperature=0.7, seed=3)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def asks(count: int, *, words: int = 3) -> list[ChatRequest]:
    return [
        ChatRequest(f"r{i}", ({"role": "user", "content": f"question {i // 2} " + "word " * words},), i % 2)
        for i in range(count)
    ]


def chat_with(server: Running, **connection: object) -> ChatModel:
    """No test is about a silence of this server: on a machine with other work seconds can pass all the same."""
    return open_chat(
        server.model, OPTIONS, connection=Connection(**{"concurrency": 16, "timeout": 300.0} | connection)
    )  # type: ignore[arg-type]


def expected(request: ChatRequest) -> str:
    return answer_text(list(request.messages), request_seed(OPTIONS.seed, request))


def check_each_once(requests: list[ChatRequest], replies: list[ChatReply]) -> list[ChatReply]:
    """None lost, none doubled, none crossed. Returns the faults."""
    assert sorted(r.key for r in replies) == sorted(r.key for r in requests)
    by_key = {request.key: request for request in requests}
    for reply in replies:
        if isinstance(reply.answer, ChatAnswer):
            assert reply.answer.text == expected(by_key[reply.key])
    return [reply for reply in replies if isinstance(reply.answer, Fault)]


def test_every_request_gets_its_own_answer(tmp_path: Path) -> None:
    with running(tmp_path / "log") as server:
        requests = asks(60)
        assert not check_each_once(requests, list(chat_with(server).chat(requests)))
        assert set(server.got().values()) == {1}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_faulty_server_loses_doubles_and_crosses_nothing(tmp_path: Path, seed: int) -> None:
    with running(tmp_path / "log", "--faults", "0.5", "--seed", str(seed), "--delay", "0.002") as server:
        requests = asks(300)
        replies = list(chat_with(server, attempts=4, concurrency=64).chat(requests))
        faults = check_each_once(requests, replies)
        assert 0 < len(faults) < 40
        assert {f.answer.rule for f in faults if isinstance(f.answer, Fault)} <= {
            "rate_limited", "server_error", "connection_lost", "broken_json", "missing_choice",
        }  # fmt: skip
        assert max(server.got().values()) == 4
        assert not server.sent_after_answer()
        # What may have been charged for without an answer: each time that it was sent.
        done = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines() if line.startswith("did ")]
        assert sum(r.broken_off for r in replies) == sum(
            fault in ("closed", "cut", "broken_json", "no_choices") for fault in done
        )
        assert any(r.broken_off and isinstance(r.answer, ChatAnswer) for r in replies)


def test_a_model_the_server_lacks_is_one_error_before_any_request(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--models", "policy-a,other") as server:
        with pytest.raises(
            ModelError, match=r"has no model 'policy' .did you mean 'policy-a'.*; it has policy-a, other"
        ):
            list(chat_with(server).chat(asks(100)))
        assert not server.got()


def test_a_server_without_a_list_of_models_says_it_with_the_first_reply(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--models", "other", "--no-list") as server:
        with pytest.raises(ModelError, match="no model 'policy'"):
            list(chat_with(server).chat(asks(1000)))
        assert server.got().total() <= 32


@pytest.mark.parametrize(("key", "words"), [("wrong", "refused the key in"), (None, "OPENAI_API_KEY is not set")])
def test_a_key_that_is_wrong_or_missing_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, words: str
) -> None:
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with running(tmp_path / "log", "--key", "right") as server:
        with pytest.raises(ModelError, match=words) as caught:
            list(chat_with(server).chat(asks(100)))
        assert "wrong" not in str(caught.value)
        assert not server.got()


def test_the_right_key_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "right")
    with running(tmp_path / "log", "--key", "right") as server:
        assert not check_each_once(asks(2), list(chat_with(server, key_variable="MY_KEY").chat(asks(2))))


def test_a_named_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(InputError, match="MY_KEY is not set"):
        open_chat("http://localhost:1/v1#m", OPTIONS, connection=Connection(key_variable="MY_KEY"))


def test_a_prompt_longer_than_the_context_is_its_own_fault(tmp_path: Path) -> None:
    with running(tmp_path / "log") as server:
        requests = [*asks(4), *(r._replace(key=f"long {r.key}") for r in asks(1, words=9000))]
        (fault,) = check_each_once(requests, list(chat_with(server).chat(requests)))
        assert isinstance(fault.answer, Fault)
        assert (fault.key, fault.answer.rule) == ("long r0", "context_overflow")


def test_text_that_cannot_be_sent_is_a_fault_and_not_sent(tmp_path: Path) -> None:
    with running(tmp_path / "log") as server:
        bad = [
            ChatRequest("a", ({"role": "user", "content": "\ud800"},)),
            ChatRequest("b", ({"role": "user", "content": " "},)),
        ]
        replies = {r.key: r.answer for r in chat_with(server).chat([*bad, *asks(1)])}
        assert [replies[k].rule for k in "ab"] == ["invalid_unicode_prompt", "empty_prompt"]  # type: ignore[union-attr]
        assert server.got().total() == 1


def test_a_server_that_dies_and_comes_back_is_survived(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--delay", "0.01") as server:

        def die_and_return() -> None:
            while server.got().total() < 50:
                time.sleep(0.01)
            server.stop()
            time.sleep(1.0)
            server.start()

        thread = threading.Thread(target=die_and_return)
        thread.start()
        requests = asks(200)
        assert not check_each_once(requests, list(chat_with(server, concurrency=8).chat(requests)))
        thread.join()


def test_a_server_that_stays_away_ends_the_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path / "log", "--delay", "0.01") as server:
        replies = chat_with(server, patience=0.5).chat(asks(100))
        next(replies)
        server.stop()
        with pytest.raises(ModelError, match=r"no server came back at .* within 0.5 s"):
            list(replies)
        waited = [said for said in caplog.messages if said.endswith("it is waited for, 0.5 s at most")]
        assert len(waited) == 1
        server.start()


def test_an_answer_that_was_under_way_does_not_bring_a_server_back(caplog: pytest.LogCaptureFixture) -> None:
    def waited() -> int:
        return sum(said.endswith("it is waited for, 1 s at most") for said in caplog.messages)

    class Leaving(Handler):
        def get(self) -> None:
            self.answer(200, {"data": [{"id": "m"}]})

        def post(self) -> None:
            if self.body()["messages"][0]["content"] == "the last one":
                self.server.shutdown()
                self.server.server_close()
                while not waited():
                    time.sleep(0.01)
                message = {"role": "assistant", "content": "late"}
                self.answer(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    requests = [ChatRequest(key, ({"role": "user", "content": key},)) for key in ("the last one", "too late")]
    replies: list[ChatReply] = []
    with listening(Leaving, waits=False) as url:
        chat = open_chat(f"{url}/v1#m", OPTIONS, connection=Connection(concurrency=2, patience=1.0))
        with pytest.raises(ModelError, match="no server came back"):
            replies.extend(chat.chat(requests))
    assert [reply.key for reply in replies] == ["the last one"]
    assert waited() == 1


@pytest.mark.parametrize("patience", [{"first_patience": 0.3}, {"patience": 0.3}])
def test_no_server_at_all_is_one_error(patience: dict[str, float]) -> None:
    model = open_chat("http://127.0.0.1:9/v1#m", OPTIONS, connection=Connection(**patience))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"no server could be reached at http://127.0.0.1:9/v1 within 0.3 s"):
        list(model.chat(asks(10)))


def test_requests_are_taken_only_as_room_comes_free(tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[ChatRequest]:
        nonlocal taken
        while True:
            yield ChatRequest(str(taken), ({"role": "user", "content": f"question {taken}"},))
            taken += 1

    with running(tmp_path / "log") as server:
        replies = chat_with(server, concurrency=4).chat(endless())
        for _ in range(50):
            next(replies)
        replies.close()  # type: ignore[attr-defined]
        assert taken <= 50 + 2 * 4


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_address_may_end_in_any_of_the_usual_ways(ending: str) -> None:
    assert chat_fingerprint(f"http://host:80{ending}#m", OPTIONS) == chat_fingerprint(
        "http://host:80/v1#m", OPTIONS
    )


def test_a_revision_stands_for_the_address(tmp_path: Path) -> None:
    here, there = (chat_fingerprint(f"http://{h}/v1#m", OPTIONS, revision="r7") for h in ("a:1", "b:2"))
    assert here == there
    assert here != chat_fingerprint("http://a:1/v1#m", OPTIONS, revision="r8")


@pytest.mark.parametrize(
    "model", ["http://host/v1", "http:///v1#m", "http://host:x/v1#m", "https://user:secret@host/v1#m"]
)
def test_an_address_that_is_none_is_refused_without_its_secret(model: str) -> None:
    with pytest.raises(InputError) as caught:
        open_chat(model, OPTIONS)
    assert "secret" not in str(caught.value)


def test_what_is_under_way_when_the_call_ends_early_is_still_handed_over(tmp_path: Path) -> None:
    """One request in a hundred finds out that no other can succeed; the others of its time were answered."""
    with running(tmp_path / "log", "--delay", "0.3", "--no-list", "--gone-after", "20") as server:
        replies: list[ChatReply] = []
        found = chat_with(server, concurrency=16).chat(asks(100))
        with pytest.raises(ModelError, match="no model 'policy'"):
            replies.extend(found)
        answered = sum(line[0] == "answered" for line in server.lines())
        assert len(replies) == answered == 20


def test_an_answer_in_parts_is_one_text_and_its_thoughts_are_reasoning() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Yes"}]
    body = {"choices": [{"index": 0, "message": {"content": parts}, "finish_reason": "stop"}]}
    answer = answer_in(json.dumps(body).encode())
    assert (answer.text, answer.reasoning) == ("Yes", "hm")


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "No."},
        {"content": "", "refusal": "No."},
        {"content": [{"type": "refusal", "refusal": "No."}]},
        {"content": [], "refusal": "No."},
        {"content": "No.", "refusal": None},
    ],
)
def test_a_refusal_is_the_answer_wherever_the_server_puts_it(message: dict[str, object]) -> None:
    body = {"choices": [{"index": None, "message": message, "finish_reason": "stop"}]}
    assert answer_in(json.dumps(body).encode()).text == "No."


def test_an_answer_that_a_provider_broke_off_is_none() -> None:
    half = {"index": 0, "message": {"content": "The first half"}, "finish_reason": "error"}
    failed = half | {"finish_reason": None, "error": {"code": 502, "message": "upstream"}}
    for choice in (half, failed):
        with pytest.raises(Broken, match="broken_off"):
            answer_in(json.dumps({"choices": [choice]}).encode())


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (
            {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 30},
            (6, 24),
        ),  # what was thought is in the total
        ({"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}, (6, 4)),
        ({"prompt_tokens": 6, "completion_tokens": 4}, (6, 4)),
        ({"completion_tokens": 4, "total_tokens": 10}, (0, 4)),
        (None, (0, 0)),
    ],
)
def test_tokens_are_read_as_they_are_charged(usage: dict[str, int] | None, read: tuple[int, int]) -> None:
    body = {"choices": [{"index": 0, "message": {"content": "Yes"}, "finish_reason": "stop"}], "usage": usage}
    answer = answer_in(json.dumps(body).encode())
    assert (answer.prompt_tokens, answer.completion_tokens) == read


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("Yes", (6, 4), (6, 4, 0)),
        ("Yes", (6, 0), (6, 9, 9)),  # an answer has tokens
        ("", (6, 0), (6, 0, 0)),
        ("Yes", (0, 4), (50, 4, 50)),  # and a prompt
        ("", (0, 0), (50, 9, 59)),
    ],
)
def test_what_a_server_did_not_count_is_what_it_can_be_at_most(
    text: str, given: tuple[int, int], expected: tuple[int, int, int]
) -> None:
    assert counted(ChatAnswer(text, "stop", *given), Tokens(50, 9, 59)) == expected


def test_a_cut_answer_says_length_whatever_the_server_calls_it() -> None:
    for word in ("length", "MAX_TOKENS", "model_length"):
        body = {"choices": [{"index": 0, "message": {"content": "Yes and"}, "finish_reason": word}]}
        assert answer_in(json.dumps(body).encode()).finish_reason == "length"


def test_a_time_out_is_for_the_whole_reply_however_slowly_it_trickles() -> None:
    with speaking(lambda to, answers: trickle(to)) as url:
        chat = open_chat(f"{url}#m", OPTIONS, connection=Connection(timeout=0.5, attempts=1))
        (reply,) = chat.chat([ChatRequest("0", ({"role": "user", "content": "x"},))])
    assert isinstance(reply.answer, Fault)
    assert reply.answer.rule == "timeout"
