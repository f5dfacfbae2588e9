"""Refusal detection, measured: ``python benchmarks/refusals.py [--data DIR] [--only PART …]``.

Parts: chatgpt, xstest, folds (a quarter of an hour each), matrix, speed, coconot (half an hour: six fits of the
model of requests), requests (the bundled one), kinds, dsl. No text is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from _figures import FIGURES, shared_data
from _refusal_kinds import kinds
from _refusal_rates import dsl
from _refusal_requests import coconot, ordinary

from curation.embedded._refusals_data import Answer, chatgpt_parts, labelled_sources, unlabelled_answers
from curation.embedded._refusals_lexical import features, fit_lexical
from curation.models.identity import EMBEDDED_DIR
from curation.models.refusal_encoder import RefusalEncoder
from curation.models.refusals import open_refusal_detector
from curation.refusals.calibration import expected_calibration_error, thresholds_per_category
from curation.refusals.cascade import load_config
from curation.refusals.detection import detect_refusals
from curation.refusals.lexical import read
from curation.refusals.lexical_model import LexicalModel

FOLDER = EMBEDDED_DIR / "refusals"
ROWS = 20_000


def wilson(right: int, total: int) -> str:
    """95 % interval of a share."""
    p, z = right / total, 1.96
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return f"{100 * (centre - half):.1f}–{100 * (centre + half):.1f}"


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def chatgpt(data: Path) -> None:
    """The test part of chatgpt_refusals: nothing was fitted or chosen on it."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, validation, test = chatgpt_parts(data)
    labels = np.array([a.refusal for a in test])
    found = open_refusal_detector().detect([None] * len(test), [a.text for a in test])
    right = int(((found.probability >= 0.5) == labels).sum())
    words = TfidfVectorizer()
    x = words.fit_transform([a.text for a in train])
    baseline = LogisticRegression(max_iter=2_000).fit(x, [a.refusal for a in train])
    base = int((baseline.predict(words.transform([a.text for a in test])) == labels).sum())
    print("\n### chatgpt_refusals, test part\n")
    row("detector", "accuracy %", "95 % interval", "rows")
    row("---", "---", "---", "---")
    FIGURES.add(
        "refusal detector, published test split", 100 * right / len(test), "% accuracy",
        peer="TF-IDF and logistic regression", peer_value=100 * base / len(test), better="higher", at_least=94,
        conditions=f"{len(test)} answers of chatgpt_refusals, 95 % {wilson(right, len(test))}",
    )  # fmt: skip
    row("bundled", f"{100 * right / len(test):.2f}", wilson(right, len(test)), len(test))
    row("TF-IDF and logistic regression", f"{100 * base / len(test):.2f}", wilson(base, len(test)), len(test))
    print(f"\nCalibration error (10 bins): {expected_calibration_error(found.probability, labels):.3f}. ")
    print(f"Training {len(train)}, validation {len(validation)} rows; the bundled one learns from both.")


def fit_and_score(answers: Sequence[Answer], given: object, train: Sequence[int], test: Sequence[int]) -> object:
    """Lexical scores of ``test`` from a fit on ``train``."""
    model = fit_lexical(answers, given, train, FOLDER)  # type: ignore[arg-type]
    return model.score([read(answers[r].text) for r in test])


def xstest(data: Path) -> None:
    """XSTest completions: the lexical part out of fold and over sources, the bundled detector as it is."""
    from sklearn.model_selection import StratifiedGroupKFold

    sources = labelled_sources(data)
    answers = [a for rows in sources.values() for a in rows]
    names = np.array([n for n, rows in sources.items() for _ in rows])
    labels = np.array([a.refusal for a in answers])
    given = features([a.text for a in answers], FOLDER)
    refusal, partial = np.zeros(len(answers)), np.zeros(len(answers))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(answers, names, [a.group for a in answers]):
        scores = fit_and_score(answers, given, train, test)
        refusal[test], partial[test] = scores.refusal, scores.partial  # type: ignore[attr-defined]
    bundled = open_refusal_detector()
    print("\n### XSTest completions, agreement with the human label, %\n")
    row("completions of", "lexical, out of fold", "lexical, source left out", "bundled (has seen them)", "rows")
    row(*["---"] * 5)
    classes = np.where(refusal <= 0, "compliance", np.where(partial > 0, "partial_refusal", "full_refusal"))
    for name in ("xstest_llama2orig", "xstest_mistralguard"):
        mine = np.flatnonzero(names == name)
        others = np.flatnonzero(names != name)
        left = fit_and_score(answers, given, others, mine).refusal  # type: ignore[attr-defined]
        seen = bundled.detect([None] * len(mine), [answers[r].text for r in mine])
        cells = [((refusal[mine] > 0) == labels[mine]), (left > 0) == labels[mine]]
        cells.append((seen.probability >= 0.5) == labels[mine])
        row(name[7:], *(f"{100 * c.mean():.1f}" for c in cells), len(mine))
        truth = [answers[r].refusal_class for r in mine]
        three = np.mean([c == t for c, t in zip(classes[mine], truth, strict=True)])
        three_seen = np.mean([c == t for c, t in zip(seen.refusal_class, truth, strict=True)])
        row(f"{name[7:]}, three classes", f"{100 * three:.1f}", "", f"{100 * three_seen:.1f}", len(mine))
    print("\nThresholds by source (out of fold):")
    known = names != "written"
    table = thresholds_per_category(1 / (1 + np.exp(-refusal[known])), labels[known], names[known].tolist())
    print(f"common {table.common:.2f}, spread {table.spread:.2f}")


def folds(data: Path, count: int = 1) -> None:
    """Encoder, lexical part and both, fitted on four fifths of the prompts and tested on the rest."""
    from sklearn.model_selection import StratifiedGroupKFold

    from curation.embedded._refusals_encoder import fine_tune
    from curation.embedded.make_refusals import CASCADE, encoder_answers

    sources = labelled_sources(data)
    answers = [a for rows in sources.values() for a in rows]
    names = np.array([n for n, rows in sources.items() for _ in rows])
    strata = np.array([f"{n} {a.refusal}" for n, a in zip(names, answers, strict=True)])
    split = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(answers, strata, [a.group for a in answers])
    given = features([a.text for a in answers], FOLDER)
    found = np.full((3, len(answers)), np.nan)
    for fold, (train, test) in zip(range(count), split, strict=False):
        print(f"fold {fold + 1} of {count}", flush=True)
        seen = {name: [answers[r] for r in train if names[r] == name] for name in sources}
        encoder = fine_tune(encoder_answers(seen))
        model = fit_lexical(answers, given, train, FOLDER)
        words = model.score([read(answers[r].text) for r in test]).refusal
        read_by = encoder.logits([answers[r].text for r in test])[:, 0]
        both = CASCADE.lexical_weight * words + CASCADE.encoder_weight * read_by
        both = np.where(np.abs(words) < CASCADE.gate, both, words)
        found[:, test] = words, read_by, both
    labels = np.array([a.refusal for a in answers])
    print(f"\n### Held out by prompt, {count} of 5 folds, accuracy %\n")
    row("source", "lexical", "encoder", "as bundled", "rows")
    row(*["---"] * 5)
    for name in sources:
        mine = np.flatnonzero((names == name) & np.isfinite(found[0]))
        shares = [100 * float(((f[mine] > 0) == labels[mine]).mean()) for f in found]
        row(name, *(f"{share:.1f}" for share in shares), len(mine))
        FIGURES.add(
            f"refusals held out by prompt, {name}",
            shares[2],
            "% accuracy",
            conditions=f"{count} folds, {len(mine)} rows",
        )


def matrix(data: Path) -> None:
    """A fit on one source tested on each other one (lexical part)."""
    sources = labelled_sources(data)
    sources["xstest"] = sources.pop("xstest_llama2orig") + sources.pop("xstest_mistralguard")
    sources.pop("coconot_pref_chosen")
    answers = [a for rows in sources.values() for a in rows]
    names = np.array([n for n, rows in sources.items() for _ in rows])
    labels = np.array([a.refusal for a in answers])
    given = features([a.text for a in answers], FOLDER)
    print("\n### Fitted on one source, tested on another (lexical part), accuracy %\n")
    row("fitted on", *sources, "rows")
    row("---", *["---"] * (len(sources) + 1))
    for one in sources:
        cells = []
        for other in sources:
            test = np.flatnonzero(names == other)
            if one == other:
                cells.append("–")
                continue
            found = fit_and_score(answers, given, np.flatnonzero(names == one), test)
            cells.append(f"{100 * ((found.refusal > 0) == labels[test]).mean():.1f}")  # type: ignore[attr-defined]
        row(one, *cells, int((names == one).sum()))


def encoder_share(texts: Sequence[str]) -> float:
    """The share of answers whose lexical logit lies within the gate, %."""
    scores = LexicalModel.load(FOLDER).score([read(text) for text in texts])
    return 100 * float(np.mean(np.abs(scores.refusal) < load_config(FOLDER).gate))


def never_seen(data: Path) -> list[str]:
    """UltraFeedback's answers: nothing is fitted or chosen on them."""
    lines = (data / "ultrafeedback_noise/clean.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    return list(dict.fromkeys(pair[side] for pair in pairs for side in ("chosen", "rejected")))


def speed(data: Path, rounds: int = 3) -> None:
    """20,000 different answers: real ones, then real ones with a line more; and answers seen in no fit."""
    sources = labelled_sources(data)
    real = list(dict.fromkeys([a.text for rows in sources.values() for a in rows] + unlabelled_answers(data)))
    texts = (real + [f"{text}\n\nThat was answer {n}." for n, text in enumerate(real)])[:ROWS]
    started = time.perf_counter()
    detector = open_refusal_detector()
    opened = time.perf_counter() - started
    detector.detect([None], ["I am not sure that this is something I would do, although it may be fine."])
    RefusalEncoder.load(FOLDER)
    loaded = time.perf_counter() - started
    print(f"\n### Speed, median of {rounds}; {min(len(real), ROWS):,} of the 20,000 are unaltered\n")
    print(f"Load {opened:.2f} s, with torch, the encoder and a first answer {loaded:.2f} s.\n")
    row("answers", "rows", "read by the encoder %", "wall s", "answers/s", "CPU s")
    row(*["---"] * 6)
    for title, some in (("of the sources", texts), ("UltraFeedback, in no fit", never_seen(data))):
        walls, cpus = [], []
        for _ in range(rounds):
            wall, cpu = time.perf_counter(), time.process_time()
            detect_refusals(pl.DataFrame({"response": some}), detector=detector)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        wall, cpu = float(np.median(walls)), float(np.median(cpus))
        share = f"{encoder_share(some):.1f}"
        given = f"{len(some):,} answers {title}, {share} % read by the encoder, median of {rounds}"
        FIGURES.add("refusal detection", len(some) / wall, "answers/s", conditions=given)
        row(title, f"{len(some):,}", share, f"{wall:.1f}", f"{len(some) / wall:.0f}", f"{cpu:.1f}")


PARTS = {
    "chatgpt": chatgpt,
    "xstest": xstest,
    "folds": folds,
    "matrix": matrix,
    "speed": speed,
    "coconot": coconot,
    "requests": ordinary,
    "kinds": kinds,
    "dsl": dsl,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="of the speed part")
    parser.add_argument("--folds", type=int, help="how many of five: of coconot all, of folds one, if not given")
    options = parser.parse_args()
    options.data = shared_data(options.data)
    FIGURES.packages.append("scikit-learn")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-learn", "polars"))
    print(f"Python {platform.python_version()}, {packages}")
    for name in options.only:
        given = {"speed": [options.rounds]}.get(name, [])
        if name in ("coconot", "folds") and options.folds is not None:
            given = [options.folds]
        PARTS[name](options.data, *given)


if __name__ == "__main__":
    main()
    FIGURES.write()
