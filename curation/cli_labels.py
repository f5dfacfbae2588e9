"""The commands on labels: structure of pairs, preference strength, label noise. They parse and print.

What asks reward models and judges is in ``cli_rewards``; the work, in ``commands``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from curation.cli_options import InputFile, OutputFile
from curation.errors import InputError
from curation.progress import RichProgress

__all__ = ["labels"]

labels: Final = typer.Typer()
console: Final = Console(highlight=False)


class _Bands(StrEnum):
    quantile = "quantile"
    probability = "probability"


class _Scaling(StrEnum):
    robust = "robust"
    none = "none"


class _Cycles(StrEnum):
    keep = "keep"
    drop = "drop"


@labels.command()
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


@labels.command()
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


@labels.command("label-noise")
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
