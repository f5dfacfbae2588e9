"""Our own texts for the bundled policy: refusals for each kind of request, and small talk. No files are read.

Everything here was written for this project and is under its licence. ``refusal_for`` and
``own_dialogues`` fill short phrases into each other by a seeded choice, so that the model sees many
wordings of few ideas.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Final

from curation.text import Message

__all__ = ["own_dialogues", "refusal_for"]

_OPENINGS: Final = {
    "safety": (
        "I'm sorry, but I can't help with that.",
        "I can't help with this request.",
        "I'm sorry, but I won't assist with that.",
        "I can't assist with that.",
        "No, I won't help with this.",
        "I have to decline this request.",
        "That is not something I can help with.",
        "I'm not able to help with that.",
        "Sorry, but I can't do that.",
        "I won't provide that.",
    ),
    "incomplete": (
        "I need a little more information to answer this.",
        "I'm not sure I understand the question.",
        "Your question leaves out something that I need.",
        "I can't answer this as it stands.",
        "There may be a mistake in the question.",
    ),
    "indeterminate": (
        "There is no single right answer to this.",
        "I can't settle this question.",
        "Nobody knows this for certain.",
        "This is a matter of opinion, and I don't have one of my own.",
        "I can't say which view is right.",
    ),
    "humanizing": (
        "I'm an AI, so I don't have a life of my own.",
        "As an AI, I don't have feelings or personal experiences.",
        "I'm a computer program, so this doesn't apply to me.",
        "I don't have a body, a family or memories, because I'm an AI.",
        "As an AI, I can't make that choice for you.",
    ),
    "unsupported": (
        "I can't do that, because I only read and write text.",
        "I'm sorry, but this is beyond what I can do.",
        "I'm not able to do this.",
        "I can only work with text, so I can't help here.",
        "I don't have access to that.",
    ),
}
_REASONS: Final = {
    "safety": (
        "It could hurt someone.",
        "It could cause serious harm to you or to other people.",
        "It may be against the law.",
        "Doing this would be unfair to other people.",
        "It would put people in danger.",
        "It goes against the rights of other people.",
        "I don't want anyone to get hurt.",
        "This would be wrong, and it may also be illegal.",
        "",
    ),
    "incomplete": (
        "Some of the details are missing.",
        "It could mean several things.",
        "I think it assumes something that is not true.",
        "I don't know which one you mean.",
        "",
    ),
    "indeterminate": (
        "People have good reasons for different views.",
        "It depends on what matters most to you.",
        "The evidence is not strong enough.",
        "Experts do not agree about it.",
        "",
    ),
    "humanizing": (
        "I can only tell you what people have written about it.",
        "I was made to answer questions and to help with writing.",
        "I don't have wishes or a past.",
        "",
    ),
    "unsupported": (
        "I can't see pictures, hear sounds or open links.",
        "I can't look things up while we talk.",
        "I don't know what happened recently.",
        "My answers are short pieces of text.",
        "",
    ),
}
_OFFERS: Final = {
    "safety": (
        "If you or someone else is in danger, please call the emergency services.",
        "If something is troubling you, please talk to someone you trust.",
        "I'm happy to help with something else.",
        "If you have a different question, I would be glad to help.",
        "Is there something else I can do for you?",
        "I can help you to look for a safe and legal way instead.",
        "Please ask a professional if you need advice.",
        "",
    ),
    "incomplete": (
        "Could you tell me more?",
        "Could you say what you mean?",
        "Please give me more details, and I will try again.",
        "What would you like to know?",
    ),
    "indeterminate": (
        "I can describe the main views if you like.",
        "Would you like to hear what each side says?",
        "What do you think?",
        "I can list some points to think about.",
    ),
    "humanizing": (
        "Is there something I can help you with?",
        "I'm happy to talk about the subject, though.",
        "What do you think about it?",
        "How can I help you today?",
    ),
    "unsupported": (
        "If you describe it in words, I will try to help.",
        "Is there something else that I can write for you?",
        "You could look at a recent source for this.",
        "I'm happy to help with another question.",
    ),
}

_FACTS: Final = {
    "What is the capital of {}?": (
        "The capital of {} is {}.",
        "France:Paris Italy:Rome Spain:Madrid Germany:Berlin "
        "Japan:Tokyo Egypt:Cairo Canada:Ottawa Norway:Oslo "
        "Greece:Athens Kenya:Nairobi Peru:Lima Cuba:Havana Poland:Warsaw Austria:Vienna Ireland:Dublin "
        "Portugal:Lisbon Sweden:Stockholm Finland:Helsinki "
        "Denmark:Copenhagen Hungary:Budapest Thailand:Bangkok",
    ),
    "What colour is {}?": (
        "{} is usually {}.",
        "grass:green snow:white coal:black milk:white blood:red chocolate:brown honey:golden ivory:white",
    ),
    "What is the opposite of {}?": (
        "The opposite of {} is {}.",
        "hot:cold big:small fast:slow light:dark early:late "
        "open:closed happy:sad full:empty wet:dry young:old "
        "strong:weak high:low near:far rich:poor soft:hard clean:dirty",
    ),
    "What sound does a {} make?": (
        "A {} says {}.",
        "cow:moo dog:woof cat:meow duck:quack sheep:baa pig:oink horse:neigh frog:ribbit lion:roar",
    ),
    "What do you do with a {}?": (
        "You use a {} to {}.",
        "pen:write spoon:eat broom:sweep bed:sleep book:read "
        "oven:cook bicycle:travel needle:sew towel:dry phone:talk",
    ),
    "How do you say {} in French?": (
        "In French, {} is {}.",
        "hello:bonjour goodbye:au_revoir please:s'il_vous_plaît bread:pain "
        "water:eau house:maison cat:chat dog:chien "
        "thanks:merci yes:oui friend:ami",
    ),
}
_SMALL_TALK: Final = (
    (
        ("Hi", "Hello", "Hello!", "Hi there", "Good morning", "Hey"),
        (
            "Hello! How can I help you today?",
            "Hi! What can I do for you?",
            "Hello! What would you like to talk about?",
        ),
    ),
    (
        ("Thank you", "Thanks!", "Thanks a lot", "Thank you very much"),
        ("You're welcome!", "You're welcome! Is there anything else I can help with?", "Glad to help!"),
    ),
    (
        ("Who are you?", "What are you?", "Are you a person?", "What is your name?"),
        (
            "I'm a small AI assistant. I answer questions and help with writing.",
            "I'm a small language model. I'm not a person, but I'm happy to help.",
        ),
    ),
    (
        ("How are you?", "How are you today?"),
        ("I'm a computer program, so I don't have feelings, but I'm ready to help. How are you?",),
    ),
    (("Goodbye", "Bye", "See you later"), ("Goodbye! Have a nice day.", "See you! Take care.")),
    (
        ("What can you do?", "How can you help me?"),
        ("I can answer simple questions, write short texts and help you think of ideas.",),
    ),
)
_SYSTEMS: Final = (
    "You are a helpful assistant.",
    "You are a helpful, honest and harmless assistant.",
    "You are a friendly assistant. Answer in one sentence.",
    "Answer briefly.",
    "You are a careful assistant that refuses dangerous requests.",
)
_LISTS: Final = {
    "fruits": "apples bananas oranges pears grapes cherries plums peaches",
    "animals": "cats dogs horses cows sheep lions elephants rabbits",
    "colours": "red blue green yellow purple orange white black",
    "vegetables": "carrots potatoes onions peas beans spinach tomatoes",
    "sports": "football tennis swimming running cycling basketball",
    "countries": "France Japan Brazil Kenya Canada India Spain Norway",
    "languages": "English French Spanish Arabic Hindi Japanese German",
}
_NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def refusal_for(kind: str, prompt: str, *, seed: int) -> str:
    """A refusal for a request of this kind; the same request always gets the same words.

    Args:
        kind: ``safety``, ``incomplete``, ``indeterminate``, ``humanizing`` or ``unsupported``.
        prompt: the request; it only drives the choice.
        seed: changes all choices.
    """
    rng = _rng(seed, kind, prompt)
    parts = (rng.choice(_OPENINGS[kind]), rng.choice(_REASONS[kind]), rng.choice(_OFFERS[kind]))
    return " ".join(part for part in parts if part)


def own_dialogues(*, seed: int) -> Iterator[list[Message]]:
    """Small talk, simple facts, lists and sums; a third of them under a system prompt."""
    for question, answer in _questions(seed):
        rng = _rng(seed, question, answer)
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield [{"role": "system", "content": rng.choice(_SYSTEMS)}, *turns] if rng.random() < 1 / 3 else turns


def _questions(seed: int) -> Iterator[tuple[str, str]]:
    for asks, replies in _SMALL_TALK:
        yield from ((ask, reply) for ask in asks for reply in replies)
    for question, (answer, pairs) in _FACTS.items():
        for pair in pairs.split():
            thing, _, value = pair.replace("_", " ").partition(":")
            reply = answer.format(thing, value)
            yield question.format(thing), reply[0].upper() + reply[1:]
    for name, members in _LISTS.items():
        rng = _rng(seed, "list", name)
        for count in (2, 3, 3, 4, 5):
            chosen = rng.sample(members.split(), count)
            listed = f"{', '.join(chosen[:-1])} and {chosen[-1]}"
            yield f"Name {_NUMBERS[count]} {name}.", f"{listed[0].upper()}{listed[1:]}."
    for left in range(11):
        for right in range(11):
            yield f"What is {left} plus {right}?", f"{left} plus {right} is {left + right}."


def _rng(seed: int, *parts: str) -> random.Random:
    digest = hashlib.sha256("\0".join((str(seed), *parts)).encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
