"""The commands that ask reward models and judges. They parse and print; the work is in ``commands``.

What is made of rewards and labels is in ``cli_labels``.

``curation rewards INPUT`` scores and ``curation rewards train INPUT`` trains: one group, whose first word may
be left out.
"""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from curation.cli_options import CostsFile, InputFile, OutputFile, unless_named
from curation.errors import InputError
from curation.progress import RichProgress

__all__ = ["scores"]

scores: Final = typer.Typer()
console: Final = Console(highlight=False)


class _Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


def _attributes(given: list[str]) -> list[str] | dict[str, float] | None:
    """NAME for each, or NAME=WEIGHT for each."""
    if not given:
        return None
    parts = [item.rpartition("=") for item in given]
    try:
        weights = {name: float(weight) for name, sign, weight in parts if sign}
    except ValueError:
        weights = {"": math.nan}
    if weights and (len(weights) < len(given) or not math.isfinite(sum(weights.values())) or "" in weights):
        fault = "NAME for each, or NAME=WEIGHT for each, every name once and every weight a number"
    elif weights and not any(weights.values()):
        fault = "a weight other than 0"
    elif len(set(given)) < len(given):
        fault = "each label once"
    else:
        return weights or given
    raise InputError(f"--attribute is {' '.join(given)!r}, expected {fault}")


rewards: Final = typer.Typer(
    cls=unless_named("score"),
    no_args_is_help=True,
    help="Score answers with reward models (rewards INPUT -o OUT), or train some (rewards train INPUT -o FOLDER).",
)
scores.add_typer(rewards, name="rewards")


@rewards.command()
def score(
    input: InputFile,
    output: OutputFile,
    model: Annotated[
        list[str],
        typer.Option(
            help="embedded, a folder, a Hub id, judge:… or another that docs/strength.md names; again for more; "
            "default: embedded"
        ),
    ] = [],  # noqa: B006
    models: Annotated[
        Path | None,
        typer.Option(help="instead: a recipe, or a YAML file with its section rewards; each model has its options"),
    ] = None,
    attribute: Annotated[
        list[str],
        typer.Option(
            help="a label of a sequence classifier that is read, again for more; NAME=WEIGHT for all of them makes "
            "one reward, the weighted sum; default: all labels, a reward each"
        ),
    ] = [],  # noqa: B006
    dtype: Annotated[_Dtype | None, typer.Option(help="of sequence classifiers; default: float32")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="of sequence classifiers: longest prompt and answer, in tokens")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="of relevance: its encoder; of heads: where theirs lies now")
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(help="of relevance: a file with prompt and reference, the known answers of prompts"),
    ] = None,
    costs: CostsFile = None,
) -> None:
    """Add rewards to answers or pairs, one entry for each model. The word score may be left out.

    An option of a kind of model goes to every model of that kind; --models gives each model its own.
    """
    from curation.commands.kept_replies import kept_replies
    from curation.commands.rewards import run_rewards
    from curation.commands.spending import within_costs
    from curation.recipe import load_rewards

    given = {"attributes": _attributes(attribute), "dtype": dtype and dtype.value, "max_length": max_length,
             "encoder": encoder, "references": references}  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    if models is not None and (model or options):
        raise InputError(
            f"--models {models} names the models and their options: give no --model and no option of one"
        )
    chosen = load_rewards(models) if models is not None else model or ["embedded"]
    with kept_replies(output), within_costs(costs, output, chosen, command="rewards"):
        with RichProgress().step("rewards", None) as bar:
            done = run_rewards(input, output, models=chosen, options=options, progress=bar)
        console.print(done.summary, markup=False, soft_wrap=True)
        if done.failed:
            raise typer.Exit(1)


@rewards.command()
def train(
    input: InputFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="a new folder for the heads")],
    heads: Annotated[int, typer.Option(min=1, help="each on its own bootstrap sample of the prompts")] = 5,
    folds: Annotated[int, typer.Option(min=2, help="for rewards of these pairs, out of fold")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    encoder: Annotated[
        str, typer.Option(help="a folder, a Hub id (owner/name[@revision]), or embedded")
    ] = "embedded",
    label_probability: Annotated[
        str | None, typer.Option(help="a column with the probability that each label is right, for soft labels")
    ] = None,
) -> None:
    """Train reward heads on pairs, and write the pairs' own rewards out of fold."""
    from curation.commands.rewards_train import run_rewards_train

    done = run_rewards_train(
        input,
        output,
        heads=heads,
        folds=folds,
        seed=seed,
        encoder=encoder,
        label_probability=label_probability,
        progress=RichProgress(),
    )
    console.print(done.summary, markup=False, soft_wrap=True)


@scores.command()
def judge(
    input: InputFile,
    output: OutputFile,
    model: Annotated[str, typer.Option(help="judge:http://host:port/v1#name or judge:MODEL, then ?rubric=honesty")],
    delta: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="a tie where the answers are no farther apart")
    ] = 0.0,
    costs: CostsFile = None,
) -> None:
    """Let an LLM compare the answers of each pair in both orders; prints its position bias and cycles."""
    from curation.commands.judge import run_judge
    from curation.commands.kept_replies import kept_replies
    from curation.commands.spending import within_costs

    within = within_costs(costs, output, [model], command="judge")
    with kept_replies(output), within, RichProgress().step("judge", None) as bar:
        done = run_judge(input, output, model=model, delta=delta, progress=bar)
    console.print(done.summary, markup=False, soft_wrap=True)
