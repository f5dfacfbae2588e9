"""Contamination: rows that share an n-gram with an evaluation set, or lie next to one of its rows.

N-grams are of words (``shingles``), 8 to 13 of them: for each evaluation set the number of words that 95 %
of its rows reach, held between 8 and 13 (Brown et al. 2020, Language Models are Few-Shot Learners, appendix
C). An evaluation row with fewer words is only matched by a text that consists of the same words.
Reading evaluation sets from files is in ``curation.hygiene.evaluations``.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError, closest
from curation.files import ROW
from curation.hygiene.grams import LONGEST_QUOTE, GramTable, first_of_equal, quote
from curation.hygiene.shingles import UInt64, chunks, find_words, ngrams, text_bytes, words_of
from curation.models.encoder import as_encoder
from curation.models.protocols import Encoder
from curation.negatives.threads import default_threads
from curation.prompts.texts import text_columns

__all__ = [
    "EVALUATION_COLUMNS",
    "Decontaminated",
    "EvaluationIndex",
    "Evaluations",
    "decontaminate",
    "evaluation_texts",
    "gram_size",
]

EVALUATION_COLUMNS: Final = ("prompt", "question", "instruction", "problem", "query", "text", "input", "goal")
"""Where the text of an evaluation row is looked for, after the column of the rows themselves."""

Evaluations = Mapping[str, pl.DataFrame]
"""Name to rows; the names are what rejects quote."""

Int64 = npt.NDArray[np.int64]

_SHORTEST, _LONGEST = 8, 13
_BLOCK: Final = 4_096
"""Texts that are compared with all evaluation rows at once, by their embeddings."""
_MATCHES: Final = {
    "position": pl.Int64,
    "rule": pl.String,
    "set": pl.String,
    "set_row": pl.Int64,
    "score": pl.Float64,
    "text": pl.String,
}


class Decontaminated(NamedTuple):
    """What decontamination leaves."""

    kept: pl.DataFrame
    """The rows that stay, in their order, with all their columns."""
    rejects: pl.DataFrame
    """row, rule (``evaluation_ngram`` or ``evaluation_neighbour``), value (``set:row``), reason with the
    matched text, and matched_set, matched_row, matched_text, score."""


def decontaminate(
    frame: pl.DataFrame,
    against: Evaluations | pl.DataFrame,
    *,
    column: str = "prompt",
    n: int | None = None,
    min_overlap: float = 0.0,
    max_rows: int = 10,
    similarity: float | None = None,
    encoder: str | Encoder = "embedded",
) -> Decontaminated:
    """Removes rows that an evaluation set holds.

    Args:
        frame: the rows; those whose text is null or empty are rejected as such.
        against: evaluation sets by name, or one; their text is in ``column`` or, failing that, in the
            first of :data:`EVALUATION_COLUMNS` that is there.
        column: the text, or message list, of the rows.
        n: words of an n-gram; by default 8 to 13, by the length of the evaluation rows (see above).
        min_overlap: least share of an evaluation row's n-grams that a row must hold to be removed; with
            0 one n-gram is enough.
        max_rows: n-grams of more evaluation rows of one set than this are templates and match nothing. Rows with
            one text count once.
        similarity: remove rows whose cosine with an evaluation row is at least this, too; None: do not
            compute embeddings.
        encoder: for ``similarity``, a MODEL or an open encoder.

    Raises:
        InputError: for a column or an option that cannot be, or an evaluation set without text.
    """
    evaluations = {"evaluation": against} if isinstance(against, pl.DataFrame) else against
    index = EvaluationIndex(
        evaluations,
        column=column,
        n=n,
        min_overlap=min_overlap,
        max_rows=max_rows,
        similarity=similarity,
        encoder=encoder,
    )
    rows, faults = text_columns(frame, [column], name="the frame")
    rejects = pl.concat([faults, index.rejects(rows["row"], rows[column])], how="diagonal").sort("row")
    numbers = frame[ROW] if ROW in frame.columns else pl.Series(range(frame.height), dtype=pl.Int64)
    return Decontaminated(frame.filter(~numbers.is_in(rejects["row"].implode())), rejects)


def gram_size(lengths: Int64) -> int:
    """Words of an n-gram for evaluation rows of these lengths: their 5th percentile, held in 8 … 13."""
    return int(np.clip(np.percentile(lengths, 5), _SHORTEST, _LONGEST)) if len(lengths) else _LONGEST


class EvaluationIndex:
    """Evaluation sets ready to be compared with any number of texts; the options are
    :func:`decontaminate`'s.

    Attributes:
        sizes: for each set the words of its n-grams.
        templates: for each set the n-grams left out because too many rows share them.
        without_text: for each set the rows that nothing could be compared with, malformed ones included.
    """

    def __init__(
        self,
        evaluations: Evaluations,
        *,
        column: str = "prompt",
        n: int | None = None,
        min_overlap: float = 0.0,
        max_rows: int = 10,
        similarity: float | None = None,
        encoder: str | Encoder = "embedded",
    ) -> None:
        _check(evaluations, n, min_overlap, similarity)
        self.sizes: dict[str, int] = {}
        self.templates: dict[str, int] = {}
        self._min_overlap = min_overlap
        texts = {name: evaluation_texts(rows, column, name=name) for name, rows in evaluations.items()}
        self.without_text = {name: rows.height - texts[name].height for name, rows in evaluations.items()}
        for name, rows in texts.items():
            if rows.is_empty():
                raise InputError(
                    f"{name}: found no text in its {self.without_text[name]:,} rows, expected an evaluation set: "
                    "with nothing to compare with, every row would pass; name the column that holds its text"
                )
        owners = [pl.DataFrame({"set": [name] * t.height, "set_row": t["row"]}) for name, t in texts.items()]
        self._owners = pl.concat(owners, how="vertical_relaxed")
        self._tables = self._make_tables({name: t["text"] for name, t in texts.items()}, n, max_rows)
        self._neighbours = None
        if similarity is not None:
            joined = pl.concat([t["text"] for t in texts.values()])
            self._neighbours = _Neighbours(joined, similarity, encoder)

    def matches(self, texts: pl.Series, *, threads: int | None = None) -> pl.DataFrame:
        """One row for each text that is contaminated: its position, the rule, the evaluation row that it
        matches best, how well (share of n-grams or cosine), and the longest matched text."""
        found = [self._overlaps(texts, threads)]
        if self._neighbours is not None:
            found.append(self._neighbours.matches(texts, self._owners))
        joined = pl.concat(found).select(list(_MATCHES))
        return joined.unique("position", keep="first", maintain_order=True).sort("position")

    def rejects(self, rows: pl.Series, texts: pl.Series) -> pl.DataFrame:
        """The matches as rejects, for texts with these row numbers."""
        found = self.matches(texts)
        is_gram = pl.col("rule") == "evaluation_ngram"
        measure = pl.when(is_gram).then(pl.lit("n-grams shared")).otherwise(pl.lit("cosine"))
        reason = pl.format(
            "matches row {} of {} ({} {}): {}", "set_row", "set", measure, pl.col("score").round(4), "text"
        )
        return found.select(
            row=pl.Series(rows.to_numpy()[found["position"].to_numpy()], dtype=pl.Int64),
            rule="rule",
            value=pl.format("{}:{}", "set", "set_row"),
            reason=reason,
            matched_set="set",
            matched_row="set_row",
            matched_text="text",
            score="score",
        )

    def _make_tables(self, texts: Mapping[str, pl.Series], n: int | None, max_rows: int) -> list[GramTable]:
        by_size: dict[int, list[tuple[UInt64, Int64]]] = {}
        first = 0
        for name, series in texts.items():
            words = find_words(series)
            size = n or gram_size(np.diff(words.offsets))
            grams = ngrams(words, size)
            owner = np.repeat(np.arange(len(series)), np.diff(grams.offsets))
            # A question that stands in a set many times is no template: equal rows count as their first one.
            first_of = first_of_equal(grams)
            pairs = pl.DataFrame({"gram": grams.hashes, "owner": first_of[owner]}).unique(maintain_order=True)
            common = pl.len().over("gram") > max_rows
            rare = pairs.filter(~common)
            self.sizes[name] = size
            self.templates[name] = pairs.filter(common)["gram"].n_unique()
            by_size.setdefault(size, []).append((rare["gram"].to_numpy(), rare["owner"].to_numpy() + first))
            first += len(series)
        return [GramTable.of(size, parts, first) for size, parts in sorted(by_size.items())]

    def _overlaps(self, texts: pl.Series, threads: int | None) -> pl.DataFrame:
        pieces = chunks(texts)
        firsts = np.cumsum([0, *map(len, pieces)])
        with ThreadPoolExecutor(threads or default_threads()) as pool:
            parts = list(pool.map(self._hits, pieces))
        frames = [hits.with_columns(pl.col("position") + int(f)) for hits, f in zip(parts, firsts, strict=False)]
        return pl.concat(frames) if frames else pl.DataFrame(schema=_MATCHES)

    def _hits(self, texts: pl.Series) -> pl.DataFrame:
        """The best match of each contaminated text of a chunk."""
        data, offsets = text_bytes(texts)
        words = words_of(data, offsets)
        found = [table.best(words, self._min_overlap) for table in self._tables]
        best = pl.concat(found).sort("position", "score", "owner", descending=[False, True, False])
        best = best.unique("position", keep="first", maintain_order=True)
        quotes = [
            quote(data, offsets, words, position, start, stop)
            for position, start, stop in best.select("position", "start", "stop").iter_rows()
        ]
        return best.select(
            "position",
            pl.lit("evaluation_ngram").alias("rule"),
            *(self._owners[best["owner"]][name] for name in ("set", "set_row")),
            "score",
            pl.Series("text", quotes, dtype=pl.String),
        )


class _Neighbours:
    """Evaluation rows by their embeddings."""

    def __init__(self, texts: pl.Series, threshold: float, encoder: str | Encoder) -> None:
        self._texts = texts
        self._threshold = threshold
        self._encoder = as_encoder(encoder)
        self._vectors = self._encode(texts)

    def matches(self, texts: pl.Series, owners: pl.DataFrame) -> pl.DataFrame:
        vectors = self._encode(texts)
        best, score = np.zeros(len(texts), dtype=np.int64), np.zeros(len(texts), dtype=np.float64)
        for start in range(0, len(texts) if len(self._vectors) else 0, _BLOCK):
            scores = vectors[start : start + _BLOCK] @ self._vectors.T
            best[start : start + _BLOCK] = scores.argmax(axis=1)
            score[start : start + _BLOCK] = scores.max(axis=1)
        near = np.flatnonzero(score >= self._threshold)
        return pl.DataFrame(
            [
                pl.Series("position", near, dtype=pl.Int64),
                pl.Series("rule", ["evaluation_neighbour"] * len(near), dtype=pl.String),
                *(owners[best[near]][name] for name in ("set", "set_row")),
                pl.Series("score", score[near], dtype=pl.Float64),
                self._texts[best[near]].str.slice(0, LONGEST_QUOTE).alias("text"),
            ]
        )

    def _encode(self, texts: pl.Series) -> npt.NDArray[np.float32]:
        from curation.hygiene.semantic import encode_whole

        return encode_whole(texts.to_list(), self._encoder)[0]


def _check(evaluations: Evaluations, n: int | None, min_overlap: float, similarity: float | None) -> None:
    if not evaluations:
        raise InputError("no evaluation set to compare with: name at least one")
    if n is not None and n < 1:
        raise InputError(f"n {n}, expected at least 1 word (8 to 13 are usual)")
    if not 0 <= min_overlap <= 1:
        raise InputError(f"min_overlap {min_overlap}, expected a share between 0 and 1")
    if similarity is not None and not 0 < similarity <= 1:
        raise InputError(f"similarity {similarity}, expected a cosine above 0 and up to 1")


def evaluation_texts(rows: pl.DataFrame, column: str, *, name: str) -> pl.DataFrame:
    """row and text; rows without text are left out, they can match nothing; the caller counts them."""
    names = [found for found in (column, *EVALUATION_COLUMNS) if found in rows.columns]
    if not names:
        found = [found for found in rows.columns if found != ROW]
        raise InputError(
            f"{name}: no column {column!r}{closest(column, found)}, nor {', '.join(EVALUATION_COLUMNS)}; "
            f"found {', '.join(found)}"
        )
    texts = text_columns(rows, [names[0]], name=name).rows
    return texts.select("row", text=pl.col(names[0]))
