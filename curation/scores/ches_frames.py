"""CHES for frames of texts: the policy is asked once per prompt, its answers are scored pair by pair.

``ches`` is for a frame in memory; ``score_rows`` is one chunk of a file, for ``curation.commands.ches``.
The scores are defined in ``ches``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from curation.errors import InputError
from curation.files import ROW, Reject, rejects_frame
from curation.models.identity import EMBEDDED
from curation.models.policy import DEFAULT_BATCH_TOKENS, Policy, PolicyStats, open_policy
from curation.models.protocols import Fault
from curation.prompts.rows import normalise
from curation.prompts.shapes import Binding, resolve
from curation.scores.ches import PairScores, pair_scores_from_stats
from curation.scores.verbatim import verbatim
from curation.text import Message

__all__ = ["CHES_SHAPES", "ChesScored", "check_raw", "ches", "refuse_pairs_of_lists", "score_rows"]

CHES_SHAPES: Final = ("pair", "responses")

_COLUMNS: Final = {
    "ches": pl.Float64, "ln_ches": pl.Float64, "chosen_tokens": pl.Int64, "rejected_tokens": pl.Int64,
    "chosen_logp": pl.Float64, "rejected_logp": pl.Float64, "difficulty": pl.Float64,
}  # fmt: skip
_GRADIENT_COLUMNS: Final = {"chosen_change": pl.Float64, "rejected_change": pl.Float64, "both_fall": pl.Boolean}
"""There where the policy was opened with ``output_gradients``."""
_INDEX_COLUMNS: Final = {"chosen_index": pl.Int64, "rejected_index": pl.Int64}
_MOST_CANDIDATES: Final = 64
"""A prompt that comes back with more answers than this in one chunk is read again for the rest."""


class ChesScored(NamedTuple):
    """The scored rows, and the others."""

    frame: pl.DataFrame
    """The input's columns, for lists of answers ``chosen_index`` and ``rejected_index``, then the scores."""
    rejects: pl.DataFrame
    """``row``, ``rule``, ``value``, ``reason``."""


def ches(
    frame: pl.DataFrame,
    *,
    policy: str | Policy = EMBEDDED,
    raw: bool = False,
    dtype: str = "float32",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    max_length: int | None = None,
    output_gradients: bool = False,
    template_options: Mapping[str, Any] | None = None,
) -> ChesScored:
    """Centered hidden embedding similarity of preference pairs (Razin et al., ICLR 2025, Definition 2).

    Args:
        frame: ``prompt``, ``chosen``, ``rejected``, each text or messages; or ``prompt`` and ``responses``, a
            list of at least two answers: then every ordered pair becomes a row.
        policy: a MODEL, or a policy that is already open (``raw``, ``dtype``, … are then its own, and
            ``raw`` must repeat how it was opened).
        raw: token ids are tok(prompt), then tok(answer, add_special_tokens=False); else by chat template.
        dtype, batch_tokens, max_length, output_gradients, template_options: see
            ``curation.models.policy.open_policy``.

    Returns:
        Rows in input order with ``ches``, ``ln_ches`` (high: training on the pair tends to lower the chosen
        answer), ``chosen_tokens``, ``rejected_tokens``, ``chosen_logp``, ``rejected_logp`` (nats) and
        ``difficulty``; with ``output_gradients`` also ``chosen_change``, ``rejected_change`` and ``both_fall``
        (see ``entanglement``). Rows at fault are in ``rejects`` with the reason.

    Raises:
        InputError: when columns are missing or an argument is wrong.
        ModelError: when the policy cannot be loaded or is of a kind that would give wrong numbers.
    """
    binding = resolve(frame, name="the frame", shapes=CHES_SHAPES)
    refuse_pairs_of_lists(frame.columns, binding)
    opened = policy
    if isinstance(opened, str):
        opened = open_policy(
            opened,
            raw=raw,
            dtype=dtype,
            batch_tokens=batch_tokens,
            max_length=max_length,
            output_gradients=output_gradients,
            template_options=template_options,
        )
    check_raw(opened, raw)
    numbered = frame if ROW in frame.columns else frame.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))
    rows, unread = normalise(numbered, binding)
    if raw:
        rows = verbatim(rows, numbered, binding)
    scores, faults = score_rows(rows, opened)
    old = numbered.drop(set(scores.columns) - {"row"}, strict=False)
    joined = scores.rename({"row": ROW}).join(old, on=ROW, how="left", maintain_order="left")
    order = [c for c in frame.columns if c in old.columns] + [c for c in scores.columns if c != "row"]
    return ChesScored(joined.select(order), pl.concat([unread, faults]).sort("row", maintain_order=True))


def check_raw(policy: Policy, raw: bool) -> None:
    """
    Raises:
        InputError: when an open policy reads texts otherwise than the caller prepares them.
    """
    if policy.raw != raw:
        raise InputError(
            f"the policy was opened with raw={policy.raw}, expected raw={raw}, as it is asked for here"
        )


def refuse_pairs_of_lists(columns: Iterable[str], binding: Binding) -> None:
    """
    Raises:
        InputError: for rows that are each one pair of a list, as CHES writes them: each would give every pair.
    """
    if binding.shape == "responses" and _INDEX_COLUMNS.keys() <= set(columns):
        raise InputError(
            f"{binding.name}: each row is one pair of its list of answers already ({', '.join(_INDEX_COLUMNS)}): "
            f"give the file from before, or leave these two columns out"
        )


def score_rows(rows: pl.DataFrame, policy: Policy) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The scores of canonical rows, and the rejects among them.

    Rows of one chunk that share a prompt share its forward pass, and equal answers are read once.

    Args:
        rows: shape ``pair`` or ``responses`` of ``curation.prompts.shapes``; ``prompt`` may also be text.

    Returns:
        (``row`` and the new columns in the order of the rows, rejects).
    """
    listed = "responses" in rows.columns
    asked = list(_asked(rows, listed=listed))
    places, prompts, answers = _grouped(asked)
    found = list(policy.stats(prompts, answers))
    rejects: list[Reject] = []
    parts: list[tuple[_Asked, _Place, np.ndarray, np.ndarray]] = []
    for row, place in zip(asked, places, strict=True):
        stats = found[place.group]
        if isinstance(stats, Fault):
            rejects.append(Reject(row.number, stats.rule, stats.value, stats.reason))
            continue
        faults = {i: stats.faults[at] for i, at in enumerate(place.at) if at in stats.faults}
        rejects += _rejects(row, faults, listed=listed)
        fine = [i for i in range(len(row.answers)) if i not in faults]
        i, j = _pairs(fine) if listed else (np.array([0]), np.array([1]))
        if len(fine) > 1:
            parts.append((row, place, i, j))
    extra: Mapping[str, type[pl.DataType]] = _GRADIENT_COLUMNS if policy.output_gradients else {}
    return _scores(parts, found, columns={**_COLUMNS, **extra}, listed=listed), rejects_frame(rejects)


class _Asked(NamedTuple):
    """One row: its prompt and its answers, and which answer of the user's list each one is."""

    number: int
    prompt: str | list[Message]
    answers: list[str]
    indices: list[int]


class _Place(NamedTuple):
    """Where a row's answers are among the prompts that the policy is asked."""

    group: int
    at: list[int]


def _asked(rows: pl.DataFrame, *, listed: bool) -> Iterator[_Asked]:
    for row in rows.iter_rows(named=True):
        if listed:
            yield _Asked(row["row"], row["prompt"], row["responses"], row["indices"])
        else:
            yield _Asked(row["row"], row["prompt"], [row["chosen"], row["rejected"]], [0, 1])


def _grouped(rows: Sequence[_Asked]) -> tuple[list[_Place], list[str | list[Message]], list[list[str]]]:
    groups: dict[Any, int] = {}
    prompts: list[str | list[Message]] = []
    answers: list[dict[str, int]] = []
    places = []
    for row in rows:
        key = row.prompt if isinstance(row.prompt, str) else tuple((m["role"], m["content"]) for m in row.prompt)
        group = groups.get(key)
        if group is None or len(answers[group]) + len(row.answers) > _MOST_CANDIDATES:
            group = groups[key] = len(prompts)
            prompts.append(row.prompt)
            answers.append({})
        known = answers[group]
        places.append(_Place(group, [known.setdefault(answer, len(known)) for answer in row.answers]))
    return places, prompts, [list(known) for known in answers]


def _rejects(row: _Asked, faults: dict[int, Fault], *, listed: bool) -> list[Reject]:
    total = len(row.answers)
    if not listed:
        # One reason is enough to turn a pair away.
        return [
            Reject(row.number, fault.rule, fault.value, f"{('chosen', 'rejected')[i]}: {fault.reason}")
            for i, fault in list(faults.items())[:1]
        ]
    out = [
        Reject(row.number, fault.rule, fault.value, f"answer {row.indices[i]}: {fault.reason}")
        for i, fault in faults.items()
    ]
    if total - len(faults) < 2:
        left = total - len(faults)
        reason = "a pair needs two answers, and the row has fewer that can be scored"
        out.append(Reject(row.number, "too_few_responses", str(left), reason))
    return out


def _pairs(fine: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Every ordered pair, by chosen, then by rejected."""
    both = np.array([(i, j) for i in fine for j in fine if i != j], dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _scores(
    parts: Iterable[tuple[_Asked, _Place, np.ndarray, np.ndarray]],
    found: Sequence[PolicyStats | Fault],
    *,
    columns: Mapping[str, type[pl.DataType]],
    listed: bool,
) -> pl.DataFrame:
    numbers: list[np.ndarray] = []
    indices: list[tuple[np.ndarray, np.ndarray]] = []
    scored: list[PairScores] = []
    for row, place, i, j in parts:
        stats = found[place.group]
        if isinstance(stats, Fault):
            continue
        at, given = np.array(place.at), np.array(row.indices)
        scored.append(pair_scores_from_stats(stats, at[i], at[j]))
        indices.append((given[i], given[j]))
        numbers.append(np.full(len(i), row.number))
    schema: dict[str, type[pl.DataType]] = {"row": pl.Int64, **(_INDEX_COLUMNS if listed else {}), **columns}
    data: dict[str, Any] = {"row": _joined(numbers)}
    if listed:
        data["chosen_index"] = _joined([chosen for chosen, _ in indices])
        data["rejected_index"] = _joined([rejected for _, rejected in indices])
    data |= {name: _joined([getattr(scores, name) for scores in scored]) for name in columns}
    return pl.DataFrame(data, schema=schema)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0)
