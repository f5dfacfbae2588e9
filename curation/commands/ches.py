"""``curation ches``: CHES and log-probabilities for a file of pairs or of answer lists, chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from curation.commands.streams import open_stream
from curation.models.identity import EMBEDDED
from curation.models.policy import DEFAULT_BATCH_TOKENS, Backend, Policy, open_policy
from curation.progress import StepProgress
from curation.prompts.column_kinds import first_rows
from curation.prompts.shapes import resolve
from curation.scores.ches_frames import CHES_SHAPES, check_raw, refuse_pairs_of_lists, score_rows
from curation.scores.verbatim import verbatim

__all__ = ["ChesDone", "run_ches"]

_CHUNK_ROWS: Final = 512
"""Enough for full batches; a chunk's texts, tokens and scores are what is held in memory."""


class ChesDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    method: str
    """How the policy was read: ``packed``, ``shared_cache``, ``separate`` or ``vllm``."""
    summary: str
    """For the user."""


def run_ches(
    input: str | Path,
    output: str | Path,
    *,
    policy: str | Policy = EMBEDDED,
    raw: bool = False,
    dtype: str = "float32",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    backend: Backend = "transformers",
    max_length: int | None = None,
    output_gradients: bool = False,
    template_options: Mapping[str, Any] | None = None,
    progress: StepProgress | None = None,
) -> ChesDone:
    """Adds CHES, token counts, log-probabilities and difficulty to the rows of a file.

    The columns are ``ches``, ``ln_ches``, ``chosen_tokens``, ``rejected_tokens``, ``chosen_logp``,
    ``rejected_logp`` and ``difficulty``; with ``output_gradients`` also ``chosen_change``, ``rejected_change`` and
    ``both_fall`` (gradient entanglement).

    A file with ``responses`` gives one row per ordered pair of a row's answers, by ``chosen_index``, then by
    ``rejected_index`` (positions in the user's list). What cannot be scored goes to the rejects:
    ``context_overflow``, ``empty_response``, ``no_answer_tokens``, ``template_rewrites_history``,
    ``template_refuses_prompt``, ``template_refuses_answer``, ``template_drops_message``, ``template_drops_answer``,
    ``non_finite_states``, ``out_of_memory``, ``too_few_responses``, and the rules of file reading.

    Args:
        input: a file with ``prompt``, ``chosen``, ``rejected`` (or dialogues that share a prompt), or with
            ``prompt`` and ``responses``.
        output: the file to write.
        policy: a MODEL, or an open policy.
        raw, dtype, batch_tokens, backend, max_length, output_gradients, template_options: see
            ``curation.models.policy.open_policy``.
        progress: is told of rows as they are written.

    Raises:
        InputError: when the file, its columns or an argument is wrong.
        ModelError: when the policy cannot be loaded or is of a kind that would give wrong numbers.
    """
    with open_stream(input, output, shapes=CHES_SHAPES, chunk_rows=_CHUNK_ROWS) as stream:
        binding = resolve(
            first_rows(stream.source), name=stream.source.name, shapes=CHES_SHAPES, mixed=stream.source.mixed
        )
        refuse_pairs_of_lists(stream.source.schema, binding)
        opened = policy
        if isinstance(opened, str):
            opened = open_policy(
                opened,
                raw=raw,
                dtype=dtype,
                batch_tokens=batch_tokens,
                backend=backend,
                max_length=max_length,
                output_gradients=output_gradients,
                template_options=template_options,
            )
        check_raw(opened, raw)
        for chunk in stream.chunks():
            rows = verbatim(chunk, stream.originals, binding) if raw else chunk
            scores, rejects = score_rows(rows, opened)
            stream.write(scores)
            stream.reject_frame(rejects)
            if progress is not None:
                progress.advance(stream.originals.height)
    return ChesDone(stream.rows_written, stream.rejected, opened.method, stream.summary())
