"""Answers of a few words that do not refuse for sure: only the request could tell. No model.

Words alone say little about them, and a model of words says it with too much confidence.
"""

from __future__ import annotations

import re
from typing import Final

from curation.refusals.lexical import Reading

__all__ = ["says_little"]

_WORDS: Final = 3
_CHARACTERS: Final = 60
_MORE_WORDS: Final = 10
_MORE_CHARACTERS: Final = 120
_SENTENCES: Final = 3
_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_SPEAKS: Final = re.compile(
    r"(?:i|me|my|mine|we|us|our)(?:'.*)?|sorry|apolog.*|refus.*|declin.*|won't|unable|comment|idea"
    r"|siento|lamento|désolée?|desculpe|leider"
)
_CAN_NOT: Final = frozenset({"cannot", "can't"})
_ENGLISH: Final = re.compile(r"\b(?:the|and|you|your|that|this|it|it's|they|their|are|with|he|she)\b")
"""In other languages who speaks, and what may refuse, is not known here."""
_OPINION: Final = re.compile(
    r"(?:(?:no|yes|well|hmm),? )?(?:"
    r"i (?:really )?(?:think|believe|suppose|guess|hope|expect) (?:so|not)"
    r"|i (?:do not|don't) (?:really )?(?:think|believe) so"
    r"|i (?:dis)?agree|i (?:do not|don't) agree|i doubt (?:it|that)|i'm afraid (?:so|not)"
    r")[.!]*"
)
"""Whole answers that say yes or no, or think so."""
_MAY_REFUSE: Final = re.compile(
    r"\?|\b(?:"
    r"nope|nah|not (?:doing|going|happening|gonna)|no way|end of|over|never|don't|do not|should\w*|stop|else\w*"
    r"|(?:absolutely|certainly|definitely) not|not (?:for|something)|will not|let's|leave (?:it|that|this)|a line"
    r"|off the table|out of luck|on your own|hurt\w*|cruel|evil|respectful|ai|bot|chat\w*|assistant"
    r"|private|personal|confidential|classified|restricted|secret|sensitive|illegal|unlawful|legal|law|crim\w*"
    r"|wrong|bad|harm\w*|dangerous|unsafe|safe|unethical|ethic\w*|moral\w*|(?:in)?appropriate|offensive"
    r"|polic\w*|rules?|guidelines?|permitted|allow\w*|prohibited|forbidden|banned|block\w*|filter\w*"
    r"|request\w*|assist\w*|help\w*|answer\w*|respon\w*|repl\w*|provid\w*|shar\w*|compl(?:y|ies)"
    r"|content|subject|topic|discuss\w*|conversation|question|information|seek|contact|consult|talk|ask"
    r")\b"
)
"""What may refuse although no phrase of the lexicon does: such an answer is left to the model."""


def says_little(reading: Reading, *, declines: bool, refuses: bool) -> bool:
    """Whether an answer is short, nobody speaks in it, and it declines in no known way, or it only says yes or no.

    "No." and "Not toxic"; "You can't divide by zero."; "I think not."

    Args:
        reading: the answer.
        declines: it has a phrase of the lexicon that declines.
        refuses: it has one that declines, or speaks of rules or morals, or contradicts.
    """
    text = " ".join(reading.sentences)
    if not reading.mostly_latin or len(reading.sentences) > _SENTENCES or len(text) > _MORE_CHARACTERS:
        return False
    words = _WORD.findall(text)
    if any(_SPEAKS.fullmatch(word) for word in words):
        return _OPINION.fullmatch(text) is not None
    if len(words) <= _WORDS and len(text) <= _CHARACTERS:
        return not declines and _CAN_NOT.isdisjoint(words)
    may = refuses or _MAY_REFUSE.search(text) is not None
    return len(words) <= _MORE_WORDS and not may and _ENGLISH.search(text) is not None
