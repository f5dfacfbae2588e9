"""An LLM as a judge: over any chat model, in this process or behind a server, with many requests at once.

A MODEL is ``judge:<MODEL of a chat model>?rubric=helpfulness``: ``judge:http://host:8000/v1#name``,
``judge:owner/name?backend=vllm``, ``judge:folder?rubric=honesty,harmlessness&low=1&high=10``; what else may stand
behind a judge's name is in ``curation.models.chat.asking``, and read in ``judge_address``. Grades are the
expectation over the score tokens' probabilities where the backend gives them, else the parsed grade. What is
asked and how a reply is read is in ``judge_parsing``; the expectation, in ``judge_grades``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.models.chat import (
    ChatAnswer,
    ChatModel,
    ChatRequest,
    Connection,
    chat_fingerprint,
    open_chat,
)
from curation.models.judging import CutReplies, was_cut, without_thought
from curation.models.protocols import Fault
from curation.models.rewards.judge_address import JudgeAddress, check_pair_judge, judge_address
from curation.models.rewards.judge_grades import expected_grade
from curation.models.rewards.judge_parsing import (
    PairVerdict,
    choice_schema,
    combine_orders,
    pair_messages,
    parse_choice,
    parse_score,
    score_fault,
    score_messages,
    score_schema,
)
from curation.text import Message

__all__ = ["Comparison", "Judge", "judge_fingerprint", "open_judge", "open_pair_judge"]

FloatArray = npt.NDArray[np.float64]
_VERSION: Final = 2
_LONG_SCALE_VERSION: Final = 3
"""Of scales that reach 10: their grades were no expectations before. The others' stay what they were."""


class Comparison(NamedTuple):
    """What became of one comparison in both orders."""

    verdict: PairVerdict | None
    """None where a reply cannot be read."""
    first: Mapping[str, float]
    """Probabilities of A, B and C with the answers in order; empty where that reply cannot be read."""
    swapped: Mapping[str, float]
    fault: Fault | None


def judge_fingerprint(model: str, *, device: str | None = None, timeout: float = 600.0, attempts: int = 8) -> str:
    """The chat model and its options, the rubrics and the scale."""
    address = judge_address(model)
    options = address.options(score_schema(address.low, address.high))
    chat = chat_fingerprint(address.model, options, backend=address.backend)
    version = _VERSION if address.high < 10 else _LONG_SCALE_VERSION
    return f"judge:{chat}/{'+'.join(address.rubrics)}/{address.low}-{address.high}/v{version}"


def open_judge(model: str, *, device: str | None = None, timeout: float = 600.0, attempts: int = 8) -> Judge:
    """A judge; a server's key is read from OPENAI_API_KEY, or from ``key_variable``.

    Args:
        model: see the module's text. ``rubric`` names one or more of ``RUBRICS``, by commas; ``low`` and
            ``high`` the scale; ``backend`` one of the chat models'.
        timeout: seconds for one reply of a server, asked up to ``attempts`` times.

    Raises:
        InputError: for a model that is none, an unknown rubric or backend, or an empty scale.
        MissingExtraError: when the backend's package is not installed.
        ModelError: when a model cannot be loaded. A server is first called when something is judged.
    """
    address = judge_address(model)
    connection = Connection(timeout=timeout, attempts=attempts, key_variable=address.asking.key_variable)
    return Judge(address, connection, fingerprint=judge_fingerprint(model))


def open_pair_judge(model: str) -> Judge:
    """A judge of pairs: it has one rubric, and no scale.

    Raises:
        InputError: for a MODEL that is no judge, one of several rubrics, or with a scale.
    """
    check_pair_judge(model)
    return open_judge(model)


class Judge:
    """A judge; see ``curation.models.protocols.RewardModel``. One output a rubric.

    Attributes:
        faults: for each row of the last ``score``, why a grade is missing, or None.
        expected, written: how many replies so far were read with their probabilities, and how many as written.
    """

    def __init__(self, address: JudgeAddress, connection: Connection, *, fingerprint: str) -> None:
        self._address, self._connection = address, connection
        self._models: dict[str, ChatModel] = {}
        self.low, self.high = address.low, address.high
        self.outputs = address.rubrics
        self.fingerprint = fingerprint
        self.faults: list[Fault | None] = []
        self.expected = self.written = 0
        self._cut = CutReplies()

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, rubrics) grades; NaN where the reply cannot be read, is off the scale, or did not come.

        Raises:
            ModelError: when no request can succeed, or the first replies are all cut.
        """
        return self.score_missing(prompts, responses, np.full((len(responses), len(self.outputs)), np.nan))

    def score_missing(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str], known: FloatArray
    ) -> FloatArray:
        """:meth:`score`, but for the grades that are known already: (n, rubrics), NaN for the rest."""
        grades = known.copy()
        self.faults = [None] * len(responses)

        def requests() -> Iterator[ChatRequest]:
            for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
                for column, rubric in enumerate(self.outputs):
                    if np.isnan(known[row, column]):
                        messages = score_messages(prompt, response, rubric=rubric, low=self.low, high=self.high)
                        yield ChatRequest(f"{row} {column}", tuple(messages))

        for key, answer in self._ask("score", requests()):
            row, column = map(int, key.split())
            grade = self._grade(answer)
            self._count(answer, grade)
            if isinstance(grade, Fault):
                self.faults[row] = grade
            else:
                grades[row, column] = grade
        return grades

    def compare(
        self,
        prompts: Sequence[Sequence[Message]],
        first: Sequence[str],
        second: Sequence[str],
        *,
        rubric: str = "helpfulness",
        delta: float = 0.0,
    ) -> list[Comparison]:
        """n comparisons, each asked in both orders; see ``combine_orders`` for ``delta``.

        Raises:
            InputError: for an unknown rubric.
            ModelError: when no request can succeed, or the first replies are all cut.
        """
        found: list[list[dict[str, float] | Fault]] = [[{}, {}] for _ in first]

        def requests() -> Iterator[ChatRequest]:
            for row, (prompt, one, two) in enumerate(zip(prompts, first, second, strict=True)):
                yield ChatRequest(f"{row} 0", tuple(pair_messages(prompt, one, two, rubric=rubric)))
                yield ChatRequest(f"{row} 1", tuple(pair_messages(prompt, two, one, rubric=rubric)))

        for key, answer in self._ask("compare", requests()):
            row, order = map(int, key.split())
            read, probable = _choice(answer)
            self._count(answer, read)
            found[row][order] = read
            if not isinstance(read, Fault):
                self.expected += probable
                self.written += not probable
        return [_comparison(one, two, delta) for one, two in found]

    def _count(self, answer: ChatAnswer | Fault, read: object) -> None:
        """A reply that came, and what was read in it."""
        if isinstance(answer, ChatAnswer):
            self._cut.saw(answer, read=not isinstance(read, Fault))

    def _grade(self, answer: ChatAnswer | Fault) -> float | Fault:
        if isinstance(answer, Fault):
            return answer
        answer = without_thought(answer)
        parsed = parse_score(answer.text, low=self.low, high=self.high)
        if parsed is None:
            fault = score_fault(answer.text, low=self.low, high=self.high)
            return fault._replace(reason=fault.reason + was_cut(answer))
        expected = expected_grade(answer.tokens, parsed, low=self.low, high=self.high)
        if expected is None:
            self.written += 1
            return float(parsed)
        self.expected += 1
        return expected

    @property
    def note(self) -> str:
        """What a reader of grades and verdicts must know; empty where all have probabilities behind them."""
        if not self.written:
            return ""
        apart = f" that tell the grades from {self.low} to {self.high} apart" if "score" in self._models else ""
        return (
            f"{self.written:,} of {self.written + self.expected:,} replies count as written, without expectation: "
            f"they had no token probabilities{apart}"
        )

    def _ask(self, kind: str, requests: Iterable[ChatRequest]) -> Iterator[tuple[str, ChatAnswer | Fault]]:
        if kind not in self._models:
            schema = choice_schema() if kind == "compare" else score_schema(self.low, self.high)
            address = self._address
            self._models[kind] = open_chat(
                address.model, address.options(schema), backend=address.backend, connection=self._connection
            )
        for reply in self._models[kind].chat(requests):
            yield reply.key, reply.answer


def _comparison(one: dict[str, float] | Fault, two: dict[str, float] | Fault, delta: float) -> Comparison:
    fault = next((found for found in (one, two) if isinstance(found, Fault)), None)
    first, swapped = ({} if isinstance(found, Fault) else found for found in (one, two))
    verdict = None if fault is not None else combine_orders(first, swapped, delta=delta)
    return Comparison(verdict, first, swapped, fault)


def _choice(answer: ChatAnswer | Fault) -> tuple[dict[str, float] | Fault, bool]:
    """The probabilities of A, B and C, and whether the reply came with some."""
    if isinstance(answer, Fault):
        return answer, False
    answer = without_thought(answer)
    parsed = parse_choice(answer.text)
    if parsed is None:
        said = f"the judge's reply names no better answer{was_cut(answer)}"
        return Fault("judge_unparsable", f"{len(answer.text)} characters", said), False
    found = {token: p for token, p in _value_tokens(answer, parsed).items() if token in ("A", "B", "C")}
    total = sum(found.values())
    return ({token: p / total for token, p in found.items()}, True) if total > 0 else ({parsed: 1.0}, False)


def _value_tokens(answer: ChatAnswer, value: str) -> dict[str, float]:
    """The probabilities at the token that wrote the value: token text (bare of quotes and spaces) to p."""
    for token in reversed(answer.tokens):
        if token.token.strip(' "') == value:
            found: dict[str, float] = {}
            for text, logp in token.alternatives:
                bare = text.strip(' "')
                found[bare] = found.get(bare, 0.0) + math.exp(logp)
            return found
    return {}
