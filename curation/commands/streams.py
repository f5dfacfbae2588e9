"""The loop that every stand-alone command shares: read, normalise, compute, write; rejects beside the output.

    with open_stream("in.jsonl", "out.parquet", shapes=("pair", "responses")) as stream:
        for rows in stream.chunks():                 # canonical rows: see curation.prompts.shapes
            scores = ...                             # a frame: row, and the new columns
            stream.write(scores)                     # the user's columns of those rows, then the new ones
            stream.reject(3, "context_overflow", "9000 tokens", "longer than the model's context")
    print(stream.summary())

Instead of ``shapes`` a command may name ``text`` columns (read as text, never null or empty) or plain
``columns`` (only required to be there). ``stream.shape`` says which shape was found. Rows at fault are
rejected before the command sees them. ``chunk_rows=None`` gives the whole file in one chunk.

Output and rejects appear when the block ends well, and not otherwise. What is computed is not known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from curation.errors import InputError
from curation.files import (
    CHUNK_ROWS,
    ROW,
    InputFile,
    Reject,
    check_output,
    open_input,
    open_output,
    rejects_frame,
    rejects_path,
    write_rejects,
)
from curation.files.writing import FrameWriter, check_schema
from curation.prompts.column_kinds import first_rows
from curation.prompts.rows import normalise
from curation.prompts.shapes import Binding, ColumnMap, read_from, resolve
from curation.prompts.texts import check_columns, refuse_json_columns, text_columns

__all__ = ["Needs", "Stream", "open_stream"]


class Needs(NamedTuple):
    """What a command reads of its input: one of the shapes, or text columns and plain columns."""

    shapes: Sequence[str] = ()
    text: Sequence[str] = ()
    columns: Sequence[str] = ()
    column_map: ColumnMap | None = None


class Stream:
    """An open input and output; see the module's text.

    Attributes:
        shape: the shape that was found, None for ``text`` and ``columns``.
        source: the input file, with its schema.
        input_rows: rows read so far, those that no frame can hold included.
        rows_written: rows written so far.
        rejected: count per rule; complete once the block has ended.
    """

    def __init__(
        self, source: InputFile, writer: FrameWriter, output: Path, needs: Needs, chunk_rows: int | None
    ) -> None:
        self.source = source
        self.output = output
        self.input_rows = 0
        self._needs = needs
        self._chunk_rows = chunk_rows
        self._writer = writer
        self._originals = pl.DataFrame(schema={**source.schema, ROW: pl.Int64})
        self._unfit: list[pl.DataFrame] = []
        self._rejects: list[pl.DataFrame] = []
        self._single: list[Reject] = []
        self._replaced: set[str] = set()
        self._binding = self._resolve()
        bound: Iterable[Sequence[str]] = self._binding.fields.values() if self._binding else [needs.text]
        refuse_json_columns(source, (column for columns in bound for column in columns))

    @property
    def shape(self) -> str | None:
        return self._binding.shape if self._binding else None

    @property
    def originals(self) -> pl.DataFrame:
        """The current chunk as it stands in the file, with its row numbers in ``curation.files.ROW``."""
        return self._originals

    @property
    def rows_written(self) -> int:
        return self._writer.rows

    @property
    def rejected(self) -> dict[str, int]:
        counts = self.rejects()["rule"].value_counts(sort=True)
        return dict(zip(counts["rule"], counts["count"], strict=True))

    def chunks(self) -> Iterator[pl.DataFrame]:
        """The canonical rows, chunk by chunk; a chunk in which every row was rejected is empty.

        It may be asked for again, to read the file once more: rows at fault are still rejected once.
        """
        self.input_rows = 0
        self._unfit = []
        for frame in self.source.chunks(self._chunk_rows):
            self._originals = frame
            self.input_rows += frame.height
            rows, rejects = self._read(frame)
            self._unfit.append(rejects)
            yield rows
        self.input_rows += len(self.source.rejects)
        self._unfit.append(rejects_frame(self.source.rejects))

    def beside(self, rows: pl.DataFrame, names: Collection[str]) -> pl.DataFrame:
        """Rows of the current chunk with columns of the file as they stand there; a missing one is left out."""
        there = [name for name in names if name in self._originals.columns]
        plain = self._originals.select(pl.col(ROW).alias("row"), *there)
        return rows.join(plain, on="row", how="left", maintain_order="left")

    def write(self, new: pl.DataFrame, *, still_mixed: Collection[str] = ()) -> None:
        """Writes rows of the current chunk.

        Args:
            new: ``row`` and the new columns, in the order to write; a row may come several times or not
                at all. A new column takes the place of the user's column of that name.
            still_mixed: the new columns that are the user's own, JSON text where their types differ by row.
        """
        self._writer.mixed -= set(new.columns) - set(still_mixed)
        own = {"row", *still_mixed, *self._needs.columns}
        self._replaced |= {name for name in new.columns if name in self.source.schema and name not in own}
        old = self._originals.drop(set(new.columns) - {"row"}, strict=False)
        added = new.rename({"row": ROW})
        if added.height == old.height and (added[ROW] == old[ROW]).all():
            joined = pl.concat([old, added.drop(ROW)], how="horizontal")
        else:
            joined = added.join(old, on=ROW, how="left", maintain_order="left")
        order = [*old.columns, *(name for name in added.columns if name != ROW)]
        self._writer.write(joined.select(name for name in order if name != ROW))

    def reject(self, row: int, rule: str, value: str, reason: str) -> None:
        self._single.append(Reject(row, rule, value, reason))

    def reject_frame(self, rejects: pl.DataFrame) -> None:
        """Rejects many rows: columns row, rule, value, reason."""
        self._rejects.append(rejects.select(rejects_frame().columns))

    def rejects(self) -> pl.DataFrame:
        """All rejects so far, in the order of the rows."""
        found = [*self._unfit, *self._rejects, rejects_frame(self._single)]
        return pl.concat(found).sort("row", maintain_order=True)

    def summary(self) -> str:
        """What was written and what was not, in a line or two, for the user."""
        rejected = self.rejected
        lines = [f"{self.rows_written:,} rows written to {self.output} ({self.input_rows:,} read)"]
        if rejected:
            rules = ", ".join(f"{rule} {count:,}" for rule, count in rejected.items())
            lines.append(f"{sum(rejected.values()):,} rejected ({rules}): {rejects_path(self.output)}")
        if self._binding and (said := read_from(self._binding, self.source.schema)):
            lines.append(said)
        if self._replaced:
            names = ", ".join(sorted(self._replaced))
            lines.append(f"replaced, because the file had columns of these names: {names}")
        if self._writer.mixed and self.output.suffix == ".parquet":
            names = ", ".join(sorted(self._writer.mixed))
            lines.append(f"kept as JSON text, because their types differ between rows: {names}")
        return "\n".join(lines)

    def finish(self) -> pl.DataFrame:
        """Makes sure that there is an output, be it an empty one, and returns the rejects."""
        if not self._writer.started:
            self._writer.write(pl.DataFrame(schema=self.source.schema))
        return self.rejects()

    def _resolve(self) -> Binding | None:
        source, needs = self.source, self._needs
        if needs.shapes:
            return resolve(
                first_rows(source),
                name=source.name,
                shapes=needs.shapes,
                columns=needs.column_map,
                mixed=source.mixed,
            )
        empty = pl.DataFrame(schema=source.schema)
        check_columns(empty, [*needs.text, *needs.columns], name=source.name)
        if "row" in needs.columns:
            raise InputError(f"{source.name}: column 'row' cannot be read, rejects use that name: rename it")
        return None

    def _read(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        if self._binding:
            return normalise(frame, self._binding, whole=False)
        name, mixed = self.source.name, self.source.mixed
        rows, rejects = text_columns(frame, self._needs.text, name=name, mixed=mixed, whole=False)
        if self._needs.columns:
            plain = frame.select(pl.col(ROW).alias("row"), *self._needs.columns)
            rows = rows.join(plain, on="row", how="left", maintain_order="left")
        return rows, rejects


@contextlib.contextmanager
def open_stream(
    input_path: str | Path,
    output_path: str | Path,
    *,
    shapes: Sequence[str] = (),
    text: Sequence[str] = (),
    columns: Sequence[str] = (),
    column_map: ColumnMap | None = None,
    chunk_rows: int | None = CHUNK_ROWS,
    others: Sequence[str | Path | None] = (),
) -> Iterator[Stream]:
    """Opens the input and the output of a command; see the module's text.

    Args:
        input_path: any input (``curation.files``).
        output_path: ``.parquet``, ``.jsonl`` or ``.jsonl.gz``.
        shapes: names of ``curation.prompts.shapes.SHAPES``, in order of preference.
        text: columns read as text; a null or empty one rejects its row.
        columns: further columns that must be there, passed on as they are.
        column_map: for ``shapes``, field to column.
        chunk_rows: rows of a chunk, None for the whole file.
        others: further files that the command reads, which the output may not replace either.

    Raises:
        InputError: when the input, its columns or the output's suffix are wrong.
        WorkspaceError: when the output cannot be written.
    """
    output = check_output(output_path)
    beside = rejects_path(output)
    for read in (input_path, *(other for other in others if other is not None)):
        place = None if str(read).startswith("hf://") else Path(read).resolve()
        if place == output.resolve():
            lost = (
                "is the input: the rows that are rejected" if read is input_path else "is read, too: what it holds"
            )
            raise InputError(f"output {output} {lost} would be gone; name another")
        if place == beside.resolve():
            raise InputError(f"output {output}: its rejects would take the place of the input {read}: rename one")
    source = open_input(input_path)
    check_schema(source.schema, output)
    needs = Needs(shapes, text, columns, column_map)
    with open_output(output, mixed=source.mixed) as writer:
        stream = Stream(source, writer, output, needs, chunk_rows)
        yield stream
        write_rejects(stream.finish(), beside)
