"""Everyday questions with short answers, in our own words, for the bundled policy. Refusals are elsewhere.

A model this small repeats what it saw often; without these it refuses most short questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["everyday_answers"]

_HOW_TO: Final = {
    "bake bread": "Mix flour, water, yeast and salt. Knead the dough, let it rise for an hour, and bake it until "
    "the crust is brown.",
    "make tea": "Boil some water, pour it over the tea, and wait for three minutes. Add milk or sugar if you like.",
    "boil an egg": "Put the egg into boiling water. Take it out after six minutes for a soft egg, or ten for a "
    "firm one.",
    "learn a language": "Practise a little every day, listen to people who speak it, and do not be afraid of "
    "mistakes.",
    "sleep better": "Go to bed at the same time every day, keep your room dark and quiet, and put your phone away.",
    "grow tomatoes": "Plant them in a sunny place, water them often, and tie them to a stick when they get tall.",
    "write a letter": "Start with a greeting, say why you write, keep it short, and end with your name.",
    "save money": "Write down what you spend, buy only what you need, and put some money aside each month.",
    "stay healthy": "Eat fruit and vegetables, move every day, sleep enough, and see your friends.",
    "clean a window": "Wash it with warm water and a little soap, and dry it with a soft cloth.",
    "ride a bicycle": "Sit down, look ahead, push the pedals, and keep your hands on the bars. You will find your "
    "balance with practice.",
    "make a salad": "Wash and cut some vegetables, put them in a bowl, and add oil, salt and lemon juice.",
    "find a new job": "Write a clear résumé, look at the open positions, and ask people you know.",
    "prepare for an exam": "Make a plan, study a little each day, test yourself, and rest well before the exam.",
    "take a good photo": "Look for soft light, hold the camera still, and keep the background simple.",
    "make new friends": "Join a club or a class, be kind, listen well, and invite people to do things together.",
    "draw a cat": "Draw a circle for the head, two triangles for the ears, and an oval for the body. Then add "
    "eyes, whiskers and a tail.",
    "relax after work": "Take a walk, listen to music, read a book, or talk to a friend.",
    "cook rice": "Use two cups of water for one cup of rice. Bring it to a boil, cover it, and cook it slowly for "
    "fifteen minutes.",
    "train a puppy": "Use short lessons, give a treat for each success, and be patient and calm.",
}
_HOW_QUESTIONS: Final = (
    "How do I {}?",
    "How can I {}?",
    "What is the best way to {}?",
    "Can you tell me how to {}?",
    "Please explain how to {}.",
)
_QUESTIONS: Final = {
    "Why is the sky blue?": "The air scatters blue light more than red light, so the sky looks blue.",
    "Why do leaves fall in autumn?": "Trees drop their leaves to save water and energy during the winter.",
    "Why do cats purr?": "Cats often purr when they feel calm and happy.",
    "Why is the sea salty?": "Rivers carry small amounts of salt from the rocks into the sea.",
    "What is a computer?": "A computer is a machine that follows instructions to work with information.",
    "What is the sun?": "The sun is a star. It gives light and warmth to the earth.",
    "What is a friend?": "A friend is a person you like and trust.",
    "What is music?": "Music is the art of putting sounds together in a pleasant way.",
    "What is a library?": "A library is a place where people can read and borrow books.",
    "What is a language model?": "A language model is a computer program that has learned to write text.",
    "How many days are in a week?": "There are seven days in a week.",
    "How many months are in a year?": "There are twelve months in a year.",
    "Write a short poem about the sea.": "The sea is wide, the sea is blue,\nit sings a quiet song to you.\n"
    "The waves come in, the waves go out,\nand gulls fly happily about.",
    "Write a short poem about spring.": "The snow is gone, the grass is green,\nthe brightest flowers can be "
    "seen.\nThe birds are singing in the tree,\nand spring is here for you and me.",
    "Write a sentence about a dog.": "The little dog ran across the garden to greet its friend.",
    "Write a sentence about the rain.": "The rain fell softly on the roof all night.",
    "Tell me a story.": "Once there was a girl who found a small boat by the lake. She cleaned it, painted it "
    "blue, and sailed out to see what was on the other side.",
    "Tell me a joke.": "Why did the book go to the doctor? Because it had hurt its spine.",
    "Give me three tips for sleeping well.": "1. Go to bed at the same time.\n2. Keep your room dark.\n"
    "3. Do not drink coffee in the evening.",
    "Give me three ideas for a birthday party.": "1. Have a picnic in the park.\n2. Bake a cake together.\n"
    "3. Play games in the garden.",
    "Give me some advice.": "Take small steps, be kind to yourself, and ask for help when you need it.",
    "What should I eat for breakfast?": "You could eat bread with cheese, some fruit, or a bowl of oats with milk.",
    "What should I do today?": "You could take a walk, call a friend, or read a good book.",
    "Write an email to my boss asking for a day off.": "Dear [Name],\n\nI would like to take a day off on Friday. "
    "My work for this week will be finished by then.\n\nKind regards,\n[Your Name]",
    "Thank my neighbour for her help.": "Dear neighbour,\n\nthank you very much for your help last week. It meant "
    "a lot to me.\n\nKind regards",
}


def everyday_answers() -> Iterator[tuple[str, str]]:
    """Pairs of a question and its answer."""
    yield from _QUESTIONS.items()
    for task, answer in _HOW_TO.items():
        yield from ((question.format(task), answer) for question in _HOW_QUESTIONS)
