"""Reward models behind a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest

from curation.errors import InputError, ModelError
from curation.models.rewards import open_reward, reward_fingerprint
from tests.http_server import Handler, listening
from tests.models.rewards.test_judge import serving

PROMPT = [{"role": "user", "content": "How do plants drink?"}]


def length_scores(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    data = [{"index": i, "score": float(len(text))} for i, text in enumerate(body["text_2"])]
    return 200, {"data": data[::-1]}


def test_score_gives_one_value_an_answer_in_order_and_in_batches() -> None:
    with serving(length_scores) as url:
        model = open_reward(f"{url}/score#m", batch_size=2)
        assert model.score([PROMPT] * 3, ["a", "bb", "ccc"]).tolist() == [[1.0], [2.0], [3.0]]


def test_classify_gives_every_label() -> None:
    with serving(lambda body: (200, {"data": [{"index": 0, "probs": [0.25, 0.75]}]})) as url:
        assert open_reward(f"{url}/classify#m").score([PROMPT], ["x"]).tolist() == [[0.25, 0.75]]


def test_classify_gets_the_dialogue_as_messages_and_asks_for_raw_logits() -> None:
    asked: list[dict[str, Any]] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(body)
        return 200, {"data": [{"index": 0, "probs": [float(len(body["messages"][-1]["content"]))]}]}

    with serving(reply) as url:
        answers = ["a" * size for size in range(1, 41)]
        found = open_reward(f"{url}/classify#m", batch_size=4).score([PROMPT] * 40, answers)
    assert found[:, 0].tolist() == [float(size) for size in range(1, 41)]
    assert all(body["messages"][:-1] == PROMPT and body["use_activation"] is False for body in asked)
    assert {body["chat_template_kwargs"]["date_string"] for body in asked} == {"26 Jul 2024"}
    assert {body["messages"][-1]["role"] for body in asked} == {"assistant"}


@pytest.mark.parametrize("route", ["score", "classify"])
def test_a_row_that_the_server_does_not_take_leaves_the_others_their_rewards(route: str) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        texts = body["text_2"] if route == "score" else [body["messages"][-1]["content"]]
        if any(len(text) > 50 for text in texts):
            return 400, {"error": {"message": "too long"}}
        return 200, {"data": [{"index": i, "score": 1.5, "probs": [1.5]} for i, _ in enumerate(texts)]}

    with serving(reply) as url:
        model = open_reward(f"{url}/{route}#m", batch_size=3)
        found = model.score([PROMPT] * 5, ["a", "b" * 60, "c", "d", "e"])
    assert found[:, 0].tolist() == pytest.approx([1.5, float("nan"), 1.5, 1.5, 1.5], nan_ok=True)
    faults = model.faults  # type: ignore[attr-defined]
    assert [fault and fault.rule for fault in faults] == [None, "reward_refused", None, None, None]


def test_a_server_that_takes_no_row_is_one_error() -> None:
    calls: list[int] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        calls.append(1)
        return 400, {}

    with serving(reply) as url, pytest.raises(ModelError, match="refused the first 20 rows with status 400"):
        open_reward(f"{url}/classify#m", batch_size=1).score([PROMPT] * 500, [f"x{n}" for n in range(500)])
    assert len(calls) < 30


def test_a_busy_server_is_asked_again() -> None:
    calls: list[int] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        calls.append(1)
        return (429, {}) if len(calls) == 1 else length_scores(body)

    with serving(reply) as url:
        assert open_reward(f"{url}/score#m").score([PROMPT], ["ab"]).tolist() == [[2.0]]


def test_a_value_that_is_no_number_is_missing() -> None:
    with serving(lambda body: (200, {"data": [{"score": None}]})) as url:
        assert np.isnan(open_reward(f"{url}/score#m").score([PROMPT], ["x"])).all()


def test_the_wrong_count_is_a_model_error() -> None:
    with serving(lambda body: (200, {"data": []})) as url, pytest.raises(ModelError, match="0 rows for 1"):
        open_reward(f"{url}/score#m").score([PROMPT], ["x"])


def test_something_else_than_json_rows_is_a_model_error() -> None:
    with serving(lambda body: (200, {"no": 1})) as url, pytest.raises(ModelError, match="no JSON with a list"):
        open_reward(f"{url}/score#m").score([PROMPT], ["x"])


def test_a_failing_server_is_asked_again() -> None:
    calls: list[int] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        calls.append(1)
        return (500, {}) if len(calls) == 1 else length_scores(body)

    with serving(reply) as url:
        assert open_reward(f"{url}/score#m").score([PROMPT], ["ab"]).tolist() == [[2.0]]
    assert len(calls) == 2


def test_a_refusing_server_is_not_asked_again() -> None:
    with serving(lambda body: (403, {})) as url, pytest.raises(ModelError, match="status 403"):
        open_reward(f"{url}/score#m").score([PROMPT], ["x"])


def test_an_address_without_a_model_is_an_input_error() -> None:
    with pytest.raises(InputError, match="expected http"):
        reward_fingerprint("http://host:1/score")


@contextmanager
def speaking(say: Callable[[BaseHTTPRequestHandler, list[str]], None]) -> Iterator[str]:
    """A server that says what it likes, byte by byte, to a request about these answers."""

    class Server(Handler):
        def post(self) -> None:
            body = self.body()
            say(self, body["text_2"] if "text_2" in body else [body["messages"][-1]["content"]])

    with listening(Server, waits=False) as url:
        yield f"{url}/v1"


def whole(to: BaseHTTPRequestHandler, content: bytes, *, status: int = 200, **headers: str) -> None:
    to.send_response(status)
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), value)
    to.send_header("Content-Length", str(len(content)))
    to.end_headers()
    to.wfile.write(content)


def scores(to: BaseHTTPRequestHandler, answers: list[str]) -> None:
    data = [{"index": n, "score": len(text), "probs": [len(text)]} for n, text in enumerate(answers)]
    whole(to, json.dumps({"data": data}).encode())


def html(to: BaseHTTPRequestHandler) -> None:
    whole(to, b"<html><body>Bad gateway</body></html>")


def half(to: BaseHTTPRequestHandler) -> None:
    whole(to, b'{"data": [{"index": 0, "sco')


def cut(to: BaseHTTPRequestHandler) -> None:
    to.send_response(200)
    to.send_header("Content-Length", "100")
    to.end_headers()
    to.wfile.write(b'{"data": [')


def reset(to: BaseHTTPRequestHandler) -> None:
    to.connection.close()


def trickle(to: BaseHTTPRequestHandler) -> None:
    to.send_response(200)
    to.end_headers()
    with suppress(OSError):  # until nobody listens any more
        while True:
            to.wfile.write(b" ")
            to.wfile.flush()
            time.sleep(0.05)


def too_many(to: BaseHTTPRequestHandler) -> None:
    whole(to, b'{"data": [{"score": 1}, {"score": 2}, {"score": 3}, {"score": 4}]}')


def broken(to: BaseHTTPRequestHandler) -> None:
    whole(to, b"", status=500)


@pytest.mark.parametrize("route", ["score", "classify"])
@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        (html, "broken_reply"),
        (half, "broken_reply"),
        (cut, "broken_reply"),
        (too_many, "broken_reply"),
        (reset, "connection_lost"),
        (broken, "server_error"),
    ],
)
def test_a_row_that_the_server_fails_on_leaves_the_others_their_rewards(
    route: str, fault: Callable[[BaseHTTPRequestHandler], None], rule: str
) -> None:
    def say(to: BaseHTTPRequestHandler, answers: list[str]) -> None:
        return fault(to) if "bad" in answers else scores(to, answers)

    with speaking(say) as url:
        model = open_reward(f"{url}/{route}#m", batch_size=3, retries=1)
        found = model.score([PROMPT] * 5, ["a", "bad", "cc", "d", "eeee"])
    assert found[:, 0].tolist() == pytest.approx([1.0, float("nan"), 2.0, 1.0, 4.0], nan_ok=True)
    faults = model.faults  # type: ignore[attr-defined]
    assert [one and one.rule for one in faults] == [None, rule, None, None, None]


def test_a_time_out_is_for_the_whole_reply() -> None:
    with (
        speaking(lambda to, answers: trickle(to)) as url,
        pytest.raises(ModelError, match=r"sent no answer within 0\.5 s"),
    ):
        open_reward(f"{url}/score#m", timeout=0.5, retries=0).score([PROMPT], ["x"])


def test_a_server_that_fails_on_row_after_row_is_one_error() -> None:
    asked: list[str] = []

    def say(to: BaseHTTPRequestHandler, answers: list[str]) -> None:
        asked.extend(answers)
        return scores(to, answers) if len(asked) < 3 else html(to)

    with speaking(say) as url, pytest.raises(ModelError, match="sent no JSON with a list"):
        open_reward(f"{url}/classify#m", batch_size=1, retries=0).score(
            [PROMPT] * 100, [f"a{n}" for n in range(100)]
        )
    assert len(asked) == 2 + 3


def test_a_server_is_left_alone_for_as_long_as_it_asks_for() -> None:
    times: list[float] = []

    def say(to: BaseHTTPRequestHandler, answers: list[str]) -> None:
        times.append(time.monotonic())
        return scores(to, answers) if len(times) > 1 else whole(to, b"", status=429, Retry_After="1")

    with speaking(say) as url:
        assert open_reward(f"{url}/score#m").score([PROMPT], ["ab"]).tolist() == [[2.0]]
    assert times[1] - times[0] > 0.9


def test_rows_that_their_index_does_not_tell_apart_are_asked_about_alone() -> None:
    def say(to: BaseHTTPRequestHandler, answers: list[str]) -> None:
        data = [{"index": 0, "score": len(text)} for text in answers]
        whole(to, json.dumps({"data": data[::-1]}).encode())

    with speaking(say) as url:
        found = open_reward(f"{url}/score#m").score([PROMPT] * 3, ["a", "bb", "ccc"])
    assert found[:, 0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("given", ["1" + "0" * 400, "0.5", '{"a": 1}', '"x"', "null", "[]", "[null]", "[true]"])
def test_values_that_are_no_numbers_are_missing(given: str) -> None:
    content = f'{{"data": [{{"score": {given}, "probs": {given}}}]}}'.encode()
    with speaking(lambda to, answers: whole(to, content)) as url:
        assert np.isnan(open_reward(f"{url}/classify#m").score([PROMPT], ["x"])).all()
        if given != "0.5":
            assert np.isnan(open_reward(f"{url}/score#m").score([PROMPT], ["x"])).all()


def test_a_key_is_not_carried_to_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-others")
    carried: list[str | None] = []

    class Other(Handler):
        def get(self) -> None:
            carried.append(self.headers.get("Authorization"))
            whole(self, b"{}")

    with (
        listening(Other) as other,
        speaking(lambda to, answers: whole(to, b"", status=302, Location=f"{other}/score")) as url,
        pytest.raises(ModelError),
    ):
        open_reward(f"{url}/score#m", retries=0).score([PROMPT], ["x"])
    assert carried == [None]


def test_a_server_that_gives_more_values_for_some_answers_breaks_off() -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        size = len(body["messages"][-1]["content"])
        return 200, {"data": [{"index": 0, "probs": [float(size)] * size}]}

    with serving(reply) as url, pytest.raises(ModelError, match="gave 1 and 2 values for an answer"):
        open_reward(f"{url}/classify#m").score([PROMPT] * 2, ["x", "xx"])


def test_a_server_that_gives_no_value_has_a_missing_one() -> None:
    with serving(lambda body: (200, {"data": [{"index": 0, "probs": []}]})) as url:
        found = open_reward(f"{url}/classify#m").score([PROMPT] * 2, ["x", "xx"])
    assert found.shape == (2, 1)
    assert np.isnan(found).all()
