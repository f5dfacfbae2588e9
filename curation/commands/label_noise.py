"""``curation label-noise``: which preference labels of a file are probably wrong."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from curation.commands.streams import open_stream
from curation.errors import InputError
from curation.files import ROW
from curation.models.identity import EMBEDDED
from curation.models.protocols import AnswerReader, Encoder
from curation.progress import StepProgress
from curation.scores.label_noise import DROP_BELOW, FLIP_BELOW, LABEL_NOISE_COLUMNS, LabelNoise, label_noise
from curation.scores.voters import Method

__all__ = ["LabelNoiseDone", "run_label_noise"]

_WITNESSES: Final = ("chosen_rewards", "rejected_rewards")
_PEOPLE: Final = ("annotator_loss_rank", "vote_probability")
_SHOWN: Final = 5


class LabelNoiseDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    actions: dict[str, int]
    used: list[str]
    """The witnesses that were combined."""
    summary: str


def run_label_noise(
    input: str | Path,
    output: str | Path,
    *,
    folds: int = 5,
    seed: int = 0,
    encoder: str | Encoder = EMBEDDED,
    prior: str | None = EMBEDDED,
    language_model: str | AnswerReader | None = None,
    annotator: str | None = None,
    votes: str | None = None,
    vote_method: Method = "dawid_skene",
    flip_below: float = FLIP_BELOW,
    drop_below: float = DROP_BELOW,
    progress: StepProgress | None = None,
) -> LabelNoiseDone:
    """Adds ``label_probability`` (out of fold), ``label_margin`` and ``suggested_action`` to a file of pairs.

    Ready rewards in ``chosen_rewards`` and ``rejected_rewards`` are used where the file has them, and so are
    columns ``annotator`` and ``votes`` (``annotator_loss_rank`` and ``vote_probability`` are then added). The
    whole file is read at once.

    Args:
        annotator, votes: the columns, where they have other names.
        folds, seed, encoder, prior, language_model, vote_method, flip_below, drop_below: see
            :func:`curation.scores.label_noise.label_noise`.

    Raises:
        InputError: when the file, its columns or an option is wrong, or prompts are fewer than folds.
        ModelError: when the encoder, the heads or the language model cannot be loaded.
    """
    advance = progress.advance if progress else lambda rows: None
    with open_stream(input, output, shapes=("pair",), chunk_rows=None) as stream:
        used: list[str] = []
        found: LabelNoise | None = None
        actions: dict[str, int] = {}
        for chunk in stream.chunks():
            who = annotator or _there(stream.originals, "annotator")
            said = votes or _ballots(stream.originals, "votes")
            result = label_noise(
                _with_witnesses(chunk, stream.originals, who, said),
                folds=folds,
                seed=seed,
                encoder=encoder,
                prior=prior,
                language_model=language_model,
                annotator=who,
                votes=said,
                vote_method=vote_method,
                flip_below=flip_below,
                drop_below=drop_below,
                advance=advance,
            )
            added = [name for name in (*LABEL_NOISE_COLUMNS, *_PEOPLE) if name in result.frame.columns]
            stream.write(result.frame.select("row", *added))
            place = chunk["row"]
            stream.reject_frame(result.rejects.with_columns(row=place.gather(result.rejects["row"])))
            actions = dict(result.frame["suggested_action"].value_counts(sort=True).iter_rows())
            used, found = result.used, result
            used = [*used, *_left_alone(stream.originals, stream.source.mixed, said)]
    lines = [
        stream.summary(),
        "used: " + "; ".join(used),
    ]
    if actions:
        lines.append("suggested: " + ", ".join(f"{action} {count:,}" for action, count in actions.items()))
    lines += [] if found is None or not found.frame.height else _reliability(found)
    return LabelNoiseDone(stream.rows_written, stream.rejected, actions, used, "\n".join(lines))


def _there(originals: pl.DataFrame, column: str) -> str | None:
    """A column of this name, where the file has it and it says something."""
    return column if column in originals.columns and originals[column].null_count() < originals.height else None


def _left_alone(originals: pl.DataFrame, mixed: Collection[str], used: str | None) -> list[str]:
    """What to say of votes that are votes, and cannot be read because their types differ."""
    if (
        used is not None
        or "votes" not in mixed
        or not originals["votes"].str.contains('"voter"', literal=True).any()
    ):
        return []
    return [
        "column 'votes' is not used, for its values are of several types: give each vote as chosen, rejected or tie"
    ]


def _ballots(originals: pl.DataFrame, column: str) -> str | None:
    """The same of votes: a column of that name may as well count upvotes, and is then left alone."""
    kind = originals.schema.get(column)
    inner = kind.inner if isinstance(kind, pl.List) else None
    fields = {field.name for field in inner.fields} if isinstance(inner, pl.Struct) else set()
    return _there(originals, column) if {"voter", "vote"} <= fields else None


def _with_witnesses(chunk: pl.DataFrame, originals: pl.DataFrame, *columns: str | None) -> pl.DataFrame:
    """The canonical pairs, with what else the file says of them."""
    wanted = [name for name in columns if name is not None]
    missing = [name for name in wanted if name not in originals.columns]
    if missing:
        names = ", ".join(name for name in originals.columns if name != ROW)
        raise InputError(f"column {missing[0]!r} is missing: found {names}")
    if all(_there(originals, name) for name in _WITNESSES):
        wanted += _WITNESSES
    if "flipped" in originals.columns:
        wanted.append("flipped")
    more = originals.select(pl.col(ROW).alias("row"), *wanted)
    return chunk.join(more, on="row", how="left", maintain_order="left") if wanted else chunk


def _reliability(result: LabelNoise) -> list[str]:
    """Who can be believed, and what confident learning counts."""
    lines = [f"share of right labels, estimated: {result.right_share:.3f}; confident learning: "
             f"{1 - result.confident.noise_rate:.3f}",
             f"the text model, out of fold, agrees with {result.agreement} of the given labels: one that it "
             f"contradicts is likelier wrong than right where over {result.agreement.worth_from:.0%} are wrong",
             *result.warnings]  # fmt: skip
    least = result.annotators.head(_SHOWN)
    if least.height:
        named = ", ".join(f"{name} {share:.2f} of {rows:,}" for name, rows, share, _ in least.iter_rows())
        lines.append(f"least reliable annotators (share of right labels): {named}")
    voters = result.voters.sort("reliability", "voter")
    if voters.height:
        named = ", ".join(
            f"{name} {share:.2f} of {votes:,}" for name, votes, share in voters.head(_SHOWN).iter_rows()
        )
        lines.append(f"least reliable of {voters.height:,} voters: {named}")
    return lines
