"""The part ``kinds`` of ``refusals.py``: of answers that refuse, whether the kind is right, out of fold."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from _figures import FIGURES

from curation.embedded._refusals_data import KINDS, kind_examples, labelled_sources
from curation.embedded._refusals_lexical import features, fit_lexical
from curation.models.identity import EMBEDDED_DIR
from curation.refusals.cascade import kinds_told
from curation.refusals.lexical import read

FOLDER = EMBEDDED_DIR / "refusals"


def kinds(data: Path) -> None:
    """5 folds by prompt; ``kind_examples`` are in every fit and no test. chatgpt_refusals lacks two kinds."""
    from sklearn.model_selection import StratifiedGroupKFold

    sources = labelled_sources(data)
    answers = [a for name in ("chatgpt", "written") for a in sources[name]]
    names = np.array([name for name in ("chatgpt", "written") for _ in sources[name]])
    told = np.array([a.kind or "" for a in answers])
    given = features([a.text for a in answers], FOLDER)
    found = np.full(len(answers), "", dtype=told.dtype)
    strata = np.char.add(names, told)  # the fewest of a kind are four, so that a fold may lack it
    warnings.filterwarnings("ignore", message="The least populated class")
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(
        answers, strata, [a.group for a in answers]
    ):
        scores = fit_lexical(answers, given, train, FOLDER, kinds_alone=kind_examples()).score(
            [read(answers[r].text) for r in test]
        )
        found[test] = np.array(KINDS)[kinds_told(scores, KINDS)]
    print("\n### Kinds of refusals, 5 folds by prompt: found again, % (rows)\n")
    print("| source | " + " | ".join((*KINDS, "all")) + " |")
    print("| --- |" + " --- |" * (len(KINDS) + 1))
    for name in ("chatgpt", "written"):
        mine = (names == name) & (told != "")
        cells = []
        for kind in (*KINDS, None):
            rows = mine & (told == kind) if kind else mine
            right = 100 * float((found[rows] == told[rows]).mean()) if rows.any() else None
            cells.append("–" if right is None else f"{right:.0f} ({rows.sum()})")
            if kind is None and right is not None:
                FIGURES.add(f"kinds of refusals, {name}", right, "%", conditions=f"5 folds, {rows.sum()} refusals")
        print(f"| {name} | " + " | ".join(cells) + " |")
