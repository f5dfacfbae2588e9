"""The commands on refusals. They parse and print; the work is in ``commands``: ``refusals``, ``refusal_labels``.

``curation refusals INPUT`` detects; ``sample-for-labelling``, ``rate``, ``calibrate``, ``r-tuning`` and
``categories`` are beside it: one group, whose first word may be left out for detection.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from curation.cli_options import CostsFile, InputFile, OutputFile, unless_named
from curation.errors import InputError
from curation.progress import RichProgress

if TYPE_CHECKING:
    from curation.refusals.sorting import Sorter
    from curation.refusals.taxonomy import Taxonomy

__all__ = ["refusal_commands"]

refusal_commands: Final = typer.Typer()
console: Final = Console(highlight=False)


group: Final = typer.Typer(
    cls=unless_named("detect"),
    no_args_is_help=True,
    help="Tell refusals from answers (refusals INPUT -o OUT); sample answers to label, estimate rates, calibrate, "
    "tell sure answers from unsure ones, list categories.",
)
refusal_commands.add_typer(group, name="refusals")


def _asked(judge: str) -> dict[str, Any]:
    """The model of a judge, and how it is asked, as the functions that open one take them."""
    from curation.models.chat.asking import VERDICT, read_asking, split_options

    model, options = split_options(judge)
    return {"model": model, "asking": read_asking(options, max_new_tokens=VERDICT.max_new_tokens)}


@group.command()
def detect(
    input: InputFile,
    output: OutputFile,
    model: Annotated[str, typer.Option(help="a folder, a Hub id of a classifier, or embedded")] = "embedded",
    refusal_label: Annotated[
        list[str], typer.Option(help="a label of a classifier that means a refusal; default: those that say so")
    ] = [],  # noqa: B006
    classifier_input: Annotated[
        str | None,
        typer.Option(help="what a classifier reads: a text with {response} and maybe {prompt}; the answer alone"),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="a chat model that judges instead: a folder, a Hub id, http://host:port/v1#name, and "
            "?max_new_tokens=…&temperature=…&key_variable=…&body.<field>=… behind it"
        ),
    ] = None,
    judge_backend: Annotated[
        str, typer.Option(help="auto (a server for an address, else transformers), server, transformers, vllm")
    ] = "auto",
    taxonomy: Annotated[
        str,
        typer.Option(
            help="categories of prompts: sorry_bench (also _2024_06, _2025_03), coconot, a YAML file, or none"
        ),
    ] = "sorry_bench",
    category_model: Annotated[
        str | None,
        typer.Option(
            help="a classifier that sorts the prompts: a folder or a Hub id; its labels are the categories"
        ),
    ] = None,
    no_category: Annotated[
        list[str], typer.Option(help="a label of that classifier that means none; default: none, other, safe, …")
    ] = [],  # noqa: B006
    category_judge: Annotated[
        str | None, typer.Option(help="a chat model that sorts the prompts, as for --judge")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="a file that `refusals calibrate` wrote")] = None,
    requests: Annotated[
        bool, typer.Option("--requests", help="also judge the prompts: should they be refused, why, look-alikes")
    ] = False,
    costs: CostsFile = None,
) -> None:
    """Tell refusals from answers; name the category of each prompt."""
    from curation.commands.kept_replies import kept_replies
    from curation.commands.refusals import run_refusals
    from curation.commands.spending import within_costs
    from curation.models.categories import open_classifier_sorter, open_judge_sorter
    from curation.models.refusals import open_refusal_detector, open_refusal_judge

    if judge is not None and (refusal_label or classifier_input is not None):
        raise InputError("--refusal-label and --classifier-input are of a classifier: --judge names a chat model")
    if category_model is not None and category_judge is not None:
        raise InputError("--category-model and --category-judge: only one of the two can sort the prompts")
    sorter: Callable[[Taxonomy], Sorter] | None = None
    if category_model is not None:
        sorter = partial(open_classifier_sorter, model=category_model, no_category=no_category)
    elif category_judge is not None:
        sorter = partial(open_judge_sorter, **_asked(category_judge), backend=judge_backend)

    judges = [f"judge:{asked}" for asked in (judge, category_judge) if asked is not None]
    within = within_costs(costs, output, judges, command="refusals")
    with kept_replies(output), within, RichProgress().step("refusals", None) as bar:
        done = run_refusals(
            input,
            output,
            model=open_refusal_judge(**_asked(judge), backend=judge_backend)
            if judge is not None
            else open_refusal_detector(model, refusal_labels=refusal_label, classifier_input=classifier_input),
            taxonomy=None if taxonomy == "none" else taxonomy,
            sorter=sorter,
            calibration=calibration,
            requests=requests,
            progress=bar,
        )
    console.print(done.summary, markup=False, soft_wrap=True)


@group.command()
def sample_for_labelling(
    input: InputFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="a .csv file for spreadsheets, or a .jsonl or .parquet file")
    ],
    size: Annotated[int, typer.Option(min=2, help="answers to draw, on average")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw answers to label by hand, with known probabilities: a sheet with a column label to fill in."""
    from curation.commands.refusal_labels import run_sample_for_labelling

    text = run_sample_for_labelling(input, output, size=size, seed=seed)
    console.print(text, markup=False, soft_wrap=True)


@group.command()
def rate(
    input: InputFile,
    sheet: Annotated[str, typer.Option(help="the sheet from sample-for-labelling, filled in")],
    by: Annotated[str | None, typer.Option(help="a column: one rate for each of its values")] = None,
) -> None:
    """Estimate refusal rates with 95 % intervals from a detected file and its filled-in sheet."""
    from curation.commands.refusal_labels import run_refusals_rate

    console.print(run_refusals_rate(input, sheet, by=by).summary, markup=False, soft_wrap=True)


class _By(StrEnum):
    correctness = "correctness"
    entropy = "entropy"


@group.command()
def r_tuning(
    input: InputFile,
    output: OutputFile,
    by: Annotated[
        _By, typer.Option(help="correctness: the first answer is right; entropy: the sampled answers agree")
    ] = _By.correctness,
    answers: Annotated[
        str | None,
        typer.Option(help="the model's own answers, a text or a list; default: answers, responses or response"),
    ] = None,
    gold: Annotated[str, typer.Option(help="the column with the right answer, or a list of them")] = "gold",
    verifier: Annotated[
        str, typer.Option(help="for correctness: exact_match or python:package.module:function")
    ] = "exact_match",
    max_entropy: Annotated[
        float | None,
        typer.Option(min=0.0, help="for entropy: nats up to which a question is sure; default: half are"),
    ] = None,
    min_answers: Annotated[
        int, typer.Option(min=2, help="for entropy: answers of a question that can be read")
    ] = 3,
) -> None:
    """Label questions as sure or unsure from the model's answers and the right ones (R-Tuning)."""
    from curation.commands.r_tuning import run_r_tuning

    said = run_r_tuning(
        input,
        output,
        by=by.value,
        answers=answers,
        gold=gold,
        verifier=verifier,
        max_entropy=max_entropy,
        min_answers=min_answers,
    )
    console.print(said, markup=False, soft_wrap=True)


@group.command()
def calibrate(
    input: InputFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="a .json file for --calibration and recipes")],
    label: Annotated[str, typer.Option(help="the column of labels: 0 answers, 1 refuses")] = "label",
    model: Annotated[
        str, typer.Option(help="detects INPUT where it was not yet; else what did, if refusal_detector is missing")
    ] = "embedded",
    taxonomy: Annotated[
        str | None,
        typer.Option(
            help="categories of prompts where INPUT was not detected yet: sorry_bench (by default), coconot, "
            "a YAML file, or none"
        ),
    ] = None,
) -> None:
    """Fit calibrated probabilities and thresholds per category to a labelled file."""
    from curation.commands.refusal_labels import run_calibrate

    text = run_calibrate(input, output, label=label, model=model, taxonomy=taxonomy)
    console.print(text, markup=False, soft_wrap=True)


@group.command()
def categories(
    taxonomy: Annotated[
        str,
        typer.Argument(help="sorry_bench, sorry_bench_2024_06, sorry_bench_2025_03, coconot, or a YAML file"),
    ] = "sorry_bench",
) -> None:
    """List a taxonomy's categories, with their numbers by release; check a file of your own."""
    from curation.commands.taxonomies import taxonomy_text

    console.print(taxonomy_text(taxonomy), markup=False, soft_wrap=True)
