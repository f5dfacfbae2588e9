"""The commands that work on one file, without a workspace. They parse and print; the work is in ``commands``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.console import Console

from curation.cli_options import InputFile, OutputFile
from curation.progress import RichProgress, StepProgress

__all__ = ["files"]

files: Final = typer.Typer()
console: Final = Console(highlight=False)

Model = Annotated[str, typer.Option(help="a folder, a Hub id (owner/name[@revision]), or embedded")]


class _Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class _Backend(StrEnum):
    transformers = "transformers"
    vllm = "vllm"


class _Index(StrEnum):
    auto = "auto"
    flat = "flat"
    ivf = "ivf"
    hnsw = "hnsw"


class _Storage(StrEnum):
    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


class _Method(StrEnum):
    exact = "exact"
    minhash = "minhash"
    semantic = "semantic"


class _Selection(StrEnum):
    k_centre = "k_centre"
    facility_location = "facility_location"
    dsir = "dsir"
    transport = "transport"
    lengths = "lengths"


@contextmanager
def _rows(name: str) -> Iterator[StepProgress]:
    """A bar for a file of unknown length."""
    with RichProgress().step(name, None) as bar:
        yield bar


@files.command()
def ches(
    input: InputFile,
    output: OutputFile,
    policy: Model = "embedded",
    raw: Annotated[bool, typer.Option("--raw", help="join prompt and answer without the chat template")] = False,
    dtype: _Dtype = _Dtype.float32,
    batch_tokens: Annotated[int, typer.Option(min=1, help="tokens in one forward pass")] = 4096,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="reject what is longer, in tokens; default: the model's context")
    ] = None,
    backend: _Backend = _Backend.transformers,
    output_gradients: Annotated[
        bool, typer.Option("--output-gradients", help="also test each pair for gradient entanglement")
    ] = False,
    template_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="a variable of the chat template, such as enable_thinking=false"),
    ] = None,
) -> None:
    """Add CHES, token counts, log-probabilities and difficulty to pairs."""
    from curation.commands.ches import run_ches
    from curation.models.template_options import named_options

    with _rows("ches") as bar:
        done = run_ches(
            input,
            output,
            policy=policy,
            raw=raw,
            dtype=dtype.value,
            batch_tokens=batch_tokens,
            max_length=max_length,
            backend=backend.value,
            output_gradients=output_gradients,
            template_options=named_options(template_option or ()),
            progress=bar,
        )
    console.print(done.summary, markup=False, soft_wrap=True)


@files.command()
def negatives(
    input: InputFile,
    output: OutputFile,
    corpus: Annotated[str | None, typer.Option(help="a file with a column text; default: all positives")] = None,
    num_negatives: Annotated[int, typer.Option(min=1)] = 3,
    model: Model = "embedded",
    query_prompt: Annotated[
        str | None,
        typer.Option(help="put before anchors: 'query: ' for E5; default: the model's own, or none"),
    ] = None,
    document_prompt: Annotated[
        str | None, typer.Option(help="put before documents: 'passage: ' for E5; default: the model's own")
    ] = None,
    range_min: Annotated[int, typer.Option(min=0, help="skip so many of the nearest that are left")] = 0,
    range_max: Annotated[int | None, typer.Option(min=1, help="look no further than so many")] = None,
    max_score: Annotated[float | None, typer.Option(help="drop documents that score higher")] = None,
    min_score: Annotated[float | None, typer.Option(help="drop documents that score lower")] = None,
    absolute_margin: Annotated[
        float | None, typer.Option(help="how far below the positive a document must score")
    ] = None,
    relative_margin: Annotated[float | None, typer.Option(help="below the positive, as a share of it")] = 0.05,
    index: Annotated[
        _Index, typer.Option(help="flat: exact; ivf, hnsw: approximate, with the recall it reached; auto: by size")
    ] = _Index.auto,
    storage: Annotated[
        _Storage | None, typer.Option(help="for hnsw: how its graph holds vectors; scores are exact with any")
    ] = None,
    target_recall: Annotated[float, typer.Option(min=0.0, max=1.0, help="of an approximate search")] = 0.99,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Add hard negatives to anchors and positives; prints what each rule removed."""
    from curation.commands.negatives import run_negatives

    done = run_negatives(
        input,
        output,
        corpus=corpus,
        model=model,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        num_negatives=num_negatives,
        range_min=range_min,
        range_max=range_max,
        max_score=max_score,
        min_score=min_score,
        absolute_margin=absolute_margin,
        relative_margin=relative_margin,
        index=index.value,
        storage=None if storage is None else storage.value,
        target_recall=target_recall,
        seed=seed,
        note=lambda text: console.print(text, markup=False, soft_wrap=True),
    )
    console.print(done.summary, markup=False, soft_wrap=True)


@files.command()
def dedup(
    input: InputFile,
    output: OutputFile,
    column: Annotated[list[str], typer.Option(help="the column to compare; again for several together")],
    method: _Method = _Method.exact,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Jaccard or cosine similarity of duplicates")
    ] = None,
    keep: Annotated[str, typer.Option(help="first, longest or best (with --score)")] = "first",
    score: Annotated[str | None, typer.Option(help="the column that says which row is best")] = None,
    against: Annotated[str | None, typer.Option(help="an earlier version: drop what stands there")] = None,
    model: Model = "embedded",
) -> None:
    """Keep one row of each set of duplicates; rejects name the row that was kept."""
    from curation.commands.dedup import run_dedup

    done = run_dedup(
        input,
        output,
        column=column,
        method=method.value,
        threshold=threshold,
        keep=keep,
        score=score,
        against=against,
        encoder=model,
    )
    console.print(done, markup=False, soft_wrap=True)


@files.command()
def decontaminate(
    input: InputFile,
    output: OutputFile,
    against: Annotated[list[str], typer.Option(help="an evaluation set; give it again for more")],
    column: Annotated[str, typer.Option(help="the column to compare")] = "prompt",
    ngram: Annotated[
        int | None, typer.Option(min=1, help="words in a shared n-gram; default: chosen by length")
    ] = None,
    similarity: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="also drop rows whose embedding is this near")
    ] = None,
) -> None:
    """Drop rows that stand in an evaluation set; rejects name the set, the row and the text."""
    from curation.commands.decontaminate import run_decontaminate

    done = run_decontaminate(input, output, against=against, column=column, n=ngram, similarity=similarity)
    console.print(done, markup=False, soft_wrap=True)


@files.command()
def select(
    input: InputFile,
    output: OutputFile,
    method: Annotated[
        _Selection, typer.Option(help="k_centre, facility_location: diverse rows; the others: rows like the target")
    ],
    rows: Annotated[int, typer.Option(min=1, help="how many to choose")],
    column: Annotated[str, typer.Option(help="the column to choose by")] = "prompt",
    target: Annotated[
        str | None, typer.Option(help="for dsir, transport, lengths: a file of texts to be like")
    ] = None,
    model: Model = "embedded",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Choose so many rows, for diversity or likeness to a target; rejects name the nearest chosen row."""
    from curation.commands.select import run_select

    done = run_select(
        input, output, method=method.value, rows=rows, column=column, target=target, encoder=model, seed=seed
    )
    console.print(done, markup=False, soft_wrap=True)
