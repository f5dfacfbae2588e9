"""What a MODEL says of a judge: the chat model, its rubrics and scale, how it is asked. Nobody is asked here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from curation.errors import InputError
from curation.models.chat import ChatOptions, backend_of, is_address
from curation.models.chat.asking import Asking, read_asking, split_options
from curation.models.chat.opening import BACKENDS
from curation.models.rewards.judge_parsing import RUBRICS

__all__ = ["JudgeAddress", "check_pair_judge", "judge_address"]

_REPLY_TOKENS: Final = 32
_TOP_LOGPROBS: Final = 20
_OWN_OPTIONS: Final = ("rubric", "backend", "low", "high")


class JudgeAddress(NamedTuple):
    """A judge, as it was named."""

    model: str
    backend: str
    rubrics: tuple[str, ...]
    low: int
    high: int
    asking: Asking

    def options(self, schema: Mapping[str, Any]) -> ChatOptions:
        """Structured outputs and log-probabilities, but for transformers, which has neither."""
        in_transformers = backend_of(self.model, self.backend) == "transformers"
        return self.asking.chat_options(None if in_transformers else schema, top_logprobs=_TOP_LOGPROBS)


def judge_address(model: str) -> JudgeAddress:
    """Read ``judge:<MODEL of a chat model>?rubric=…``; see ``judge``.

    Raises:
        InputError: for a model that is none, an unknown rubric or backend, or an empty scale.
    """
    expected = "expected judge:http://host:port/v1#model or judge:MODEL, then ?rubric=helpfulness&low=1&high=5"
    try:
        rest, options = split_options(model.removeprefix("judge:"))
        asking = read_asking(options, max_new_tokens=_REPLY_TOKENS, others=_OWN_OPTIONS)
    except InputError as error:
        raise InputError(f"judge {model!r}: {error}; {expected}") from None
    rubrics = tuple(options.get("rubric", "helpfulness").split(","))
    backend = options.get("backend", "auto")
    try:
        low, high = int(options.get("low", "1")), int(options.get("high", "5"))
    except ValueError:
        raise InputError(f"judge {model!r}: low and high are whole numbers; {expected}") from None
    unknown = [rubric for rubric in rubrics if rubric not in RUBRICS]
    fault = None
    if not rest or (is_address(rest) and not rest.partition("#")[2]):
        fault = "no model, or no name behind the address"
    elif unknown:
        fault = f"rubric {unknown[0]!r} is not known ({', '.join(RUBRICS)})"
    elif backend not in BACKENDS:
        fault = f"backend {backend!r} is not known ({', '.join(BACKENDS)})"
    elif not 0 <= low < high:
        fault = f"the scale {low} to {high} is empty or negative"
    if fault:
        raise InputError(f"judge {model!r}: {fault}; {expected}")
    return JudgeAddress(rest, backend, rubrics, low, high, asking)


def check_pair_judge(model: str) -> None:
    """Whether a MODEL is a judge that can compare pairs: with one rubric, and without a scale.

    Raises:
        InputError: when it is not.
    """
    if not model.startswith("judge:"):
        raise InputError(f"model {model!r} is no judge: expected judge:http://host:port/v1#model or judge:MODEL")
    rubrics = judge_address(model).rubrics
    if len(rubrics) != 1:
        raise InputError(f"a comparison goes by one rubric, found {', '.join(rubrics)}")
    scale = [name for name in ("low", "high") if name in split_options(model)[1]]
    if scale:
        raise InputError(
            f"judge {model!r}: {' and '.join(scale)} mean nothing where pairs are compared: no answer is graded; "
            f"leave the scale out, or grade single answers with it, as a reward model"
        )
