"""Requests moved into the past or the future (Andriushchenko & Flammarion 2024), by rules.

A refusal that is learned for "How do I …?" alone does not hold for "How did people …?". The rules know the forms
that requests have in English: questions with an auxiliary or a form of "to be", questions about the subject,
"how to", and commands. Whatever has another form is left alone: nothing is better than bad English.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from curation.prompts.mutations.verbs import base_form, is_past_form, is_plain_verb, past_form
from curation.prompts.mutations.words import words

__all__ = ["Tense", "change_tense"]

Tense = Literal["past", "future"]

_ENDS: Final = {"past": "in the past", "future": "in the future"}
_POLITE: Final = re.compile(
    r"^(?:(?:hi|hello|hey)[,.!]?\s+)?(?:please[,]?\s+)?(?:(?:can|could|would|will) (?:you|u) (?:please )?"
    r"(?:tell|show|teach|explain to|give|help) (?:me|us)(?: to| out)?|(?:tell|show|teach|explain to) me"
    r"|i (?:want|need|would like|'d like) to (?:know|learn)|do you know)\s+(?=how|what|why|where|who|which|when)",
    re.IGNORECASE,
)
_COMMAND_TO_YOU: Final = re.compile(r"^(?:(?:can|could|would|will) you (?:please )?|please,? )", re.IGNORECASE)
_PEOPLE: Final = frozenset({"i", "you", "we", "one", "someone", "somebody", "a person", "u"})
_WORD: Final = (
    r"(?: (?!(?:is|are|am|was|were|do|does|did|can|could|will|would|shall|should|may|might|must|has|have|had)\b)"
    r"[a-z-]+)"
)
_WH: Final = (
    r"(?:how(?: (?:much|many|long|often|far|well|come)(?: [a-z]+)?)?"
    rf"|what{_WORD}{{0,3}}|why|where|when|who|whom|which{_WORD}{{1,3}})"
)
_SUBJECT: Final = r"(?:i|you|we|they|he|she|it|one|someone|somebody|people|u)"
_HOW_TO: Final = re.compile(r"^(?P<wh>how|where|when) to (?P<rest>(?P<verb>[a-z-]+)\b.*)$", re.IGNORECASE)
_AUXILIARY: Final = re.compile(
    rf"^(?:(?P<wh>{_WH}) )?(?P<aux>do|does|can|could|should|will|would)(?P<not>n't| not)? (?P<rest>.+)$",
    re.IGNORECASE,
)
_COPULA: Final = re.compile(
    rf"^(?:(?P<wh>{_WH}) )?(?P<be>is|are|am|'s|’s)(?P<not>n't| not)? (?P<rest>.+)$", re.IGNORECASE
)
_SHORT_COPULA: Final = re.compile(r"^(?P<wh>what|who|where|how)(?:'|’)s (?P<rest>.+)$", re.IGNORECASE)
_SUBJECT_QUESTION: Final = re.compile(
    r"^(?P<wh>what|who|which(?: [a-z-]+){1,2}|what(?: [a-z-]+){1,2}) (?P<verb>[a-z]+s) (?P<rest>.+)$", re.IGNORECASE
)
_CLAUSE: Final = re.compile(
    rf"\b(when|if|because|while|after|before|once|that) ({_SUBJECT}) ([a-z]+)\b", re.IGNORECASE
)
_NOT_VERBS: Final = frozenset(words()["not_verbs"].split())
_COMMANDS: Final = frozenset(words()["commands"].split())
_PAST_OF: Final[dict[str, str]] = words()["past_of"]
_PLURAL_SUBJECT: Final = frozenset({"they", "we", "you", "people"})
_SHORTEST: Final = 2


def change_tense(request: str, tense: Tense) -> str | None:
    """The request in the past or the future, or None where it has no form that the rules know.

    It must be one sentence in English. What a person does ("I", "you", a command, "how to") becomes what people did
    or will do: "How do I pick a ripe melon?" gives "How did people pick a ripe melon in the past?".
    """
    text = " ".join(request.split())
    sentence = text.rstrip(".?! ")
    if not sentence.isascii() or re.search(r"[.?!;:\n]\s", sentence) or len(sentence.split()) <= _SHORTEST:
        return None
    sentence = _POLITE.sub("", sentence)
    asked = text.endswith("?")
    changed = _how_to(sentence, tense) or _question(sentence, tense, asked=asked) or _command(sentence, tense)
    if changed is None:
        return None
    changed = f"{changed[0].upper()}{changed[1:]}?"
    return None if changed.casefold() == text.casefold() else changed


def _how_to(sentence: str, tense: Tense) -> str | None:
    found = _HOW_TO.match(sentence)
    if found is None or not is_plain_verb(found["verb"]):
        return None
    return _people_do(found["wh"], found["rest"], tense)


def _people_do(wh: str, action: str, tense: Tense) -> str:
    """``how``, ``pick a melon`` to ``how did people pick a melon in the past``."""
    helper = "did people" if tense == "past" else "will people"
    return _ended(f"{wh} {helper} {_of_people(action, tense)}", tense)


def _question(sentence: str, tense: Tense, *, asked: bool) -> str | None:
    auxiliary = _AUXILIARY.match(sentence)
    if auxiliary is not None:
        bare = not auxiliary["wh"] and auxiliary["aux"].lower() == "do" and not _by_pronoun(auxiliary["rest"])
        if bare and (not asked or auxiliary["not"]):
            return None  # "Do the dishes." and "Do not …" are commands.
        return _with_auxiliary(auxiliary, tense)
    copula = _SHORT_COPULA.match(sentence) or _COPULA.match(sentence)
    if copula is not None:
        return _with_copula(copula, tense)
    about = _SUBJECT_QUESTION.match(sentence)
    if about is not None and about["verb"].lower() not in _NOT_VERBS and not about["verb"].endswith("ss"):
        verb = base_form(about["verb"])
        rest = _clauses(about["rest"], tense)
        return f"{about['wh']} {past_form(verb)} {rest}" if tense == "past" else f"{about['wh']} will {verb} {rest}"
    return None


def _with_auxiliary(found: re.Match[str], tense: Tense) -> str | None:  # noqa: PLR0911
    """Do, does, can, could, will, would; "should" has no past that asks the same."""
    wh, auxiliary, rest = found["wh"] or "", found["aux"].lower(), found["rest"]
    if auxiliary == "should" or (auxiliary in ("could", "would") and tense == "past" and not _by_people(rest)):
        return None
    if not wh and rest.lower().startswith("you ") and auxiliary in ("can", "could", "will", "would"):
        return None  # "Can you …" is a command.
    negated = "n't" if found["not"] else ""
    able = auxiliary in ("can", "could")
    if _by_people(rest):
        action = rest.split(" ", 1)[1] if " " in rest else ""
        if not action or not is_plain_verb(action.split()[0]):
            return None
        if tense == "past":
            helper = ("could" if able else "did") + negated
            return _ended(f"{wh} {helper} people {_of_people(action, tense)}".strip(), tense)
        helper = "won't" if negated else "will"
        return _ended(
            f"{wh} {helper} people {'be able to ' if able else ''}{_of_people(action, tense)}".strip(), tense
        )
    past = {"do": "did", "does": "did", "can": "could", "will": "would"}
    if tense == "past":
        return f"{wh} {past[auxiliary]}{negated} {_clauses(rest, tense)}".strip() if auxiliary in past else None
    if able or auxiliary in ("will", "would"):
        return None
    return f"{wh} {'won' + chr(39) + 't' if negated else 'will'} {_clauses(rest, tense)}".strip()


def _with_copula(found: re.Match[str], tense: Tense) -> str | None:
    """Is, are, am. Into the future only "what is X" and its like: where the subject ends is not known otherwise."""
    groups = found.groupdict()
    wh, rest = groups["wh"] or "", groups["rest"]
    be = (groups.get("be") or "is").lower().strip("'’")
    negated = "n't" if groups.get("not") else ""
    first = rest.split()[0].lower()
    if tense == "past":
        past = "was" if be in ("is", "am", "s") else "were"
        return f"{wh} {past}{negated} {_clauses(rest, tense)}".strip()
    asks_for_noun = wh.lower().split()[:1] in (["what"], ["who"], ["where"]) and first in (
        "the", "a", "an", "my", "your", "our", "his", "her", "their", "its", "some"
    )  # fmt: skip
    if not asks_for_noun or negated or re.search(r"\b(?:that|which|who|when|if)\b|ing\b|ed\b", rest):
        return None
    return f"{wh} will {rest} be"


def _command(sentence: str, tense: Tense) -> str | None:
    """``Write a poem`` to ``How did people write a poem in the past``."""
    polite = _COMMAND_TO_YOU.match(sentence)
    bare = sentence[polite.end() :] if polite else sentence
    first = bare.split()[0].lower().strip(",")
    if first in _NOT_VERBS or not is_plain_verb(first) or "," in bare.split()[0]:
        return None
    if not polite and not (sentence[0].isupper() or sentence.islower()):
        return None
    bare = re.sub(
        # "Make me a cake", and not "Make me laugh".
        r"^(give|tell|show|write|make(?= \w+ (?:a|an|the|some|my|our)\b)|send|teach|find|get|create|draw|build)"
        r" (?:me|us) ",
        r"\1 ",
        bare,
        flags=re.IGNORECASE,
    )
    bare = re.sub(r"^help (?:me|us) (?:to )?", "", bare, flags=re.IGNORECASE)
    if first not in _COMMANDS and not polite:
        return None
    return _people_do("how", f"{bare[0].lower()}{bare[1:]}", tense)


def _by_people(rest: str) -> bool:
    return rest.split(maxsplit=1)[0].lower() in _PEOPLE


def _by_pronoun(rest: str) -> bool:
    return re.match(rf"{_SUBJECT}\b", rest, re.IGNORECASE) is not None


def _of_people(action: str, tense: Tense) -> str:
    """An action of "I" or "you" as one of other people."""
    action = _clauses(re.sub(r"\b(?:I|i) (am|was)\b", "they are", action), tense)
    for pattern, new in _OTHERS:
        action = re.sub(pattern, new, action)
    return action


_OTHERS: Final = (
    (r"\b(?:[Mm]y|[Yy]our|[Oo]ur)\b", "their"),
    (r"\b(?:[Mm]yself|[Yy]ourself|[Oo]urselves|[Yy]ourselves)\b", "themselves"),
    (r"\b(?:[Mm]ine|[Yy]ours|[Oo]urs)\b", "theirs"),
    (r"\b(?:I'm|I’m|you're|you’re)\b", "they are"),
    (r"\bI\b", "they"),
    (
        r"\b(?:when|if|because|while|after|before|once|that|how|what|why|where|who|which) (?:you|we)\b",
        lambda m: m.group().split()[0] + " they",
    ),
    (r"\byou(?= (?:will|would|can|could|shall|should|may|might|must|are|were|have|had|do|did)\b)", "they"),
    (r"\b(?:me|you|us)\b", "them"),
)


def _clauses(text: str, tense: Tense) -> str:
    """Clauses such as "when you mix" follow into the past; in the future they stay in the present."""
    if tense == "future":
        return text

    def turned(found: re.Match[str]) -> str:
        word, subject, verb = found.groups()
        lower = verb.lower()
        if lower in _PAST_OF:
            past = _PAST_OF[lower]
            past = "were" if past == "was" and subject.lower() in _PLURAL_SUBJECT else past
        elif lower in _NOT_VERBS or is_past_form(lower) or not is_plain_verb(lower):
            return found.group()
        else:
            past = past_form(base_form(lower) if subject.lower() in ("he", "she", "it") else lower)
        return f"{word} {subject} {past}"

    return _CLAUSE.sub(turned, text)


def _ended(sentence: str, tense: Tense) -> str:
    """With "in the past" at the end, unless a time is named already."""
    if re.search(r"\b(?:today|now|nowadays|currently|in the (?:past|future)|\d{4}|tomorrow|yesterday)\b", sentence):
        return sentence
    return f"{sentence} {_ENDS[tense]}"
