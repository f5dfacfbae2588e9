"""An LLM as a judge behind any OpenAI-compatible server (vLLM's own, for one).

A MODEL is ``judge:<base url>#<model>?rubric=helpfulness``. Grades are the expectation over the score
tokens' probabilities where the server gives log-probabilities, else the parsed grade. Prompts and
arithmetic are in ``judge_parsing``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, MissingExtraError, ModelError
from curation.models.rewards.judge_parsing import (
    RUBRICS,
    PairVerdict,
    combine_orders,
    expected_score,
    pair_messages,
    parse_choice,
    parse_score,
    score_messages,
    score_schema,
)
from curation.text import Message, content_hash

__all__ = ["Judge", "judge_fingerprint", "open_judge"]

FloatArray = npt.NDArray[np.float64]
_VERSION: Final = 1


class _Address(NamedTuple):
    url: str
    name: str
    rubrics: tuple[str, ...]


def judge_fingerprint(
    model: str, *, low: int = 1, high: int = 5, device: str | None = None, timeout: float = 120.0, retries: int = 2
) -> str:
    """The judge's name at its address, the rubrics and the scale."""
    url, name, rubrics = _address(model)
    return f"judge:{name}@{content_hash(url)[:8]}/{'+'.join(rubrics)}/{low}-{high}/v{_VERSION}"


def open_judge(
    model: str, *, low: int = 1, high: int = 5, device: str | None = None, timeout: float = 120.0, retries: int = 2
) -> Judge:
    """A judge that answers over HTTP; the key is read from OPENAI_API_KEY.

    Args:
        model: ``judge:<base url>#<model>``, and ``?rubric=`` with one or more of ``RUBRICS``, by commas.
        low, high: the scale.
        timeout: seconds for one reply.
        retries: how often a failed call is repeated.

    Raises:
        InputError: for an address without a model, or an unknown rubric.
        MissingExtraError: when ``openai`` is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise MissingExtraError("openai", "openai") from error
    url, name, rubrics = _address(model)
    key = os.environ.get("OPENAI_API_KEY", "none")
    client = openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries)
    return Judge(
        client, name, rubrics, fingerprint=judge_fingerprint(model, low=low, high=high), low=low, high=high
    )


class Judge:
    """A judge; see ``curation.models.protocols.RewardModel``. One output a rubric."""

    def __init__(
        self, client: Any, name: str, rubrics: Sequence[str], *, fingerprint: str, low: int, high: int
    ) -> None:
        self._client, self._name = client, name
        self.low, self.high = low, high
        self.outputs = tuple(rubrics)
        self.fingerprint = fingerprint

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, rubrics) grades; NaN where the reply cannot be read or is off the scale.

        Raises:
            ModelError: when the server cannot be reached or refuses.
        """
        grades = np.full((len(responses), len(self.outputs)), np.nan)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            for column, rubric in enumerate(self.outputs):
                grade = self._grade(prompt, response, rubric)
                grades[row, column] = np.nan if grade is None else grade
        return grades

    def compare(
        self, prompt: Sequence[Message], first: str, second: str, *, rubric: str = "helpfulness", delta: float = 0.0
    ) -> PairVerdict | None:
        """Both orders of one comparison; None where a reply cannot be read."""
        one = self._choice(pair_messages(prompt, first, second, rubric=rubric))
        two = self._choice(pair_messages(prompt, second, first, rubric=rubric))
        return None if one is None or two is None else combine_orders(one, two, delta=delta)

    def _grade(self, prompt: Sequence[Message], response: str, rubric: str) -> float | None:
        messages = score_messages(prompt, response, rubric=rubric, low=self.low, high=self.high)
        choice = self._ask(messages, {"name": "grade", "schema": score_schema(self.low, self.high), "strict": True})
        parsed = parse_score(choice.message.content or "", low=self.low, high=self.high)
        if parsed is None:
            return None
        scores = {int(token): p for token, p in _value_tokens(choice, str(parsed)).items() if token.isdigit()}
        return expected_score(scores, low=self.low, high=self.high) or float(parsed)

    def _choice(self, messages: list[Message]) -> dict[str, float] | None:
        schema = {
            "type": "object",
            "properties": {"better": {"type": "string", "enum": ["A", "B", "C"]}},
            "required": ["better"],
            "additionalProperties": False,
        }
        choice = self._ask(messages, {"name": "verdict", "schema": schema, "strict": True})
        parsed = parse_choice(choice.message.content or "")
        if parsed is None:
            return None
        found = {token: p for token, p in _value_tokens(choice, parsed).items() if token in ("A", "B", "C")}
        total = sum(found.values())
        return {token: p / total for token, p in found.items()} if total > 0 else {parsed: 1.0}

    def _ask(self, messages: list[Message], schema: dict[str, Any]) -> Any:
        import openai

        try:
            reply = self._client.chat.completions.create(
                model=self._name,
                messages=messages,
                temperature=0.0,
                seed=0,
                max_tokens=32,
                logprobs=True,
                top_logprobs=20,
                response_format={"type": "json_schema", "json_schema": schema},
            )
        except openai.APIError as error:
            raise ModelError(f"judge {self._name!r} did not answer: {type(error).__name__}") from error
        if not reply.choices:
            raise ModelError(f"judge {self._name!r} sent a reply without choices")
        return reply.choices[0]


def _value_tokens(choice: Any, value: str) -> dict[str, float]:
    """The probabilities at the token that wrote the value: token text (bare of quotes and spaces) to p."""
    content = choice.logprobs.content if choice.logprobs else None
    for token in reversed(content or []):
        if token.token.strip(' "') == value:
            found: dict[str, float] = {}
            for other in token.top_logprobs or [token]:
                text = other.token.strip(' "')
                found[text] = found.get(text, 0.0) + math.exp(other.logprob)
            return found
    return {}


def _address(model: str) -> _Address:
    rest, _, query = model.removeprefix("judge:").partition("?")
    url, _, name = rest.partition("#")
    rubrics = tuple(parse_qs(query).get("rubric", ["helpfulness"])[0].split(","))
    unknown = [rubric for rubric in rubrics if rubric not in RUBRICS]
    if not url.startswith(("http://", "https://")) or not name or unknown:
        what = (
            f"rubric {unknown[0]!r} is not known ({', '.join(RUBRICS)})" if unknown else "no URL or no model name"
        )
        raise InputError(f"judge {model!r}: {what}; expected judge:http://host:port/v1#model?rubric=helpfulness")
    return _Address(url, name, rubrics)
