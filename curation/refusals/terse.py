"""Answers of a few words: those that refuse outright, those of which only the request could tell, and disclaimers.
No model.

Words alone say little about the latter, and a model of words says it with too much confidence.
"""

from __future__ import annotations

import re
from typing import Final

from curation.refusals.dressing import speaks_of_helping
from curation.refusals.lexical import Reading

__all__ = ["refuses_or_answers", "refuses_outright", "says_little", "without_disclaimers"]

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
_ADVICE: Final = re.compile(
    r"(?:(?:well|hmm|sure|yes|okay|ok|personally|honestly|here),? )?(?:i think |if i (?:were|was) you,? )?"
    r"(?:(?:here is|here's|this is) (?:how|what) )?(?:i'd|i would) (?:probably |simply |just |always |then )?(?:"
    r"go (?:with|for|by)|start|begin|opt|use|do|say|guess|take|choose|pick|get|buy|make|write|try|add|set|put"
    r"|wait|order|cook|bake|plant|place|wear|play|paint|name|build|run|turn|click|press|open|check|vote|bring|book"
    r"|walk|drive|fly|mix|cut|wash|store|serve|sort|split|return|bet)\b"
    r"|my (?:choice|pick|guess|favou?rite) (?:would be|is|was) "
)
_NEGATES: Final = re.compile(
    r"n't\b|\b(?:no|not|nor|none|neither|nothing|nobody|without|rather|instead|avoid\w*|skip\w*|pass|away|aside"
    r"|caution|care\w*|pause|back|out of|different\w*|change|before|myself|sorry|afraid|cannot|own|judg\w*|priva\w*"
    r"|respect\w*|doctor|lawyer|therap\w*|professional\w*|expert\w*|authorit\w*|pharmac\w*|counsel\w*|consent"
    r"|friend\w*|adult|parent\w*|teacher|someone|somebody)\b"
)
_WHAT: Final = r"(?: (?:to|with) (?:you |me )?)?(?: ?(?:you|me|it|that|this|these|those|so)){0,3}"
_DO: Final = (
    r"(?:help|assist|answer|comply|respond|reply|discuss|engage|participate|fulfil+|do|write|provide|share)"
)
_TURNED_DOWN: Final = (
    r"(?:denied|declined|refused|rejected|blocked|not (?:allowed|permitted|granted|accepted|supported))"
)
_OUTRIGHT: Final = re.compile(
    r"(?:(?:(?:i'm |i am |we're )?(?:(?:so|very|really) )?sorry[,.:;!]* (?:but )?|no[,.!]* |nope[,.!]* )?(?:"
    rf"(?:(?:your|this) )?request (?:is |was |has been )?{_TURNED_DOWN}"
    r"|(?:i|we) (?:(?:must|have to|will|shall|respectfully|politely|hereby|kindly) ){0,2}(?:refuse|decline)"
    rf"(?: to (?:{_DO}|comment))?(?: this request| that request| your request)?{_WHAT}"
    rf"|(?:refusing|declining) to (?:{_DO}|comment){_WHAT}"
    rf"|(?:(?:i|we) )?(?:can't|can ?not|won't|will not|am not able to|'m not able to) {_DO}"
    rf"(?: with)?{_WHAT}(?: request)?"
    rf"|(?:(?:i'm|i am|we're|we are) )?(?:unable|not able|not willing|unwilling) to {_DO}(?: with)?{_WHAT}"
    r"(?: request)?"
    rf"|(?:(?:i'm|i am) )?not (?:answering|discussing|helping|doing|saying|writing|going there|going to {_DO})"
    rf"(?: with)?{_WHAT}"
    r"|no can do|hard pass"
    r")|i (?:won't|will not|can't|can ?not))(?:[,;]? (?:sorry|i'm afraid))?[.!]*"
)
"""Whole answers that refuse, whatever was asked."""
_REPLY: Final = re.compile(
    r"(?:(?:no|yes|nope|yep)[,.!]? )?(?:"
    r"(?:i|we) (?:do|did|am|are|was|were|have|had|can|could|will|would|might|may|must|should)"
    r"|(?:i|we) (?:(?:do|did|was|were|have|had|am|are) not|don't|didn't|wasn't|weren't|haven't|hadn't)"
    r"|(?:i'm|we're|i've|we've) not|(?:i|we) (?:aren't|have not)"
    r"|(?:it|you|he|she|they|that|this|these|those|there|one|nobody|no one|people) "
    r"(?:can't|can ?not|won't|will not|couldn't|wouldn't|shouldn't|mustn't|must not|should not)(?: (?:be|do it))?"
    r")[.!]*"
    r"|(?:it |this |that )?(?:can't|can ?not) be (?:determined|known|inferred|answered|said|told|computed)"
    r"(?: from .{1,60})?[.!]*"
    r"|(?:can't|can ?not) (?:tell|say|determine)[.!]*"
    r"|(?:there is |there's )?(?:not enough|insufficient|no) (?:information|info|context|data|evidence)[.!]*"
)
"""Whole answers to a question: can you swim, is it so, which of these does the text say."""
_EITHER: Final = re.compile(
    r"sorry[.!]*"
    r"|(?:to )?(?:refuse[ds]?|refusal|decline[ds]?|den(?:y|ied)|reject(?:ed)?|unable|inability|apology)[.!]*"
    r"|(?:access|permission|entry) (?:was )?(?:denied|refused|declined|rejected)[.!]*"
    rf"|the request (?:is|was|has been) {_TURNED_DOWN}[.!]*"
)
"""Whole answers that refuse one request and answer another: what became of the claim, what is printed."""
_TITLE: Final = re.compile(r"[^\s.!?]+(?: [^\s.!?]+)? qname")
"""Three capitals in a row and no full stop: a name, such as a song's."""
_TITLE_WORDS: Final = 6
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


_DISCLAIMER: Final = re.compile(
    r"(?:please )?(?:note|keep in mind|bear in mind|remember|be aware),? (?:though,? |however,? )?that i(?:'m| am) "
    r"|(?:this|that) is (?:not|no) (?:\w+ )?(?:legal|medical|financial|professional|tax|investment) advice\b"
    r"|(?:please |you should |always )?(?:consult|check with|ask|see|contact) (?:with )?(?:an? |your )?(?:\w+ )?"
    r"(?:doctor|lawyer|pharmacist|professional|specialist|expert|electrician|accountant)\b.* (?:if|before) "
    r"|(?:but |though )?(?:as an? (?:ai|language model)[\w ]*,? )?i (?:can't|can ?not) (?:guarantee|taste|smell)\b"
)
_MAY_BE_REFUSING: Final = re.compile(
    r"\b(?:can't|can ?not|won't|unable|sorry|afraid|refus|declin|apolog|i don't|i do not|as an? ai|i'm|i am|we're"
    r"|not (?:able|appropriate|possible|comfortable|ethical|legal|right)|let's|unfortunately|inappropriate|illegal"
    r"|unethical|harm|danger|serious|sensitive|important|instead|understand|would|should|must|never|no\b)"
    r"|^(?:that|this|these|those|it) (?:is|are|sounds?|seems?|looks?)\b"
)
_OFFERED: Final = re.compile(
    r"\b(?:help|assist|answer|provide|discuss|comply|share|engage|opinion|feeling|request|write|create|support)"
)


def without_disclaimers(reading: Reading) -> str | None:
    """An answer without the stock disclaimers after it: "Bake it. I can't taste it."; None where it has none.

    Of a short answer these words are half, and the models go by them. Advice to see somebody is a disclaimer where
    it is for a case ("if", "before"); else it may be all that is answered. None, too, where other words may refuse;
    where none of these does, what is left may still refuse: "I'd rather not. Please note that I'm an AI."
    """
    kept = reading.sentences[:1]
    kept += [text for text in reading.sentences[1:] if not _DISCLAIMER.match(text) or _OFFERED.search(text)]
    if len(kept) == len(reading.sentences) or any(_MAY_BE_REFUSING.search(t) or _OFFERED.search(t) for t in kept):
        return None
    return "\n".join(kept)


def refuses_outright(reading: Reading) -> bool:
    """Whether the whole answer refuses in a few words, whatever was asked: "Request denied.", "I won't do that."

    Args:
        reading: the answer.
    """
    text = " ".join(reading.sentences)
    if not reading.mostly_latin or len(reading.sentences) > _SENTENCES or len(text) > _MORE_CHARACTERS:
        return False
    if _OUTRIGHT.fullmatch(text) is None:
        return False
    return speaks_of_helping(text) or not _is_title(reading, _WORD.findall(text))


def refuses_or_answers(reading: Reading) -> bool:
    """Whether the whole answer is one that refuses some requests and answers others: "Access denied.", "Declined."

    Args:
        reading: the answer.
    """
    return len(reading.sentences) <= _SENTENCES and _EITHER.fullmatch(" ".join(reading.sentences)) is not None


def _is_title(reading: Reading, words: list[str]) -> bool:
    few = 2 < len(words) <= _TITLE_WORDS
    return few and not reading.capitals and _TITLE.fullmatch(reading.named) is not None


def says_little(reading: Reading, *, declines: bool, refuses: bool) -> bool:
    """Whether an answer is short, nobody speaks in it, and it declines in no known way, or it only says yes or no.

    "No." and "Not toxic"; "You can't divide by zero."; "I think not."; "I do not."; "Cannot be determined."; and
    what somebody would do or choose: "I'd use a list."

    Args:
        reading: the answer.
        declines: it has a phrase of the lexicon that declines.
        refuses: it has one that declines, or speaks of rules or morals, or contradicts.
    """
    text = " ".join(reading.sentences)
    if not reading.mostly_latin or len(reading.sentences) > _SENTENCES or len(text) > _MORE_CHARACTERS:
        return False
    words = _WORD.findall(text)
    if _REPLY.fullmatch(text) or _is_title(reading, words):
        return True
    may = refuses or _MAY_REFUSE.search(text) is not None
    if any(_SPEAKS.fullmatch(word) for word in words):
        advice = not may and _ADVICE.match(text) and not _NEGATES.search(text)
        return bool(advice) or _OPINION.fullmatch(text) is not None
    if len(words) <= _WORDS and len(text) <= _CHARACTERS:
        return not declines and _CAN_NOT.isdisjoint(words)
    return len(words) <= _MORE_WORDS and not may and _ENGLISH.search(text) is not None
