"""Makes the bundled refusal detector: ``python -m curation.embedded.make_refusals --data ../shared/data``.

The lexical part takes a minute, the encoder about half an hour on one core; ``--keep-encoder`` leaves the
encoder as it is. Figures on data are measured by benchmarks/refusals.py, not here.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from curation.embedded._refusals_data import KINDS, Answer, labelled_sources
from curation.embedded._refusals_lexical import features, fit_lexical, save_lexical
from curation.models.identity import EMBEDDED_DIR
from curation.refusals.cascade import CONFIG, CascadeConfig

__all__ = ["CASCADE", "encoder_answers", "main", "make", "make_request_heads"]

FOLDER: Final = EMBEDDED_DIR / "refusals"
CASCADE: Final = CascadeConfig(
    kinds=list(KINDS), gate=1.0, lexical_weight=1.0, encoder_weight=0.5, bias=0.0, lexical_alone=1.0
)
"""Chosen on the validation part of chatgpt_refusals with an encoder that had not seen it."""
_EPOCHS: Final = 3
_PLAIN_ANSWERS: Final = 300


def encoder_answers(sources: Mapping[str, Sequence[Answer]], *, seed: int = 0) -> list[Answer]:
    """What the encoder learns from: everything labelled, of the plain compliant answers a sample."""
    answers = [a for name, rows in sources.items() if name != "coconot_pref_chosen" for a in rows]
    plain = list(sources.get("coconot_pref_chosen", []))
    return answers + random.Random(seed).sample(plain, min(_PLAIN_ANSWERS, len(plain)))


def make_request_heads(data: Path, folder: Path) -> None:
    """Fit the heads that judge requests and write them."""
    from curation.embedded._refusals_requests import fit_heads, labelled_requests, save_heads
    from curation.models.encoder import open_encoder

    requests = labelled_requests(data)
    vectors = open_encoder(max_length=64).encode([request.text for request in requests]).vectors
    save_heads(fit_heads(vectors, requests, range(len(requests))), folder)


def make(data: Path, folder: Path, *, keep_encoder: bool) -> None:
    """Fit both parts on all labelled sources and write them."""
    sources = labelled_sources(data)
    answers = [answer for rows in sources.values() for answer in rows]
    given = features([answer.text for answer in answers], folder)
    save_lexical(fit_lexical(answers, given, range(len(answers)), folder), folder)
    if not keep_encoder:
        from curation.embedded._refusals_encoder import fine_tune, save_encoder

        save_encoder(fine_tune(encoder_answers(sources), epochs=_EPOCHS), folder)
    make_request_heads(data, folder)
    config = json.dumps(CASCADE._asdict(), indent=1)
    (folder / CONFIG).write_text(config + "\n", encoding="utf-8")
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in sources.items())
    sys.stderr.write(f"refusal detector written to {folder}, from {counts}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that data/README.md describes")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write, with lexicon.json in it")
    parser.add_argument("--keep-encoder", action="store_true")
    options = parser.parse_args(arguments)
    make(options.data, options.folder, keep_encoder=options.keep_encoder)


if __name__ == "__main__":
    main()
