"""Makes the bundled models: ``python -m curation.embedded.make_refusals --data ../shared/data``.

The lexical part takes a few minutes, the encoder a quarter of an hour on one core with AMX, the model of requests
five minutes; ``--only answers`` or ``--only requests`` makes one of them, and ``--keep-encoder`` leaves the encoder
as it is. ``--distil`` also teaches the lexical part what the encoder says of answers that nobody labelled; measured
by benchmarks/refusals_gate.py and not bundled, because an answer of emoji alone then counts as a refusal. Figures
are measured by benchmarks/refusals.py, not here.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from curation.embedded._refusals_data import KINDS, Answer, kind_examples, labelled_sources, unlabelled_answers
from curation.embedded._refusals_lexical import features, fit_lexical, save_lexical
from curation.models.identity import EMBEDDED_DIR
from curation.models.refusal_encoder import RefusalEncoder
from curation.refusals.cascade import CONFIG, CascadeConfig

__all__ = [
    "CASCADE",
    "SHARPER",
    "distilled",
    "encoder_answers",
    "main",
    "make",
    "make_lexical",
    "make_requests",
]

FOLDER: Final = EMBEDDED_DIR / "refusals"
REQUESTS_FOLDER: Final = EMBEDDED_DIR / "requests"
CASCADE: Final = CascadeConfig(
    kinds=list(KINDS), gate=1.0, lexical_weight=0.5, encoder_weight=1.0, bias=0.0, lexical_alone=1.0
)
"""The weights were chosen on a fold (a fifth of the prompts of each source) that neither part had seen."""
_UNLABELLED_WEIGHT: Final = 0.5
SHARPER: Final = 2.0
"""Label smoothing keeps the encoder's logits within about ± 3; what the lexical part learns is not smoothed."""
_EPOCHS: Final = 4
_PLAIN_ANSWERS: Final = 300


def encoder_answers(sources: Mapping[str, Sequence[Answer]], *, seed: int = 0) -> list[Answer]:
    """What the encoder learns from: everything labelled, of the plain compliant answers a sample."""
    answers = [a for name, rows in sources.items() if name != "coconot_pref_chosen" for a in rows]
    plain = list(sources.get("coconot_pref_chosen", []))
    return answers + random.Random(seed).sample(plain, min(_PLAIN_ANSWERS, len(plain)))


def make_lexical(sources: Mapping[str, Sequence[Answer]], unlabelled: Sequence[str], folder: Path) -> None:
    """Fit the lexical part to the labels, and to what the encoder says of the unlabelled answers given.

    The latter (distillation) makes it sure of ordinary answers, so that fewer of them need the encoder.
    """
    answers, soft, weights = distilled(sources, unlabelled, RefusalEncoder.load(folder))
    given = features([answer.text for answer in answers], folder)
    fitted = fit_lexical(
        answers, given, range(len(answers)), folder, soft=soft, weights=weights, kinds_alone=kind_examples()
    )
    save_lexical(fitted, folder)


def distilled(
    sources: Mapping[str, Sequence[Answer]], unlabelled: Sequence[str], encoder: RefusalEncoder
) -> tuple[list[Answer], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Labelled answers, then unlabelled ones; for each the probability to learn and its weight."""
    labelled = [answer for rows in sources.values() for answer in rows]
    known = {answer.text for answer in labelled}
    texts = [text for text in unlabelled if text not in known]
    logits = encoder.logits(texts)[:, 0].astype(np.float64) if texts else np.zeros(0)
    taught = 1 / (1 + np.exp(-SHARPER * logits))
    answers = labelled + [
        Answer(text, int(p >= 0.5), None, None, text) for text, p in zip(texts, taught, strict=True)
    ]
    soft = np.concatenate([[float(answer.refusal) for answer in labelled], taught])
    weights = np.concatenate([np.ones(len(labelled)), np.full(len(texts), _UNLABELLED_WEIGHT)])
    return answers, soft, weights


def make_requests(data: Path, folder: Path) -> None:
    """Fit the model that judges requests to all labelled ones and write it."""
    from curation.embedded._refusals_requests import fit_requests, labelled_requests, save_requests

    requests = labelled_requests(data)
    folder.mkdir(exist_ok=True)
    save_requests(fit_requests(requests, range(len(requests))), folder)
    sys.stderr.write(f"request model written to {folder}, from {len(requests)} requests\n")


def make(data: Path, folder: Path, *, keep_encoder: bool, distil: bool = False) -> None:
    """Fit both parts of the detector on all labelled sources and write them."""
    sources = labelled_sources(data)
    if not keep_encoder:
        from curation.embedded._refusals_encoder import fine_tune, save_encoder

        save_encoder(fine_tune(encoder_answers(sources), epochs=_EPOCHS), folder)
    make_lexical(sources, unlabelled_answers(data) if distil else [], folder)
    config = json.dumps(CASCADE._asdict(), indent=1)
    (folder / CONFIG).write_text(config + "\n", encoding="utf-8")
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in sources.items())
    sys.stderr.write(f"refusal detector written to {folder}, from {counts}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that data/README.md describes")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write, with lexicon.json in it")
    parser.add_argument("--requests-folder", type=Path, default=REQUESTS_FOLDER)
    parser.add_argument("--only", choices=("answers", "requests"), help="one of the two models")
    parser.add_argument("--keep-encoder", action="store_true")
    parser.add_argument("--distil", action="store_true", help="not how the bundled one was made")
    options = parser.parse_args(arguments)
    if options.only != "requests":
        make(options.data, options.folder, keep_encoder=options.keep_encoder, distil=options.distil)
    if options.only != "answers":
        make_requests(options.data, options.requests_folder)


if __name__ == "__main__":
    main()
