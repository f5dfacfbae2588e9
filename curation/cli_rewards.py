"""The commands on rewards, strength and label noise. They parse and print; the work is in ``commands``.

``curation rewards INPUT`` scores and ``curation rewards train INPUT`` trains: one group, whose first word may
be left out.
"""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

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


class _Bands(StrEnum):
    quantile = "quantile"
    probability = "probability"


class _Scaling(StrEnum):
    robust = "robust"
    none = "none"


class _Cycles(StrEnum):
    keep = "keep"
    drop = "drop"


@scores.command()
def structure(
    input: InputFile,
    output: OutputFile,
    cycles: Annotated[
        _Cycles, typer.Option(help="what to do with pairs of one prompt whose preferences go round in a circle")
    ] = _Cycles.keep,
    match_lengths: Annotated[
        bool,
        typer.Option("--match-lengths", help="drop pairs until chosen is longer as often as it is shorter"),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the draw of --match-lengths")] = 0,
) -> None:
    """Find cycles, contradictions and length bias among the pairs of a file."""
    from curation.commands.structure import run_structure

    done = run_structure(input, output, cycles=cycles.value, matching=match_lengths, seed=seed)
    console.print(done.summary, markup=False, soft_wrap=True)


@scores.command()
def strength(
    input: InputFile,
    output: OutputFile,
    labelled: Annotated[
        str | None, typer.Option(help="a Boolean column: is the label right? calibrates label_probability")
    ] = None,
    bands: Annotated[_Bands, typer.Option(help="what the bands are cut by")] = _Bands.quantile,
    thresholds: Annotated[
        str | None,
        typer.Option(
            help="three cuts, as in 0.1,0.3,0.9; default 0.2,0.4,0.9 by quantile, 0.35,0.6,0.95 by probability"
        ),
    ] = None,
    scaling: Annotated[
        _Scaling, typer.Option(help="robust: each model's margins over 1.4826 x median |margin|; none: as given")
    ] = _Scaling.robust,
    length_control: Annotated[
        bool,
        typer.Option("--length-control", help="take out of the margins what follows the log length ratio"),
    ] = False,
    action: Annotated[
        list[str],
        typer.Option(help="BAND=ACTION[+ACTION], such as likely_flipped=flip or very_strong=soft_label+margin"),
    ] = [],  # noqa: B006
    goals: Annotated[bool, typer.Option("--goals", help="each pair twice, conditioned on a goal score")] = False,
) -> None:
    """Add preference strength to pairs that have rewards."""
    from curation.commands.strength import run_strength

    done = run_strength(
        input, output, labelled=labelled, bands=bands.value, thresholds=_cuts(thresholds), scaling=scaling.value,
        length_control=length_control, actions=_band_actions(action), goals=goals,
    )  # fmt: skip
    console.print(done.summary, markup=False, soft_wrap=True)


def _cuts(given: str | None) -> tuple[float, float, float] | None:
    """Three numbers by commas; whether they are good cuts is found where they are used."""
    if given is None:
        return None
    try:
        low, middle, high = (float(word) for word in given.split(","))
    except ValueError:
        raise InputError(
            f"--thresholds is {given!r}, expected three numbers by commas, as in 0.2,0.4,0.9"
        ) from None
    return low, middle, high


def _band_actions(given: list[str]) -> dict[str, list[Any]]:
    """BAND=ACTION+ACTION, as the user wrote it; unknown names are found where the actions are done."""
    found: dict[str, list[Any]] = {}
    for band, _, words in (item.partition("=") for item in given):
        found.setdefault(band, []).extend(words.split("+"))
    return found


class _Voting(StrEnum):
    majority = "majority"
    dawid_skene = "dawid_skene"
    glad = "glad"
    mace = "mace"
    noisy_bradley_terry = "noisy_bradley_terry"


@scores.command("label-noise")
def label_noise(
    input: InputFile,
    output: OutputFile,
    folds: Annotated[int, typer.Option(min=2, help="parts for out-of-fold probabilities")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    annotator: Annotated[
        str | None, typer.Option(help="the column that says who gave the label; default: annotator, if it is there")
    ] = None,
    votes: Annotated[
        str | None, typer.Option(help="a column of lists of {voter, vote}; default: votes, if it is there")
    ] = None,
    vote_method: Annotated[_Voting, typer.Option(help="how votes are joined")] = _Voting.dawid_skene,
    language_model: Annotated[
        str | None,
        typer.Option(
            help="a causal language model (folder or Hub id) whose states are a witness more; default: none"
        ),
    ] = None,
    flip_below: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="label_probability that suggests a flip")
    ] = 0.2,
    drop_below: Annotated[float, typer.Option(min=0.0, max=1.0, help="and one that suggests to drop")] = 0.5,
) -> None:
    """Add the probability that each label is right, and what to do about it."""
    from curation.commands.label_noise import run_label_noise

    with RichProgress().step("label-noise", None) as bar:
        done = run_label_noise(input, output, folds=folds, seed=seed, annotator=annotator, votes=votes,
                               vote_method=vote_method.value, language_model=language_model,
                               flip_below=flip_below, drop_below=drop_below, progress=bar)  # fmt: skip
    console.print(done.summary, markup=False, soft_wrap=True)
