"""How texts are shown to a judge and how its reply is taken apart, whatever it judges. No model is called here.

A text stands between two lines with a marker that is a hash of all texts of the request and is in none of them: who
writes a text cannot know its marker, so no text can close its own block, and the same texts are always asked about
in the same words. What the questions are and what a field means is in ``refusal_judge`` and ``rewards``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol

from curation.errors import ModelError
from curation.models.chat.protocol import ChatAnswer
from curation.text import content_hash

__all__ = [
    "CHARACTERS_READ",
    "CutReplies",
    "Read",
    "ReadBefore",
    "block",
    "both_ends",
    "marker",
    "read_elsewhere",
    "reading",
    "reply_object",
    "was_cut",
    "without_thought",
]

_FENCE: Final = re.compile(r"^```(?:json)?\s*|\s*```$")
_THOUGHT_ENDS: Final = "</think>"
_LENGTH: Final = 16
_CUT_BEFORE_STOP: Final = 20
_READ: Final[ContextVar[Read | None]] = ContextVar("read", default=None)
_HEAD: Final = 6_000
_TAIL: Final = 2_000
CHARACTERS_READ: Final = _HEAD + _TAIL
"""Of a longer text, both ends."""


def marker(*texts: str) -> str:
    """A word that is in none of the texts, and is the same whenever the texts are."""
    mark = content_hash("marker", *texts)[:_LENGTH]
    while any(mark in text for text in texts):
        mark = content_hash("marker", mark, *texts)[:_LENGTH]
    return mark


def block(mark: str, title: str, text: str) -> str:
    """A text between its two lines."""
    return f"[{mark} {title} BEGINS]\n{text}\n[{mark} {title} ENDS]"


def both_ends(text: str) -> str:
    """A text, or of a long one the beginning and the end."""
    return text if len(text) <= CHARACTERS_READ else f"{text[:_HEAD]}\n[…]\n{text[-_TAIL:]}"


def reply_object(text: str) -> Mapping[str, Any] | None:
    """The one JSON object that a reply consists of; None for anything else.

    A code fence around it is taken off. A reply that is nested too deeply, has a number that Python does not
    read, or names a key twice (of two verdicts neither is the judge's) is no object either.
    """
    try:
        value = json.loads(_FENCE.sub("", text.strip()), object_pairs_hook=_once_each)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


class Read(Protocol):
    """Whether a judge's replies could be read elsewhere: in an earlier run, or by other workers of this one."""

    def could_be(self, judge: str) -> bool:
        """Whether any could."""
        ...

    def can_be(self, judge: str) -> None:
        """One could, here."""
        ...


class ReadBefore(NamedTuple):
    """See :class:`Read`: of judges that nobody else asks."""

    known: bool

    def could_be(self, judge: str) -> bool:
        return self.known

    def can_be(self, judge: str) -> None:
        """Nobody else needs to know."""


@contextmanager
def reading(read: Read) -> Iterator[None]:
    """Judges that are opened in this block ask ``read`` what others know: see ``CutReplies``."""
    before = _READ.set(read)
    try:
        yield
    finally:
        _READ.reset(before)


def read_elsewhere() -> Read:
    """Who knows of replies that could be read elsewhere."""
    return _READ.get() or ReadBefore(known=False)


class CutReplies:
    """Ends the work of a judge whose first replies are all cut off: the rest would be paid for, and say no more.

    Other replies that cannot be read end nothing: a judge may decline to look at one text, and not at the next. Nor
    does one that was read before: what is left to ask may be just those replies that were cut.
    """

    def __init__(self, judge: str = "") -> None:
        """
        Args:
            judge: tells those apart that work in one step.
        """
        self._judge, self._cut, self._any = judge, 0, False
        self._elsewhere = read_elsewhere()

    def saw(self, answer: ChatAnswer, *, read: bool) -> None:
        """Count a reply.

        Raises:
            ModelError: when so many were cut, and none could be read.
        """
        if read and not self._any:
            self._any = True
            self._elsewhere.can_be(self._judge)
        self._cut += not read and answer.finish_reason == "length"
        if self._any or self._cut < _CUT_BEFORE_STOP:
            return
        self._any = self._elsewhere.could_be(self._judge)
        if not self._any:
            raise ModelError(
                f"the judge's first {self._cut} replies were cut after {answer.completion_tokens:,} tokens, and "
                f"none could be read: raise max_new_tokens, which a model that reasons uses up before it writes"
            )


def without_thought(answer: ChatAnswer) -> ChatAnswer:
    """A reply without its reasoning, and without that reasoning's tokens.

    A server may leave reasoning in the text. vLLM lists its tokens even where it sets the text apart.
    """
    text = answer.text.rpartition(_THOUGHT_ENDS)[2]
    if text == answer.text and not answer.reasoning:
        return answer
    begins = "".join(token.token for token in answer.tokens).rfind(text.strip())
    ends, kept = 0, []
    for token in answer.tokens:
        ends += len(token.token)
        kept += [token] if begins >= 0 and ends > begins else []
    return answer._replace(text=text, tokens=tuple(kept))


def was_cut(answer: ChatAnswer) -> str:
    """What to add to the reason of a reply that cannot be read: that it was cut, where it was."""
    if answer.finish_reason != "length":
        return ""
    return f"; it was cut after {answer.completion_tokens:,} tokens: raise max_new_tokens"
