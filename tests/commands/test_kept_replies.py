"""Paid replies outlive a command on a file that breaks off, and are not asked for twice."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.commands.kept_replies import kept_replies
from curation.models.chat import ChatAnswer, ChatOptions, ChatReply, ChatRequest, TokenProbabilities, open_chat
from curation.models.chat.kept import KeptChat
from curation.models.kept import keeper
from tests.child_processes import HEARS_CTRL_C, started
from tests.models.rewards.test_judge import completion, serving

ROWS = 6
PROBABLE = {"A": 0.7, "B": 0.2, "C": 0.1, "3": 0.6, "4": 0.4}
REPLY = {"judge": '{"better": "A"}', "rewards": '{"score": 3}', "refusals": '{"verdict": "A", "kind": null}'}
ASKED = {"judge": 2 * ROWS, "rewards": 2 * ROWS, "refusals": ROWS}


class Far:
    """A server that takes the key away after so many replies, until it is given back."""

    def __init__(self, command: str, replies: int) -> None:
        self.reply, self.left, self.asked, self.lock = REPLY[command], replies, list[str](), threading.Lock()

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            if self.left <= 0:
                return 401, {"error": {"message": "the key is not valid", "type": "x", "code": 401}}
            self.left -= 1
            self.asked.append(body["messages"][-1]["content"])
        return 200, completion(self.reply, PROBABLE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Question {n}?", "chosen": f"good {n}", "rejected": f"poor {n}"} for n in range(ROWS)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"prompt": row["prompt"], "response": row["chosen"]} for row in rows]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    return path


def arguments(command: str, folder: Path, url: str, out: str) -> list[str]:
    file = str(folder / ("answers.jsonl" if command == "refusals" else "in.jsonl"))
    judge = (
        ["--judge", f"{url}#m", "--taxonomy", "none"] if command == "refusals" else ["--model", f"judge:{url}#m"]
    )
    return [command, file, "-o", str(folder / out), *judge]


@pytest.mark.parametrize("command", ["judge", "rewards", "refusals"])
def test_the_same_command_goes_on_from_the_replies_of_one_that_broke_off(command: str, file: Path) -> None:
    far = Far(command, 4)
    replies = file.parent / "out.jsonl.replies"
    with serving(far) as url:
        broken = CliRunner().invoke(app, arguments(command, file.parent, url, "out.jsonl"))
        assert broken.exit_code != 0
        assert not (file.parent / "out.jsonl").exists()
        assert f"4 replies of the server are kept in {replies}" in broken.stderr.replace("\n", "")
        assert "Question" not in replies.read_text()
        far.left = 100
        whole = CliRunner().invoke(app, arguments(command, file.parent, url, "out.jsonl"))
        assert whole.exit_code == 0, whole.output
        assert len(far.asked) == len(set(far.asked)) == ASKED[command]
        assert not replies.exists()
        plain = CliRunner().invoke(app, arguments(command, file.parent, url, "plain.jsonl"))
        assert plain.exit_code == 0
    assert (file.parent / "out.jsonl").read_bytes() == (file.parent / "plain.jsonl").read_bytes()
    assert not list(file.parent.glob("*.replies"))


def test_replies_of_another_model_stay_where_a_command_did_not_ask_for_them(file: Path) -> None:
    far = Far("judge", 4)
    replies = file.parent / "out.jsonl.replies"
    with serving(far) as url:
        CliRunner().invoke(app, arguments("judge", file.parent, url, "out.jsonl"))
        far.left = 100
        other = CliRunner().invoke(
            app, ["judge", str(file), "-o", str(file.parent / "out.jsonl"), "--model", f"judge:{url}#other"]
        )
        assert other.exit_code == 0
        assert "4 replies in" in other.stderr
        assert replies.exists()
        before = len(far.asked)
        same = CliRunner().invoke(app, arguments("judge", file.parent, url, "out.jsonl"))
        assert same.exit_code == 0
    assert len(far.asked) - before == ASKED["judge"] - 4


def test_a_model_that_breaks_off_beside_another_keeps_its_replies(file: Path) -> None:
    far = Far("rewards", 5)
    with serving(far) as url:
        both = [*arguments("rewards", file.parent, url, "out.jsonl"), "--model", "embedded"]
        assert CliRunner().invoke(app, both).exit_code == 1
        far.left = 100
        assert CliRunner().invoke(app, both).exit_code == 0
    assert len(far.asked) == len(set(far.asked)) == ASKED["rewards"]
    assert pl.read_ndjson(file.parent / "out.jsonl")["chosen_rewards"].list.len().unique().to_list() == [6]


def _until_kept(replies: Path, count: int) -> None:
    until = time.monotonic() + 300
    while not (replies.exists() and replies.read_bytes().count(b"\n") >= count) and time.monotonic() < until:
        time.sleep(0.05)


def test_replies_outlive_a_kill(file: Path) -> None:
    far, blocked, killed = Far("judge", 5), threading.Event(), threading.Event()

    def slow(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not killed.is_set():
            status, answer = far(body)
            if status == 200:
                return status, answer
            blocked.wait(600)
            return 500, {}
        return far(body)

    replies = file.parent / "out.parquet.replies"
    with serving(slow, in_turn=False) as url:
        command = [sys.executable, "-m", "curation.cli", *arguments("judge", file.parent, url, "out.parquet")]
        with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            _until_kept(replies, 5)  # and then it is killed
        kept = replies.read_bytes().count(b"\n")
        far.left, far.asked = 100, []
        killed.set()
        again = CliRunner().invoke(app, arguments("judge", file.parent, url, "out.parquet"))
        blocked.set()
    assert kept == 5
    assert again.exit_code == 0
    assert f"{kept} replies are in" in again.stderr
    assert pl.read_parquet(file.parent / "out.parquet").height == ROWS
    assert not replies.exists()
    assert len(far.asked) == ASKED["judge"] - kept


def test_a_reply_comes_back_as_it_was_and_only_to_its_own_request(tmp_path: Path) -> None:
    tokens = (TokenProbabilities("A", (("A", -0.1), ("\u2028", -math.inf))),)
    answer = ChatAnswer("A\n\u2028é", "stop", 3, 1, reasoning=None, tokens=tokens)

    class Once:
        fingerprint = "m"

        def __init__(self) -> None:
            self.asked: list[str] = []

        def chat(self, requests: Any) -> Iterator[ChatReply]:
            for request in requests:
                self.asked.append(request.key)
                yield ChatReply(request.key, answer)

    def ask(inner: Once, texts: list[str], wrapped: Callable[[Any], Any]) -> dict[str, Any]:
        made = [ChatRequest(str(n), ({"role": "user", "content": text},)) for n, text in enumerate(texts)]
        return {reply.key: reply.answer for reply in wrapped(inner).chat(iter(made))}

    first, second = Once(), Once()

    def broken_off() -> None:
        with kept_replies(tmp_path / "out.jsonl"):
            assert ask(first, ["a", "b"], _wrapped) == {"0": answer, "1": answer}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    with kept_replies(tmp_path / "out.jsonl"):
        assert ask(second, ["c", "b", "a", "b"], _wrapped) == dict.fromkeys("0123", answer)
    assert (first.asked, second.asked) == (["0", "1"], ["0"])


def _wrapped(chat: Any) -> Any:
    kept = keeper()
    assert kept is not None
    return KeptChat(chat, kept)


def test_a_model_in_the_process_is_not_kept(tmp_path: Path) -> None:
    with kept_replies(tmp_path / "out.jsonl"):
        model = open_chat("embedded", ChatOptions(max_new_tokens=2))
        list(model.chat([ChatRequest("0", ({"role": "user", "content": "hi"},))]))
    assert not list(tmp_path.iterdir())


class Scores:
    """A server of scores that takes so many rows, and then does ``after``. Its scores tell the answers apart."""

    def __init__(self, rows: int, after: Callable[[], tuple[int, dict[str, Any]]] = lambda: (401, {})) -> None:
        self.left, self.after, self.asked, self.lock = rows, after, list[str](), threading.Lock()

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        texts = [body["messages"][-1]["content"]] if "messages" in body else body["text_2"]
        with self.lock:
            ended = self.left < len(texts)
            if not ended:
                self.left -= len(texts)
                self.asked += texts
        if ended:
            return self.after()
        values = [float("nan") if text == "poor 0" else float(text[-1]) + 0.5 * ("good" in text) for text in texts]
        return 200, {"data": [{"index": n, "score": v, "probs": [v, 1.0]} for n, v in enumerate(values)]}


def scoring(folder: Path, url: str, route: str, name: str = "m") -> list[str]:
    return [
        "rewards",
        str(folder / "in.jsonl"),
        "-o",
        str(folder / "out.jsonl"),
        "--model",
        f"{url}/{route}#{name}",
    ]


@pytest.mark.parametrize("route", ["score", "classify"])
def test_scores_are_kept_and_the_same_command_goes_on_from_them(route: str, file: Path) -> None:
    # Answers of chosen are asked about first, in one request to /score, and one by one to /classify.
    far = Scores(ROWS)
    replies = file.parent / "out.jsonl.replies"
    with serving(far) as url:
        broken = CliRunner().invoke(app, scoring(file.parent, url, route))
        assert broken.exit_code == 1
        assert not (file.parent / "out.jsonl").exists()
        assert f"{ROWS} replies of the server are kept in {replies}" in broken.stderr.replace("\n", "")
        assert not any(word in replies.read_text() for word in ("Question", "good"))
        far.left = 3
        other = CliRunner().invoke(app, scoring(file.parent, url, route, name="other"))
        assert other.exit_code == 1
        far.left, far.asked = 100, far.asked[:ROWS]
        whole = CliRunner().invoke(app, scoring(file.parent, url, route))
    assert whole.exit_code == 0, whole.output
    assert len(far.asked) == len(set(far.asked)) == 2 * ROWS
    lines = (file.parent / "out.jsonl").read_text().splitlines()
    rewards = {
        row["prompt"]: [row[f"{side}_rewards"] for side in ("chosen", "rejected")] for row in map(json.loads, lines)
    }
    more = [] if route == "score" else [1.0]
    expected = {f"Question {n}?": [[n + 0.5, *more], [float(n), *more]] for n in range(ROWS)}
    expected["Question 0?"][1][0] = None  # type: ignore[call-overload]
    if route == "score":
        del expected["Question 0?"]  # its second answer has no reward at all
        rejects = pl.read_parquet(file.parent / "out.rejects.parquet")
        assert rejects.select("row", "rule").rows() == [(0, "no_reward")]
    assert rewards == expected


@pytest.mark.parametrize("route", ["score", "classify"])
def test_scores_outlive_a_kill(route: str, file: Path) -> None:
    blocked = threading.Event()

    def hangs() -> tuple[int, dict[str, Any]]:
        blocked.wait(600)
        return 500, {}

    far = Scores(ROWS + 2, hangs) if route == "classify" else Scores(ROWS, hangs)
    kept = far.left
    replies = file.parent / "out.jsonl.replies"
    with serving(far, in_turn=False) as url:
        command = [sys.executable, "-m", "curation.cli", *scoring(file.parent, url, route)]
        with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            _until_kept(replies, kept)  # and then it is killed
        with replies.open("ab") as torn:
            torn.write(b"0bad")
        far.left, far.after = 100, lambda: (401, {})
        again = CliRunner().invoke(app, scoring(file.parent, url, route))
        blocked.set()
    assert again.exit_code == 0, again.output
    assert f"{kept} replies are in" in again.stderr
    assert len(far.asked) == len(set(far.asked)) == 2 * ROWS
    assert not replies.exists()


def test_what_was_under_way_when_one_request_broke_the_rest_off_is_kept(file: Path) -> None:
    others = threading.Barrier(3)

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        number = int(body["messages"][-1]["content"][-1])
        if number < 3:
            others.wait(300)  # all three are there
            return (401, {}) if number == 0 else (200, {"data": [{"probs": [time.sleep(0.3) or 1.0]}]})
        raise AssertionError("a request after the key was refused")

    (file.parent / "in.jsonl").write_text("".join(
        json.dumps({"prompt": "Q?", "response": f"answer {n}"}) + "\n" for n in range(3)
    ))  # fmt: skip
    with serving(reply, in_turn=False) as url:
        assert CliRunner().invoke(app, scoring(file.parent, url, "classify")).exit_code == 1
    assert (file.parent / "out.jsonl.replies").read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("command", ["judge", "rewards", "refusals"])
def test_what_stands_twice_in_a_file_is_asked_once(
    command: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.commands.judge._CHUNK_ROWS", ROWS + 2)  # beside its double, and chunks later
    monkeypatch.setattr("curation.commands.rewards._CHUNK_ROWS", ROWS + 2)
    for name in ("in.jsonl", "answers.jsonl"):
        lines = (file.parent / name).read_text()
        (file.parent / name).write_text(lines[: lines.index("\n") + 1] + 2 * lines)
    far = Far(command, 100)
    with serving(far) as url:
        done = CliRunner().invoke(app, arguments(command, file.parent, url, "out.jsonl"))
    assert done.exit_code == 0, done.output
    assert len(far.asked) == len(set(far.asked)) == ASKED[command]
    found: dict[str, set[str]] = {}
    rows = (file.parent / "out.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        found.setdefault(row["prompt"], set()).add(json.dumps(row, sort_keys=True))
    assert len(rows) == 2 * ROWS + 1
    assert [len(same) for same in found.values()] == [1] * ROWS


@pytest.mark.parametrize("route", ["score", "classify"])
def test_a_reward_server_is_asked_once_for_what_stands_twice(route: str, file: Path) -> None:
    lines = file.read_text()
    file.write_text(2 * lines)
    far = Scores(100)
    with serving(far) as url:
        assert CliRunner().invoke(app, scoring(file.parent, url, route)).exit_code == 0
    assert len(far.asked) == len(set(far.asked)) == 2 * ROWS
    rewards = [
        (row["prompt"], row["chosen_rewards"][0], row["rejected_rewards"][0])
        for row in map(json.loads, (file.parent / "out.jsonl").read_text().splitlines())
    ]
    whole = range(1, ROWS) if route == "score" else range(ROWS)
    bad = [None if route == "classify" and not n else float(n) for n in whole]
    assert rewards == 2 * [(f"Question {n}?", n + 0.5, b) for n, b in zip(whole, bad, strict=True)]


def test_a_second_command_with_the_same_output_is_refused_before_it_asks(file: Path) -> None:
    far, begun, lock = Far("judge", 100), list[str](), threading.Lock()

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with lock:
            begun.append("a request")
            is_first = len(begun) == 1
        if is_first:
            second = subprocess.run(
                [sys.executable, "-m", "curation.cli", *arguments("judge", file.parent, url, "out.jsonl")],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            said.append((second.returncode, second.stderr))
        return far(body)

    said: list[tuple[int, str]] = []
    with serving(reply, in_turn=False) as url:
        first = CliRunner().invoke(app, arguments("judge", file.parent, url, "out.jsonl"))
    assert first.exit_code == 0, first.output
    ((status, words),) = said
    assert status == 1
    assert "another process keeps replies of a server in" in " ".join(words.split())
    assert "Traceback" not in words
    assert len(far.asked) == len(set(far.asked)) == ASKED["judge"]
    assert not list(file.parent.glob("*.replies*"))


def test_ctrl_c_waits_for_what_is_under_way_and_keeps_it(file: Path) -> None:
    far, told, begun = Far("judge", 100), threading.Event(), threading.Semaphore(0)

    def slow(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        begun.release()
        told.wait(600)
        return far(body)

    with serving(slow, in_turn=False) as url:
        script = f"{HEARS_CTRL_C}from curation import cli\ncli.main()"
        command = [sys.executable, "-c", script, *arguments("judge", file.parent, url, "out.jsonl")]
        with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for _ in range(ASKED["judge"]):
                assert begun.acquire(timeout=300)
            process.send_signal(signal.SIGINT)
            said = ""
            while "Ctrl-C again gives them up" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            told.set()
            said += process.communicate()[1]
            assert process.returncode == 130, said
        assert f"{ASKED['judge']} replies of the server are kept" in " ".join(said.split())
        assert CliRunner().invoke(app, arguments("judge", file.parent, url, "out.jsonl")).exit_code == 0
    assert len(far.asked) == ASKED["judge"]


def test_replies_that_others_wait_for_stay_alone(file: Path) -> None:
    far = Far("judge", 4)
    with serving(far) as url:
        CliRunner().invoke(app, arguments("judge", file.parent, url, "out.jsonl"))
        far.left = 100
        other = ["judge", str(file), "-o", str(file.parent / "out.jsonl"), "--model", f"judge:{url}#other"]
        assert CliRunner().invoke(app, other).exit_code == 0
        assert CliRunner().invoke(app, arguments("judge", file.parent, url, "out.jsonl")).exit_code == 0
    assert not (file.parent / "out.jsonl.replies").exists()
