"""Negatives from structure that the data already has: a taxonomy, other prompts' answers, topics.

Mining by similarity alone is in ``mining``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from curation.errors import InputError
from curation.negatives.clusters import assign, train_centroids
from curation.negatives.inputs import Embeddings, Float32, Int64, as_embeddings
from curation.negatives.search import Found, exact_search

__all__ = [
    "SAME_ANSWER",
    "AnswerNegatives",
    "AnswerSource",
    "answer_negatives",
    "sibling_negatives",
    "topic_batches",
]

AnswerSource = Literal["same_prompt", "near_prompt", "off_topic"]
_NEAR_PROMPTS: Final = 20
"""How many of the nearest prompts are looked at for near-duplicates."""

SAME_ANSWER: Final = 0.98
"""Two answers with a greater cosine say the same."""


def sibling_negatives(
    *,
    anchor_embeddings: Any,
    corpus_embeddings: Any,
    anchor_labels: Sequence[str],
    corpus_labels: Sequence[str],
    parents: Mapping[str, str],
    num_negatives: int,
) -> Found:
    """The nearest documents of sibling categories: another label under the same parent.

    Siblings share the topic and differ in the point, and the taxonomy vouches that they are no positives.

    Args:
        anchor_embeddings: (n, d) L2-normalised.
        corpus_embeddings: (m, d) L2-normalised.
        anchor_labels: n labels.
        corpus_labels: m labels.
        parents: the parent of each label; labels without one have no siblings.
        num_negatives: how many to return, −1 where there are fewer.

    Raises:
        InputError: when labels and embeddings are not equally many.
    """
    anchors = as_embeddings(anchor_embeddings, name="anchor_embeddings")
    corpus = as_embeddings(corpus_embeddings, name="corpus_embeddings")
    for name, labels, vectors in (
        ("anchor_labels", anchor_labels, anchors),
        ("corpus_labels", corpus_labels, corpus),
    ):
        if len(labels) != len(vectors):
            raise InputError(f"{name}: found {len(labels)} labels for {len(vectors)} embeddings, expected as many")
    own, theirs = np.asarray(anchor_labels, dtype=object), np.asarray(corpus_labels, dtype=object)
    family = np.array([parents.get(label) for label in corpus_labels], dtype=object)
    rows = np.full((len(anchors), num_negatives), -1, np.int64)
    scores = np.full((len(anchors), num_negatives), -np.inf, np.float32)
    for label in sorted(set(anchor_labels) & set(parents)):
        siblings = np.flatnonzero((family == parents[label]) & (theirs != label))
        who = np.flatnonzero(own == label)
        if len(siblings):
            found = exact_search(anchors[who], np.asarray(corpus[siblings]), num_negatives)
            rows[who] = np.where(found.rows >= 0, siblings[found.rows], -1)
            scores[who] = found.scores
    return Found(rows, scores)


class AnswerNegatives(NamedTuple):
    """Rejected answers for n chosen ones."""

    rows: Int64
    """(n, count) the answers that become rejected ones, most similar first; −1 where there is none."""
    scores: Float32
    """(n, count) their similarity to the chosen answer; NaN beside −1."""


def answer_negatives(
    source: AnswerSource,
    *,
    chosen: Any,
    prompt_of_answer: Any,
    prompt_embeddings: Any,
    answer_embeddings: Any,
    prompt_threshold: float = 0.85,
    max_score: float = SAME_ANSWER,
    min_score: float = -1.0,
    count: int = 1,
    seed: int = 0,
) -> AnswerNegatives:
    """For chosen answers, answers that are wrong in a stated way.

    ``same_prompt``: near misses, the answers to the same prompt that are most like the chosen one.
    ``near_prompt``: the most similar answers to *different* prompts whose similarity to this prompt is at
    least ``prompt_threshold``: fluent, on the topic, and beside the question.
    ``off_topic``: random answers to prompts whose similarity is below ``prompt_threshold``.

    An answer above ``max_score`` says the same as the chosen one and is never taken.

    Args:
        source: which of the three.
        chosen: (n,) answer rows.
        prompt_of_answer: (a,) the prompt row of each answer.
        prompt_embeddings: (p, d) L2-normalised.
        answer_embeddings: (a, d) L2-normalised.
        prompt_threshold: cosine between prompts.
        max_score: the greatest cosine between the answers.
        min_score: the least.
        count: how many for each.
        seed: of ``off_topic``.
    """
    prompts = as_embeddings(prompt_embeddings, name="prompt_embeddings")
    answers = as_embeddings(answer_embeddings, name="answer_embeddings")
    owner, picked = np.asarray(prompt_of_answer, dtype=np.int64), np.asarray(chosen, dtype=np.int64)
    if len(owner) != len(answers):
        raise InputError(f"prompt_of_answer: found {len(owner)} entries for {len(answers)} answers")
    rows = np.full((len(picked), count), -1, np.int64)
    scores = np.full((len(picked), count), np.nan, np.float32)
    near = exact_search(prompts[owner[picked]], prompts, min(_NEAR_PROMPTS, len(prompts)))
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(len(prompts) + 1))
    rng = np.random.default_rng(seed)
    for at, answer in enumerate(picked):
        if source == "off_topic":
            options = _off_topic(prompts, owner, int(owner[answer]), prompt_threshold, rng)
        else:
            wanted = _prompts(source, near, at, int(owner[answer]), prompt_threshold)
            options = np.concatenate([order[starts[p] : starts[p + 1]] for p in wanted] or [np.empty(0, np.int64)])
        likeness = np.asarray(answers[options], np.float32) @ np.asarray(answers[answer], np.float32)
        good = np.flatnonzero((options != answer) & (likeness <= max_score) & (likeness >= min_score))
        if source != "off_topic":
            good = good[np.argsort(-likeness[good], kind="stable")]
        good = good[:count]
        rows[at, : len(good)], scores[at, : len(good)] = options[good], likeness[good]
    return AnswerNegatives(rows, scores)


def _prompts(source: AnswerSource, near: Found, at: int, own: int, threshold: float) -> list[int]:
    if source == "same_prompt":
        return [own]
    return [int(p) for p, s in zip(near.rows[at], near.scores[at], strict=True) if p != own and s >= threshold]


def _off_topic(prompts: Embeddings, owner: Int64, own: int, threshold: float, rng: np.random.Generator) -> Int64:
    """Up to 64 random answers to prompts that are not near this one, in random order."""
    # Without replacement: no answer stands twice among the negatives of one.
    drawn = rng.permutation(len(owner)) if len(owner) <= 256 else rng.choice(len(owner), 256, replace=False)
    likeness = np.asarray(prompts[owner[drawn]], np.float32) @ np.asarray(prompts[own], np.float32)
    far: Int64 = drawn[(likeness < threshold) & (owner[drawn] != own)][:64].astype(np.int64)
    return far


def topic_batches(anchor_embeddings: Any, *, topics: int, batch_size: int, seed: int = 0) -> list[Int64]:
    """Training batches of anchors of one topic each, so that in-batch negatives are hard ones.

    After Hofstätter et al. 2021, TAS-Balanced: queries are clustered, a batch is drawn from one cluster (as
    later papers describe it; the paper itself was not at hand). Every
    anchor is in exactly one batch; the last batch of a topic may be smaller. The balance over margins is
    ``sampling="margin_bins"``.

    Args:
        anchor_embeddings: (n, d) L2-normalised.
        topics: how many clusters.
        batch_size: anchors in a batch, at most.
        seed: of the clusters and the order.
    """
    anchors = as_embeddings(anchor_embeddings, name="anchor_embeddings")
    if not len(anchors):
        return []
    if topics < 1 or batch_size < 1:
        raise InputError(f"topics and batch_size: found {topics} and {batch_size}, expected at least 1 each")
    own = assign(anchors, train_centroids(anchors, topics, seed=seed))
    rng = np.random.default_rng(seed)
    batches: list[Int64] = []
    for topic in range(int(own.max()) + 1):
        members = rng.permutation(np.flatnonzero(own == topic)).astype(np.int64)
        batches.extend(members[start : start + batch_size] for start in range(0, len(members), batch_size))
    return [batches[at] for at in rng.permutation(len(batches))]
