"""How many answers the encoder must read: ``python benchmarks/refusals_gate.py [--data DIR] [--held-out]``.

The lexical part is fitted to the labels alone and to labels and the encoder's opinions (distilled), on four fifths
of the answers each time, and read on the fifth left out; then the gate is varied. Nothing of the test part of
chatgpt_refusals is read. ``--held-out`` fine-tunes an encoder that has not seen the validation part (15 minutes).
Not here: the figures of the bundled detector, which are in benchmarks/refusals.py. No text is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from _figures import FIGURES, shared_data

from curation.embedded._refusals_data import Answer, chatgpt_parts, labelled_sources, unlabelled_answers
from curation.embedded._refusals_lexical import Features, features, fit_lexical
from curation.embedded.make_refusals import CASCADE, SHARPER, distilled, encoder_answers
from curation.models.identity import EMBEDDED_DIR
from curation.models.refusal_encoder import RefusalEncoder
from curation.refusals.lexical import read

FOLDER = EMBEDDED_DIR / "refusals"
FOLDS = 5
GATES = (0.0, 0.2, 0.25, 0.5, 0.75, 1.0, 1.5)

Floats = npt.NDArray[np.float64]


class Taught(NamedTuple):
    """Labelled answers, then unlabelled ones, as the lexical part learns from them."""

    answers: list[Answer]
    soft: Floats
    weights: Floats
    labelled: int


def out_of_fold(taught: Taught, given: Features, fold: npt.NDArray[np.int64], *, distil: bool) -> Floats:
    """Lexical logits of every answer from a fit that has not seen its fold."""
    logits = np.zeros(len(taught.answers))
    rows = np.arange(len(taught.answers))
    for number in range(FOLDS):
        train = rows[(fold != number) & (distil | (rows < taught.labelled))].tolist()
        model = fit_lexical(taught.answers, given, train, FOLDER, soft=taught.soft, weights=taught.weights)
        test = rows[fold == number]
        logits[test] = model.score([read(taught.answers[row].text) for row in test]).refusal
    return logits


def folds_of(taught: Taught, names: list[str]) -> npt.NDArray[np.int64]:
    """Labelled answers by prompt, stratified by source and label; unlabelled ones at random."""
    from sklearn.model_selection import StratifiedGroupKFold

    labelled = taught.answers[: taught.labelled]
    strata = [f"{name} {answer.refusal}" for name, answer in zip(names, labelled, strict=True)]
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    fold = np.zeros(len(taught.answers), dtype=np.int64)
    for number, (_, test) in enumerate(split.split(labelled, strata, [answer.group for answer in labelled])):
        fold[test] = number
    fold[taught.labelled :] = np.random.default_rng(0).integers(0, FOLDS, len(fold) - taught.labelled)
    return fold


def joined(words: Floats, seen: Floats, gate: float) -> Floats:
    both = CASCADE.lexical_weight * words + CASCADE.encoder_weight * seen
    return np.where(np.abs(words) < gate, both, words)


def held_out_encoder(data: Path) -> Floats:
    """Logits of the validation part from an encoder fitted without it."""
    from curation.embedded._refusals_encoder import fine_tune

    train, validation, _ = chatgpt_parts(data)
    prompts = {answer.group for answer in validation}
    sources = labelled_sources(data)
    sources["chatgpt"] = [answer for answer in train if answer.group not in prompts]
    encoder = fine_tune(encoder_answers(sources))
    return encoder.logits([answer.text for answer in validation])[:, 0].astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--held-out", action="store_true")
    options = parser.parse_args()
    options.data = shared_data(options.data)
    FIGURES.packages.append("scikit-learn")
    sources = labelled_sources(options.data)
    names = [name for name, rows in sources.items() for _ in rows]
    encoder = RefusalEncoder.load(FOLDER)
    taught = Taught(*distilled(sources, unlabelled_answers(options.data), encoder), labelled=len(names))
    texts = [answer.text for answer in taught.answers]
    shares = taught.soft[taught.labelled :]
    seen = np.log(shares / (1 - shares)) / SHARPER
    given, fold = features(texts, FOLDER), folds_of(taught, names)
    truth = np.array([answer.refusal == 1 for answer in taught.answers[: taught.labelled]])
    train, validation, _ = chatgpt_parts(options.data)
    held = np.arange(len(train), len(train) + len(validation))
    unseen = held_out_encoder(options.data) if options.held_out else None
    print("| lexical part | gate | unlabelled: read by the encoder % | agree with it % | validation % |")
    print("| --- | --- | --- | --- | --- |")
    for title, distil in (("labels alone", False), ("distilled", True)):
        words = out_of_fold(taught, given, fold, distil=distil)
        plain = words[taught.labelled :]
        for gate in GATES:
            cells = [
                100 * np.mean(np.abs(plain) < gate),
                100 * np.mean((joined(plain, seen, gate) > 0) == (seen > 0)),
            ]
            if unseen is not None:
                cells.append(100 * np.mean((joined(words[held], unseen, gate) > 0) == truth[held]))
            if distil and gate == CASCADE.gate:
                FIGURES.add(
                    "answers that the encoder must read", cells[0], "%", conditions=f"gate {gate}, distilled"
                )
                FIGURES.add(
                    "agreement with reading all of them", cells[1], "%", conditions=f"gate {gate}, distilled"
                )
            texts_of = [f"{cell:.1f}" for cell in cells] + ([""] if unseen is None else [])
            print(f"| {title} | {gate} | " + " | ".join(texts_of) + " |")
        for name in sources:
            mine = np.flatnonzero(np.array(names) == name)
            print(f"{title}, alone, {name}: {100 * np.mean((words[mine] > 0) == truth[mine]):.1f} % of {len(mine)}")


if __name__ == "__main__":
    main()
    FIGURES.write()
