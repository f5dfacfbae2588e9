"""The texts of preference pairs as label noise reads them, and the rows that it cannot read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from curation.errors import InputError
from curation.text import Message, as_messages, fault_in_text, last_user_text, prompt_id

__all__ = ["PairTexts", "read_pairs"]


class PairTexts(NamedTuple):
    """The rows that can be judged, and their texts."""

    rows: list[int]
    dialogues: list[list[Message]]
    prompts: list[str]
    """The last user turn of each dialogue."""
    chosen: list[str]
    rejected: list[str]
    groups: list[str]
    rejects: pl.DataFrame


def read_pairs(frame: pl.DataFrame, wrong_votes: Mapping[int, tuple[str, str]]) -> PairTexts:
    """The three texts of each row, and the rows that have not got them, or whose votes cannot be read.

    Args:
        frame: ``prompt``, ``chosen``, ``rejected``: strings or lists of messages.
        wrong_votes: row to the vote that cannot be read, and why.

    Raises:
        InputError: when a column is missing.
    """
    missing = [name for name in ("prompt", "chosen", "rejected") if name not in frame.columns]
    if missing:
        raise InputError(
            f"column {missing[0]!r} is missing: found {', '.join(frame.columns)}; "
            f"expected prompt, chosen and rejected"
        )
    texts = PairTexts([], [], [], [], [], [], pl.DataFrame())
    faults: list[tuple[int, str, str, str]] = []
    columns = (frame[name].to_list() for name in ("prompt", "chosen", "rejected"))
    for row, (prompt, chosen, rejected) in enumerate(zip(*columns, strict=True)):
        try:
            messages = as_messages(prompt)
            answers = [as_messages(value, role="assistant") for value in (chosen, rejected)]
        except ValueError as error:
            faults.append((row, "not_text", "", str(error)))
            continue
        if row in wrong_votes:
            vote, reason = wrong_votes[row]
            faults.append((row, "unreadable_votes", vote[:80], reason))
            continue
        first, second = ("\n\n".join(m["content"] for m in answer) for answer in answers)
        fault = fault_in_text(last_user_text(messages) or None)
        if fault:
            faults.append((row, f"{fault}_prompt", "prompt", "the prompt cannot be read"))
            continue
        texts.rows.append(row)
        texts.dialogues.append(messages)
        texts.prompts.append(last_user_text(messages))
        texts.chosen.append(first)
        texts.rejected.append(second)
        texts.groups.append(prompt_id(messages))
    schema = {"row": pl.Int64, "rule": pl.String, "value": pl.String, "reason": pl.String}
    return texts._replace(rejects=pl.DataFrame(faults, schema=schema, orient="row"))
